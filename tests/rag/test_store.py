"""Knowledge bases, documents and versions in SQL."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from rag.errors import InvalidInput, NotFound, StoreUnavailable
from rag.settings import Settings
from rag.store.documents import (
    NewChunk,
    NewVersion,
    delete_document,
    find_document,
    get_document,
    list_documents,
    live_version,
    replace_version,
    version_chunk_ids,
)
from rag.store.kbs import count_contents, delete_kb, get_kb, get_or_create_kb, list_kbs
from rag.store.models import Chunk, Document, DocumentVersion
from rag.store.session import Database


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(Settings(home=tmp_path / "数据"))
    database.migrate()
    return database


def version(text: str, sha: str = "a") -> NewVersion:
    return NewVersion(sha * 64, "text/plain", len(text), text)


def test_sqlite_is_configured(database: Database) -> None:
    with database.session() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2, "FULL: commits outlive a power cut"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) >= 10_000


def test_a_session_commits_at_the_end_and_rolls_back_on_an_error(database: Database) -> None:
    with database.session() as session:
        get_or_create_kb(session, "kept")

    def interrupted() -> None:
        with database.session() as session:
            get_or_create_kb(session, "lost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    with database.session() as session:
        assert [kb.slug for kb in list_kbs(session)] == ["kept"]


@pytest.mark.parametrize("slug", ["", "Ab", "中文", "a b", "a/b", "a~1", "x" * 65, "../x"])
def test_a_slug_has_safe_characters_only(database: Database, slug: str) -> None:
    with pytest.raises(InvalidInput, match="a-z"), database.session() as session:
        get_or_create_kb(session, slug)


def test_unknown_names_are_told_with_what_to_do(database: Database) -> None:
    with database.session() as session:
        with pytest.raises(NotFound, match="kb list"):
            get_kb(session, "nowhere")
        with pytest.raises(NotFound, match="documents list"):
            get_document(session, "nothing")


def test_a_document_is_a_path_and_a_version_its_content(database: Database) -> None:
    with database.session() as session:
        kb = get_or_create_kb(session)
        first, old, old_ids = replace_version(
            session, kb, "目录/一.txt", "标题", version("第一版。", "a"), [NewChunk(0, 4, "章", 1)]
        )
        other, _, _ = replace_version(session, kb, "目录/二.txt", "", version("第一版。", "a"), [NewChunk(0, 4)])
        again, new, new_ids = replace_version(
            session, kb, "目录/一.txt", "新标题", version("第二版，长一些。", "b"), [NewChunk(0, 4), NewChunk(4, 8)]
        )
        assert again.id == first.id != other.id
        assert len(new_ids) == 2
        assert not set(old_ids) & set(new_ids)
    with database.session() as session:
        kb = get_kb(session, "default")
        live = live_version(session, kb, "目录/一.txt")
        assert live is not None
        assert (live.id, live.text) == (new.id, "第二版，长一些。")
        assert live_version(session, kb, "目录/三.txt") is None
        stored = session.get(DocumentVersion, old.id)
        assert stored is not None
        assert stored.deleted_at is not None
        assert stored.text == "第一版。", "a citation may still point into it"
        rows = list_documents(session, kb)
        assert [(r.path, r.title, r.chars, r.chunks) for r in rows] == [
            ("目录/一.txt", "新标题", 8, 2),
            ("目录/二.txt", "二.txt", 4, 1),
        ]
        assert count_contents(session, kb) == (2, 3)


def test_a_deleted_document_lives_again_under_its_id(database: Database) -> None:
    with database.session() as session:
        kb = get_or_create_kb(session)
        document, _, ids = replace_version(session, kb, "a.txt", "甲", version("内容"), [NewChunk(0, 2)])
        assert delete_document(session, document.id) == ids
    with database.session() as session:
        kb = get_kb(session, "default")
        assert list_documents(session, kb) == []
        for name in (document.id, "a.txt"):
            with pytest.raises(NotFound):
                find_document(session, name, "default")
        again, _, _ = replace_version(session, kb, "a.txt", "甲", version("内容"), [NewChunk(0, 2)])
        assert again.id == document.id
    with database.session() as session:
        assert find_document(session, "a.txt", "default").id == document.id
        assert len(version_chunk_ids(session, again)) == 1
        assert version_chunk_ids(session, again, live=False) == ids


def test_ids_of_deleted_rows_are_never_given_again(database: Database) -> None:
    with database.session() as session:
        kb = get_or_create_kb(session)
        document, _, ids = replace_version(session, kb, "a.txt", "", version("内容"), [NewChunk(0, 2)])
        session.delete(session.get(Document, document.id))
    with database.session() as session:
        assert session.scalars(select(Chunk.id)).all() == []
        kb = get_kb(session, "default")
        _, _, new = replace_version(session, kb, "a.txt", "", version("内容"), [NewChunk(0, 2)])
        assert new[0] > ids[0]


def test_what_no_database_stores_is_replaced_one_for_one(database: Database) -> None:
    with database.session() as session:
        kb = get_or_create_kb(session)
        _, stored, _ = replace_version(
            session, kb, "a\x00.txt", "题\ud800" + "长" * 600, version("一\x00二\ud83d三"), [NewChunk(0, 5)]
        )
    with database.session() as session:
        row = session.get(DocumentVersion, stored.id)
        assert row is not None
        assert row.text == "一�二�三"
        assert len(row.document.title) == 500


@pytest.mark.parametrize("chunk", [NewChunk(0, 3), NewChunk(1, 1), NewChunk(-1, 1)])
def test_a_chunk_lies_within_the_text(database: Database, chunk: NewChunk) -> None:
    with pytest.raises(InvalidInput, match="outside"), database.session() as session:
        replace_version(session, get_or_create_kb(session), "a.txt", "", version("二字"), [chunk])


def test_an_over_long_path_is_refused(database: Database) -> None:
    with pytest.raises(InvalidInput, match="1024"), database.session() as session:
        replace_version(session, get_or_create_kb(session), "长" * 1025, "", version("字"), [])


def test_a_deleted_knowledge_base_frees_its_name(database: Database) -> None:
    with database.session() as session:
        kb = get_or_create_kb(session, "a")
        document, _, _ = replace_version(session, kb, "a.txt", "", version("内容"), [NewChunk(0, 2)])
        assert delete_kb(session, "a") == kb.id
    with database.session() as session:
        assert list_kbs(session) == []
        with pytest.raises(NotFound):
            get_document(session, document.id)
        again = get_or_create_kb(session, "a")
        assert again.id != kb.id
        assert list_documents(session, again) == []


def test_two_at_once_make_one_knowledge_base_and_one_live_version(database: Database) -> None:
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait()
            for round_ in range(5):
                with database.session() as session:
                    kb = get_or_create_kb(session, "same")
                    replace_version(
                        session, kb, "a.txt", "", version(f"{number}-{round_}", str(number)), [NewChunk(0, 3)]
                    )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.session() as session:
        kb = get_kb(session, "same")
        assert len(list_documents(session, kb)) == 1
        assert count_contents(session, kb) == (1, 1)


def test_a_snapshot_sees_one_moment(database: Database) -> None:
    with database.session() as session:
        get_or_create_kb(session, "first")
    with database.snapshot() as reader:
        assert len(list_kbs(reader)) == 1
        with database.session() as writer:
            get_or_create_kb(writer, "second")
        assert len(list_kbs(reader)) == 1
    with database.snapshot() as reader:
        assert len(list_kbs(reader)) == 2


def test_an_unusable_database_is_told_plainly(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "chatgglm.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="damaged"):
        Database(Settings(home=home)).migrate()
    with pytest.raises(InvalidInput, match="CHATGGLM_DATABASE_URL"):
        Database(Settings(home=home, database_url="nonsense")).migrate()


def test_a_locked_database_is_told_plainly(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.store.session.BUSY_SECONDS", 0.1)
    impatient = Database(database.settings)
    holder = sqlite3.connect(database.settings.home / "chatgglm.db")
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreUnavailable, match="try again"), impatient.session(write=True):
            pass
        with impatient.session() as session:
            assert list_kbs(session) == [], "readers never wait"
    finally:
        holder.rollback()
        holder.close()
