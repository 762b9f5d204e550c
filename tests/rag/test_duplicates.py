"""Near-duplicates: signatures, flags, and that they follow the live versions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy import select

from rag import minhash
from rag.settings import Settings
from rag.store.documents import NewVersion, delete_document, live_version, replace_version
from rag.store.duplicates import near_duplicates
from rag.store.kbs import get_or_create_kb
from rag.store.models import NearDuplicate, SignatureBand
from rag.store.session import Database


def text(seed: int, length: int = 2000) -> str:
    chance = random.Random(seed)
    return "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(length))


def changed(source: str, count: int, seed: int = 1) -> str:
    chance = random.Random(seed)
    found = list(source)
    for at in chance.sample(range(len(found)), count):
        found[at] = "〇"
    return "".join(found)


def jaccard(a: str, b: str) -> float:
    one, two = ({s[i : i + minhash.SHINGLE] for i in range(len(s) - minhash.SHINGLE + 1)} for s in (a, b))
    return len(one & two) / len(one | two)


@pytest.mark.parametrize("changes", [0, 5, 20, 40, 100, 400])
def test_similarity_is_the_share_of_common_shingles(changes: int) -> None:
    one = text(0)
    two = changed(one, changes)
    signed = [minhash.signature(t) or b"" for t in (one, two)]
    assert minhash.similarity(*signed) == pytest.approx(jaccard(one, two), abs=0.15)
    if jaccard(one, two) > 0.8:
        assert set(enumerate(minhash.bands(signed[0]))) & set(enumerate(minhash.bands(signed[1])))


def test_signatures_do_not_depend_on_case_spacing_or_length() -> None:
    assert minhash.signature("Zhong guo\n" * 20) == minhash.signature("zhongguo " * 20)
    assert minhash.signature("短") is None
    assert minhash.signature("") is None
    assert len(minhash.signature("一二三四五六七八" * 4) or b"") == 4 * minhash.HASHES
    assert minhash.signature("\ud800" * 40) is not None
    long = text(3, 1_100_000)  # more than one block
    assert minhash.similarity(minhash.signature(long) or b"", minhash.signature(long[500:]) or b"") > 0.9


@pytest.fixture
def database(tmp_path: Path, database_url: str) -> Database:
    database = Database(Settings(home=tmp_path, database_url=database_url))
    database.migrate()
    return database


def put(database: Database, path: str, content: str, kb: str = "default") -> int:
    with database.session(write=True) as session:
        new = NewVersion(path, "text/plain", len(content), content, signature=minhash.signature(content))
        return replace_version(session, get_or_create_kb(session, kb), path, "", new, [])[1].id


def twins(database: Database, path: str) -> list[tuple[str, float]]:
    with database.session() as session:
        version = live_version(session, get_or_create_kb(session), path)
        assert version is not None
        return [(t.path, t.similarity) for t in near_duplicates(session, [version.id]).get(version.id, [])]


def test_flags_come_and_go_with_live_versions(database: Database) -> None:
    one = text(1)
    put(database, "a.txt", one)
    put(database, "copy.txt", one)
    put(database, "near.txt", changed(one, 10))
    put(database, "far.txt", text(2))
    put(database, "elsewhere.txt", one, kb="other")
    assert twins(database, "a.txt")[0] == ("copy.txt", 1.0)
    assert [path for path, _ in twins(database, "a.txt")] == ["copy.txt", "near.txt"]
    assert [path for path, _ in twins(database, "near.txt")] == ["a.txt", "copy.txt"]
    assert twins(database, "far.txt") == []
    put(database, "copy.txt", text(4))  # replaced
    assert [path for path, _ in twins(database, "a.txt")] == ["near.txt"]
    with database.session(write=True) as session:
        version = live_version(session, get_or_create_kb(session), "near.txt")
        assert version is not None
        delete_document(session, version.document_id)
    assert twins(database, "a.txt") == []
    with database.session() as session:
        assert session.scalars(select(NearDuplicate)).all() == []
        assert len(session.scalars(select(SignatureBand)).all()) == 4 * minhash.BANDS
