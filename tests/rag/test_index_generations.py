"""Publishing, opening, healing, rebuilding and verifying index generations."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from rag.errors import Conflict, IndexUnavailable, NotFound
from rag.index import folders, generations
from rag.index.folders import MANIFEST, KbIndex
from rag.index.generations import IndexManager
from rag.index.text import index_text
from rag.ports import FloatMatrix
from rag.settings import Settings
from rag.store.documents import NewChunk, NewVersion, delete_document, replace_version
from rag.store.kbs import delete_kb, get_kb, get_or_create_kb
from rag.store.models import IndexGeneration
from rag.store.session import Database
from tests.rag.world import BigramEmbedder


class Counting(BigramEmbedder):
    """Counts what it embeds."""

    def __init__(self, ident: str = "bigrams") -> None:
        self.id = ident
        self.embedded: list[str] = []

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        self.embedded += texts
        return super().encode_passages(texts)


class Place:
    """A store and its indexes; documents are one chunk each unless cut."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.database = Database(self.settings)
        self.database.migrate()
        self.embedder = Counting()
        self.indexes = IndexManager(self.database, self.settings, self.embedder)
        with self.database.session() as session:
            get_or_create_kb(session, "default")

    def store(self, *texts: str, path: str = "{}.txt") -> list[int]:
        """Rows only, as an ingestion leaves them that is killed before it publishes."""
        added = []
        with self.database.session(write=True) as session:
            kb = get_kb(session, "default")
            for text in texts:
                new = NewVersion("0" * 64, "text/plain", len(text), text)
                added += replace_version(session, kb, path.format(text), "题", new, [NewChunk(0, len(text), "章")])[2]
        return added

    def put(self, *texts: str) -> list[int]:
        ids = self.store(*texts)
        self.publish(ids, texts)
        return ids

    def publish(self, ids: Sequence[int], texts: Sequence[str], remove: Sequence[int] = ()) -> int:
        wanted = [index_text("题", "章", text) for text in texts]
        return self.indexes.publish("default", (ids, wanted, BigramEmbedder().encode_passages(wanted)), remove)

    def found(self, query: str, k: int = 5) -> list[int]:
        index = self.indexes.open("default")
        return [i for i in index.lexical.search(query, k)[0].tolist() if i >= 0]

    @property
    def folder(self) -> Path:
        return self.settings.home / "indexes" / "1"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "数据")


def test_nothing_is_indexed_at_first(place: Place) -> None:
    index = place.indexes.open("default")
    assert (index.generation, len(index)) == (0, 0)
    assert place.found("年假") == []
    report = place.indexes.verify("default")
    assert (report.ok, report.counts["chunks"]) == (True, 0)
    with pytest.raises(NotFound, match="kb list"):
        place.indexes.open("nowhere")


def test_publishing_adds_to_what_is_there_without_embedding_it_again(place: Place) -> None:
    first = place.put("年假有十五天", "病假要告知主管")
    second = place.put("加班费另算")
    index = place.indexes.open("default")
    assert index.generation == 2
    assert index.vectors.ids().tolist() == index.lexical.ids().tolist() == sorted(first + second)
    assert place.found("年假")[0] == first[0]
    query = place.embedder.encode_queries([index_text("题", "章", "加班费另算")])
    assert index.vectors.search(query, 1)[0].tolist() == [second]
    assert len(place.embedder.embedded) == 1, "the query alone"
    assert place.indexes.verify("default").ok


def test_removing_takes_effect_in_both(place: Place) -> None:
    ids = place.put("年假有十五天", "病假要告知主管")
    assert place.indexes.publish("default", remove=ids[:1]) == 2
    index = place.indexes.open("default")
    assert index.vectors.ids().tolist() == index.lexical.ids().tolist() == ids[1:]
    assert ids[0] not in place.found("年假", 5)


def test_nothing_to_do_makes_no_generation(place: Place) -> None:
    place.put("年假有十五天")
    assert place.indexes.publish("default") == 1
    assert place.indexes.publish("default", ([], [], np.zeros((0, 64), dtype=np.float32)), [999]) == 1
    assert place.indexes.sync("default") == 1


def test_an_open_index_stays_as_it_is_and_the_next_open_sees_the_new_one(place: Place) -> None:
    place.put("年假有十五天")
    before = place.indexes.open("default")
    assert place.indexes.open("default") is before
    place.put("年假可以分开休")
    assert len(before) == 1
    assert before.lexical.search("年假", 5)[0].tolist().count(-1) == 4
    assert len(place.indexes.open("default")) == 2


def test_rows_and_index_become_visible_in_one_commit(place: Place) -> None:
    text = "年假五天"
    wanted = [index_text("题", "章", text)]

    def ingest(interrupted: bool) -> list[int]:
        with place.database.session(write=True) as session:
            kb = get_kb(session, "default")
            new = NewVersion("0" * 64, "text/plain", 4, text)
            ids = replace_version(session, kb, "a.txt", "题", new, [NewChunk(0, 4, "章")])[2]
            add = (ids, wanted, BigramEmbedder().encode_passages(wanted))
            assert place.indexes.publish("default", add, session=session) == 1
            assert place.indexes.open("default").generation == 0, "not before the commit"
            if interrupted:
                raise ZeroDivisionError
            return ids

    with pytest.raises(ZeroDivisionError):
        ingest(interrupted=True)
    assert place.indexes.open("default").generation == 0
    assert place.indexes.verify("default").ok
    ids = ingest(interrupted=False)
    assert place.found("年假") == ids
    report = place.indexes.verify("default")
    assert report.ok, report.problems


def test_sync_heals_what_was_not_published(place: Place) -> None:
    kept = place.put("年假有十五天", "病假要告知主管")
    lost = place.store("加班费另算", "出差补贴八十元")
    report = place.indexes.verify("default")
    assert not report.ok
    assert "2 live chunks are missing" in " ".join(report.problems)
    with place.database.session() as session:
        delete_document(session, "年假有十五天.txt", get_kb(session, "default"))
    steps: list[tuple[int, int]] = []
    assert place.indexes.sync("default", lambda done, total: steps.append((done, total))) == 2
    assert place.embedder.embedded == [index_text("题", "章", t) for t in ("加班费另算", "出差补贴八十元")]
    assert steps[-1] == (2, 2)
    assert place.indexes.open("default").vectors.ids().tolist() == sorted([kept[1], *lost])
    assert place.indexes.verify("default").ok


def test_rebuild_equals_what_was_published(place: Place) -> None:
    place.put("年假有十五天", "病假要告知主管")
    place.put("加班费另算")
    old = place.indexes.open("default")
    steps: list[tuple[int, int]] = []
    assert place.indexes.rebuild("default", lambda done, total: steps.append((done, total))) == 3
    new = place.indexes.open("default")
    assert steps[-1] == (3, 3)
    for query in ("年假", "加班费", "题"):
        for mine, theirs in zip(old.lexical.search(query, 3), new.lexical.search(query, 3), strict=True):
            assert mine == pytest.approx(theirs)
    assert np.array_equal(old.vectors.ids(), new.vectors.ids())
    assert place.indexes.verify("default").ok


def test_what_is_ingested_while_rebuilding_is_in_the_new_generation(place: Place) -> None:
    place.put("年假有十五天")
    added: list[int] = []

    def meanwhile(done: int, total: int) -> None:
        if not added:
            added.extend(place.put("加班费另算"))

    place.indexes.rebuild("default", meanwhile)
    assert added[0] in place.indexes.open("default").vectors.ids()
    assert place.indexes.verify("default").ok


def test_a_publisher_that_is_overtaken_goes_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between writing a generation's files and recording it, an ingestion commits one of its own."""
    place.put("年假有十五天")
    real = generations.written
    overtaken: list[int] = []

    @contextmanager
    def written(root: Path, index: KbIndex, known: Mapping[str, object] | None = None) -> Iterator[Path]:
        with real(root, index, known) as folder:
            if not overtaken:
                overtaken.append(index.generation)
                text = "加班费另算"
                wanted = [index_text("题", "章", text)]
                with place.database.session(write=True) as session:
                    new = NewVersion("0" * 64, "text/plain", len(text), text)
                    kb = get_kb(session, "default")
                    ids = replace_version(session, kb, "b.txt", "题", new, [NewChunk(0, 5, "章")])[2]
                    add = (ids, wanted, BigramEmbedder().encode_passages(wanted))
                    place.indexes.publish("default", add, session=session)
            yield folder

    monkeypatch.setattr(generations, "written", written)
    assert place.indexes.rebuild("default") == 3
    assert overtaken == [1]
    overtaken.clear()
    ids = place.store("出差补贴八十元")
    with place.database.session() as session:
        delete_document(session, "b.txt", get_kb(session, "default"))
    assert place.publish(ids, ["出差补贴八十元"]) == 5
    report = place.indexes.verify("default")
    assert report.ok, report.problems
    assert report.counts["chunks"] == 3


def test_tombstoned_chunks_are_counted_not_complained_about(place: Place) -> None:
    place.put("年假有十五天", "病假要告知主管")
    with place.database.session() as session:
        delete_document(session, "年假有十五天.txt", get_kb(session, "default"))
    report = place.indexes.verify("default")
    assert report.ok
    assert (report.counts["tombstoned"], report.counts["chunks"], report.counts["vectors"]) == (1, 1, 2)


def test_another_embedder_is_never_mixed_in(place: Place) -> None:
    place.put("年假有十五天")
    other = IndexManager(place.database, place.settings, Counting("other"))
    with pytest.raises(IndexUnavailable, match="kb rebuild default"):
        other.open("default")
    text = "加班费另算"
    with pytest.raises(Conflict, match="indexed with the embedder bigrams"):
        other.publish("default", (place.store(text), [text], BigramEmbedder().encode_passages([text])))
    with pytest.raises(Conflict, match="bigrams"):
        other.sync("default")
    other.rebuild("default")
    assert len(other.open("default")) == 2
    assert other.verify("default").ok


def test_old_generations_go_after_their_grace(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        place.put(f"第{number}篇")
    assert {f.name for f in place.folder.iterdir() if f.is_dir()} == {"1", "2", "3"}
    monkeypatch.setattr(folders, "GRACE_SECONDS", 0.0)
    time.sleep(0.01)
    place.put("又一篇")
    assert {f.name for f in place.folder.iterdir() if f.is_dir()} == {"4"}
    with place.database.session() as session:
        assert session.scalars(select(IndexGeneration.number)).all() == [4]
    assert place.indexes.verify("default").ok


def test_what_a_crash_left_is_ignored_and_swept_away(place: Place) -> None:
    place.put("年假有十五天")
    (place.folder / "new-0123456789ab").mkdir()
    (place.folder / "new-0123456789ab" / "half.npy").write_bytes(b"x")
    (place.folder / "2").mkdir()  # renamed, yet the transaction never came
    (place.folder / "2" / MANIFEST).write_text("{")
    assert place.indexes.open("default").generation == 1
    assert place.indexes.verify("default").ok
    place.put("加班费另算")
    assert {f.name for f in place.folder.iterdir() if f.is_dir()} == {"1", "2"}
    assert len(place.indexes.open("default")) == 2
    assert place.indexes.verify("default").ok


def test_publishers_at_once_lose_nothing(place: Place) -> None:
    """Half of them as an ingestion does it, within the transaction of the rows."""
    errors: list[BaseException] = []

    def alone(name: str) -> None:
        manager = IndexManager(place.database, place.settings, BigramEmbedder())
        for number in range(4):
            text = f"{name}第{number}篇"
            ids = place.store(text)
            wanted = [index_text("题", "章", text)]
            manager.publish("default", (ids, wanted, BigramEmbedder().encode_passages(wanted)))

    def together(name: str) -> None:
        for number in range(4):
            text = f"{name}第{number}篇"
            wanted = [index_text("题", "章", text)]
            with place.database.session(write=True) as session:
                kb = get_kb(session, "default")
                new = NewVersion("0" * 64, "text/plain", len(text), text)
                chunks = [NewChunk(0, len(text), "章")]
                ids = replace_version(session, kb, f"{text}.txt", "题", new, chunks)[2]
                add = (ids, wanted, BigramEmbedder().encode_passages(wanted))
                place.indexes.publish("default", add, session=session)

    def guarded(work: object, name: str) -> None:
        try:
            work(name)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=guarded, args=(work, f"{work.__name__}{n}"))
        for work in (alone, together)
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    index = place.indexes.open("default")
    assert (index.generation, len(index)) == (16, 16)
    report = place.indexes.verify("default")
    assert report.ok, report.problems


def test_readers_are_never_blocked_by_a_publisher(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("年假有十五天")
    ids = place.store("加班费另算")
    inside, go_on = threading.Event(), threading.Event()
    real = IndexManager._record

    def slow(self: IndexManager, *args: object) -> int:
        inside.set()
        assert go_on.wait(30)
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(IndexManager, "_record", slow)
    publisher = threading.Thread(target=place.publish, args=(ids, ["加班费另算"]))
    publisher.start()
    assert inside.wait(30)
    began = time.monotonic()
    fresh = IndexManager(place.database, place.settings, place.embedder)
    assert len(fresh.open("default")) == 1
    assert time.monotonic() - began < 5
    go_on.set()
    publisher.join()
    assert len(fresh.open("default")) == 2


def test_a_dropped_knowledge_base_leaves_no_files(place: Place) -> None:
    place.put("年假有十五天")
    with place.database.session() as session:
        kb_id = delete_kb(session, "default")
    place.indexes.drop(kb_id)
    assert not place.folder.exists()


def damage(place: Place, what: str) -> None:
    folder = place.folder / "1"
    if what == "manifest gone":
        (folder / MANIFEST).unlink()
    elif what == "manifest changed":
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        (folder / MANIFEST).write_text(json.dumps(content | {"chunks": 99}), encoding="utf-8")
    elif what == "file gone":
        next((folder / "lexical").glob("*.docs.npy")).unlink()
    elif what == "file cut":
        path = next((folder / "vectors").glob("*.faiss"))
        path.write_bytes(path.read_bytes()[:-10])
    elif what == "bit flipped":
        path = next((folder / "lexical").glob("*.docs.npy"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    elif what == "folder gone":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "what", ["manifest gone", "manifest changed", "file gone", "file cut", "bit flipped", "folder gone"]
)
def test_damage_is_found_and_rebuilt(place: Place, what: str) -> None:
    place.put("年假有十五天", "病假要告知主管")
    damage(place, what)
    report = place.indexes.verify("default")
    assert not report.ok
    assert report.problems
    if what not in ("manifest changed", "bit flipped"):  # those only the checksums tell
        with pytest.raises(IndexUnavailable, match="kb rebuild"):
            IndexManager(place.database, place.settings, place.embedder).open("default")
    place.indexes.rebuild("default")
    report = place.indexes.verify("default")
    assert report.ok, report.problems
    assert len(place.found("假")) == 2


def test_verify_finds_an_index_that_is_not_that_of_the_rows(place: Place) -> None:
    ids = place.store("年假有十五天")
    place.publish(ids, ["完全不同的另外一段文字"])
    assert "not those of their text" in " ".join(place.indexes.verify("default").problems)
    place.publish([12345], ["没有这一行"])
    assert "12345" in " ".join(place.indexes.verify("default").problems)


def test_an_index_of_another_version_is_told_and_made_again(place: Place) -> None:
    place.put("年假有十五天")
    path = place.folder / "1" / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"format": 1}), encoding="utf-8")
    with pytest.raises(IndexUnavailable, match="kb rebuild"):
        IndexManager(place.database, place.settings, place.embedder).open("default")
    place.indexes.rebuild("default")
    assert place.found("年假") == [1]
    assert place.indexes.verify("default").ok
