"""Merging in the background: nothing is lost, nobody waits, several processes read meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.index import merging, segments
from rag.index.generations import IndexManager
from rag.index.kinds import Sizes
from rag.index.lexical import Bm25Index
from rag.index.merging import Merger
from rag.index.vectors import FaissStore
from tests.rag.world import World

OPEN = 4
"""Chunks from which on a segment is sealed, in these tests."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OPEN", OPEN)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Merges only happen where a test asks for them."""
    monkeypatch.setattr(Merger, "report", lambda self, kb_slug: None)
    world = World(tmp_path)
    world.settings = world.indexes.settings = world.settings.model_copy(update={"hnsw_from": 10, "ivf_from": 1 << 40})
    yield world
    world.database.close()


def document(name: str, paragraphs: int = 5) -> dict[str, str]:
    return {f"{name}.txt": "\n\n".join(f"{name}的第{n}段讲编号 {name}{n}" for n in range(paragraphs))}


def sizes(world: World) -> tuple[list[int], list[int]]:
    index = world.indexes.open("default")
    return [len(s) for s in index.lexical.segments], [len(s) for s in index.vectors.segments]


def found(world: World, query: str, k: int = 3) -> list[int]:
    index = world.indexes.open("default")
    return [i for i in index.lexical.search(query, k)[0].tolist() if i >= 0]


def verified(world: World) -> None:
    report = world.indexes.verify("default")
    assert report.ok, report.problems


def test_a_publish_leaves_sealed_segments_to_the_background(world: World) -> None:
    for name in ("A", "B", "C"):
        world.put(document(name))
    assert sizes(world) == ([5, 5, 5], [5, 5, 5])
    before = found(world, "B3")
    assert world.indexes.settle("default") == 1
    assert sizes(world) == ([15], [15])
    assert world.indexes.open("default").vectors.segments[0].kind == "hnsw"
    assert found(world, "B3") == before
    assert world.indexes.settle("default") == 0
    verified(world)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "delete", "merge"]), st.integers(1, 12)), max_size=25), st.data())
def test_answers_never_depend_on_merges(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    """Both indexes, with and without merging, hold and find the same."""
    segments.OPEN = OPEN  # hypothesis outlives the fixture
    rng = np.random.default_rng(0)
    one, other = (Bm25Index(), FaissStore()), (Bm25Index(), FaissStore())
    held: list[int] = []
    used = 0
    for step, count in steps:
        if step == "add":
            ids = list(range(used, used + count))
            rows = rng.standard_normal((count, 8)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            for lexical, vectors in (one, other):
                lexical.add(ids, [f"编号 N{i} 甲乙" for i in ids])
                vectors.add(ids, rows)
            used += count
            held += ids
        elif step == "delete" and held:
            gone = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=count, unique=True))
            held = [i for i in held if i not in gone]
            for lexical, vectors in (one, other):
                lexical.delete(gone)
                vectors.delete(gone)
        elif step == "merge":
            while names := one[0].due():
                assert one[0].replace(names, one[0].merged(names))
            while names := one[1].due():
                assert one[1].replace(names, one[1].merged(names, Sizes(1, 1 << 40)))
    for mine, theirs in zip(one, other, strict=True):
        assert mine.ids().tolist() == theirs.ids().tolist() == held
    for i in held[:5]:
        assert one[0].search(f"N{i}", 1)[0].tolist() == [i]
    if held:
        query = rng.standard_normal((1, 8)).astype(np.float32)
        assert one[1].search(query, 5, exact=True)[0].tolist() == other[1].search(query, 5, exact=True)[0].tolist()


def during(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have ``act`` done once, when a merge has made its segments and is about to exchange them."""
    real = merging.checksums
    done: list[bool] = []

    def checksums(*args: object) -> object:
        if not done:
            done.append(True)
            act()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "checksums", checksums)


def test_what_is_published_during_a_merge_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = world.put(document("A")) | world.put(document("B"))

    def act() -> None:
        chunks = [i for n in range(5) for i in found(world, f"A{n}", 1)]
        world.delete(ids["A.txt"])
        world.indexes.publish("default", remove=chunks)
        world.put(document("C"))

    during(monkeypatch, act)
    assert world.indexes.settle("default") >= 1
    index = world.indexes.open("default")
    assert len(index.lexical) == len(index.vectors) == 10
    assert found(world, "C2")
    assert world.indexes.settle("default") == 0
    assert sizes(world) == ([10], [10])
    verified(world)


def test_a_merge_that_a_rebuild_overtakes_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put(document("A"))
    world.put(document("B"))

    def act() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(IndexManager, "settle", lambda self, kb_slug: 0)
            world.indexes.rebuild("default")

    during(monkeypatch, act)
    assert world.indexes.settle("default") == 0
    assert sizes(world) == ([10], [10])
    verified(world)


def test_neither_readers_nor_writers_wait_for_a_merge(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merge stands still until others have read and published."""
    world.put(document("A"))
    world.put(document("B"))
    building, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        building.set()
        assert go_on.wait(60), "readers and writers came to their end"

    during(monkeypatch, stand_still)
    merge = threading.Thread(target=world.indexes.settle, args=("default",))
    merge.start()
    assert building.wait(60)
    fresh = IndexManager(world.database, world.settings, world.embedder)
    assert len(fresh.open("default")) == 10
    world.put(document("C"))
    assert len(fresh.open("default")) == 15
    assert merging.merge(world.indexes, "default", wait=False) == 0, "a second merge leaves it to the first"
    go_on.set()
    merge.join(60)
    assert not merge.is_alive()
    assert sizes(world)[0] in ([10, 5], [15])
    verified(world)


def test_the_background_thread_merges_what_is_published_and_ends(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in "ABCDEF":
        world.put(document(name))
    deadline = time.monotonic() + 60
    while len(world.indexes.open("default").lexical.segments) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    while world.indexes._merger._thread is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sizes(world) == ([30], [30])
    assert world.indexes._merger._thread is None
    verified(world)


def test_a_stopped_merge_leaves_everything_as_it_was(world: World) -> None:
    world.put(document("A"))
    world.put(document("B"))
    world.indexes._merger.stop()
    assert world.indexes.settle("default") == 0
    assert merging.merge(world.indexes, "default", stop=iter([False, *[True] * 9]).__next__) == 0, "in the middle"
    assert sizes(world) == ([5, 5], [5, 5])
    assert not list((world.settings.home / "indexes" / "1").glob("new-*"))
    verified(world)


READER = """
import sys
from pathlib import Path
from tests.rag.world import World
world = World(Path(sys.argv[1]))
print("ready", flush=True)
seen, rounds, generation = set(), 0, 0
while not (Path(sys.argv[1]) / "done").exists() or rounds < 3:
    index = world.indexes.open("default")
    assert index.generation >= generation, "time runs backwards"
    generation = index.generation
    assert len(index.lexical) == len(index.vectors), "half a generation"
    assert len(index) % 5 == 0, "half a document"
    ids = index.lexical.search("编号 A3", 5)[0]
    best = world.embedder.encode_queries(["A的第3段讲编号 A3"])
    assert ids[0] == 4 and index.vectors.search(best, 5)[0].shape == (1, 5)
    assert index.lexical.ids().tolist() == index.vectors.ids().tolist()
    seen.add(generation)
    rounds += 1
print(len(seen), flush=True)
"""


def test_processes_read_while_another_writes_and_merges(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(document("A"))
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for number in range(12):
        world.put(document(f"B{number}"))
        if number % 3 == 2:
            world.indexes.settle("default")
    (tmp_path / "done").touch()
    for reader in readers:
        out, _ = reader.communicate(timeout=120)
        assert reader.returncode == 0
        assert int(out) > 1, "it saw more than one generation"
    verified(world)
