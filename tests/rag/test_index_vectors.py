"""Vectors on FAISS: exact cosines, selectors, increments, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import IndexUnavailable
from rag.index import segments, vectors
from rag.index.vectors import FaissStore
from rag.ports import FloatMatrix

DIM = 16


def unit(count: int, seed: int = 0) -> FloatMatrix:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made(count: int, seed: int = 0) -> FaissStore:
    store = FaissStore()
    store.add(range(count), unit(count, seed))
    return store


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_search_is_exact_however_it_was_built(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    rows = unit(count, data.draw(st.integers(0, 5)))
    ids = data.draw(st.permutations(range(0, 7 * count, 7)))
    store = FaissStore()
    at = 0
    while at < count:
        some = data.draw(st.integers(1, count - at))
        store.add(ids[at : at + some], rows[at : at + some])
        at += some
    gone = set(data.draw(st.lists(st.sampled_from(ids), max_size=10)))
    store.delete(sorted(gone))
    allowed = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(ids), max_size=20)))
    excluded = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(ids), max_size=20)))
    k = data.draw(st.integers(1, 70))
    queries = unit(3, 99)
    found, scores = store.search(
        queries,
        k,
        None if allowed is None else np.array(allowed, dtype=np.int64),
        None if excluded is None else np.array(excluded, dtype=np.int64),
    )
    left = [
        i
        for i, chunk in enumerate(ids)
        if chunk not in gone and (allowed is None or chunk in allowed) and chunk not in (excluded or ())
    ]
    assert found.shape == scores.shape == (3, k)
    for row, query in enumerate(queries):
        cosines = {ids[i]: float(rows[i] @ query) for i in left}
        best = sorted(cosines, key=lambda c: -cosines[c])[:k]
        assert [c for c in found[row].tolist() if c >= 0] == best
        assert scores[row, : len(best)] == pytest.approx([cosines[c] for c in best], abs=1e-5)
        assert scores[row, len(best) :].tolist() == [0] * (k - len(best))


def test_equal_scores_are_ordered_by_id() -> None:
    store = FaissStore()
    row = unit(1)
    for chunk in (9, 3, 7):
        store.add([chunk], row)
    assert store.search(row, 3)[0].tolist() == [[3, 7, 9]]


def test_large_ids_take_the_other_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_BITMAP_IDS", 5)
    store = made(20)
    rows = unit(20)
    assert store.search(rows[:1], 2, allowed=np.array([11, 13]))[0].tolist()[0] in ([11, 13], [13, 11])


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        ([100], unit(1) * 2, "unit"),
        ([100], unit(1).astype(np.float64), "float32"),
        ([100], unit(1)[0], "float32"),
        ([100, 101], unit(1), "2 ids"),
        ([3], unit(1), "once"),
        ([100, 100], unit(2), "once"),
        ([100], np.eye(DIM + 1, dtype=np.float32)[:1], "16 dimensions"),
        ([100], np.full((1, DIM), np.nan, dtype=np.float32), "unit"),
    ],
)
def test_unfit_vectors_are_refused(ids: list[int], rows: FloatMatrix, message: str) -> None:
    store = made(10)
    with pytest.raises(ValueError, match=message):
        store.add(ids, rows)
    assert store.ids().tolist() == list(range(10))


def test_an_empty_store_and_a_wrong_query() -> None:
    assert FaissStore().search(unit(1), 2)[0].tolist() == [[-1, -1]]
    assert FaissStore().dim == 0
    with pytest.raises(ValueError, match="16 dimensions"):
        made(3).search(np.ones((1, 4), dtype=np.float32), 1)
    store = made(3)
    store.add([], np.zeros((0, DIM), dtype=np.float32))
    store.delete([0, 1, 2])
    assert store.search(unit(1), 1)[0].tolist() == [[-1]]


def test_saved_and_opened_it_answers_the_same(tmp_path: Path) -> None:
    store = made(50)
    store.delete([3])
    folder = tmp_path / "索引"  # FAISS itself cannot open such a path everywhere
    folder.mkdir()
    store.save(folder / "a")
    opened = FaissStore.open(folder / "a")
    for mine, theirs in zip(store.search(unit(4, 1), 10), opened.search(unit(4, 1), 10), strict=True):
        assert np.array_equal(mine, theirs)
    opened.add([500], unit(1, 5))
    opened.delete([4])
    opened.save(folder / "b")
    again = FaissStore.open(folder / "b")
    assert again.ids().tolist() == sorted((set(range(50)) - {3, 4}) | {500})
    assert again.search(unit(1, 5), 1)[0].tolist() == [[500]]
    assert len(FaissStore.open(folder / "a")) == 49


def test_opened_files_are_mapped_not_read(tmp_path: Path) -> None:
    made(50).save(tmp_path / "a")
    segment = FaissStore.open(tmp_path / "a").segments[0]
    assert isinstance(segment.buffer, np.memmap)
    inside = segment.vectors.__array_interface__["data"][0] - segment.buffer.__array_interface__["data"][0]
    assert 0 <= inside < segment.buffer.size, "the index reads from the mapped file itself"


def test_a_large_segment_masks_its_dead_until_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SMALL", 10)
    store = made(100)
    before = store.segments[0]
    store.delete(range(20))
    assert store.segments[0] is before
    assert store.search(unit(100)[:20], 1)[0].min() >= 20
    store.delete([20])
    assert len(store.segments[0]) == 79


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage"])
def test_damaged_files_are_told_with_what_to_do(tmp_path: Path, damage: str) -> None:
    made(50).save(tmp_path / "a")
    path = next((tmp_path / "a").glob("*.faiss"))
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbage": b"IxXX" + data[4:]}[damage])
    with pytest.raises(IndexUnavailable, match="kb rebuild"):
        FaissStore.open(tmp_path / "a")
