"""Vectors on FAISS: exact cosines, selectors, increments, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import IndexUnavailable
from rag.index import segments
from rag.index.kinds import Kind, Sizes, Stopped, ivf_list
from rag.index.vectors import FaissStore, Segment
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


def test_ids_may_be_as_large_as_a_database_makes_them() -> None:
    rows = unit(20)
    ids = np.arange(20) + (1 << 62)
    store = FaissStore()
    store.add(ids, rows)
    assert set(store.search(rows[:1], 2, allowed=ids[[11, 13]])[0].tolist()[0]) == set(ids[[11, 13]].tolist())


KINDS: list[Kind] = ["hnsw", "ivf"]


def approximate(kind: Kind, count: int = 600) -> FaissStore:
    """A store whose vectors all lie in one merged segment of that kind."""
    store = made(count)
    sizes = Sizes(1, 1 << 40) if kind == "hnsw" else Sizes(1 << 40, 1)
    names = [s.name for s in store.segments]
    assert store.replace(names, store.merged(names, sizes))
    assert [s.kind for s in store.segments] == [kind]
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_kinds_find_nearly_all_that_the_exact_one_finds(kind: Kind) -> None:
    store, exact = approximate(kind), made(600)
    assert np.array_equal(store.segments[0].vectors, exact.segments[0].vectors)
    found, right = store.search(unit(50, 9), 10)[0], exact.search(unit(50, 9), 10)[0]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), right.tolist(), strict=True)])
    assert recall > 0.9
    assert np.array_equal(store.search(unit(50, 9), 10, exact=True)[0], right)


@pytest.mark.parametrize("kind", KINDS)
def test_filters_are_exact_in_every_kind(kind: Kind) -> None:
    store, exact = approximate(kind), made(600)
    for allowed in (np.array([3, 77, 400]), np.arange(0, 600, 2), np.arange(600)):
        for mine, right in zip(
            store.search(unit(20, 9), 10, allowed=allowed), exact.search(unit(20, 9), 10, allowed=allowed), strict=True
        ):
            assert mine == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("kind", ["flat", *KINDS])
def test_cosines_with_known_chunks_are_exact(kind: Kind, tmp_path: Path) -> None:
    store = made(600) if kind == "flat" else approximate(kind)
    query = unit(1, seed=9)
    ids, scores = made(600).search(query, 600)
    wanted = np.array([*ids[0, [3, 500, 41]], 10_000])
    store.save(tmp_path / "saved")
    for some in (store, FaissStore.open(tmp_path / "saved")):
        found = some.cosines(query[0], wanted)
        assert found.dtype == np.float32
        assert found[:3] == pytest.approx(scores[0, [3, 500, 41]], abs=1e-6)
        assert np.isnan(found[3])
    store.delete(wanted[:1])
    assert np.isnan(store.cosines(query[0], wanted)).tolist() == [True, False, False, True]
    assert np.isnan(FaissStore(0).cosines(query[0], wanted)).all()
    with pytest.raises(ValueError, match="dimensions"):
        store.cosines(query[0, :3], wanted)


def test_cosines_of_chunks_that_were_added_in_any_order() -> None:
    rows = unit(4)
    store = FaissStore(rows.shape[1])
    store.add(np.array([7, 3, 9, 1]), rows)
    assert store.cosines(rows[2], np.array([1, 9, 5, 7])) == pytest.approx(
        [float(rows[3] @ rows[2]), 1.0, np.nan, float(rows[0] @ rows[2])], abs=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_deleted_is_masked_and_the_rest_still_fills_the_results(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "OPEN", 10)
    store = approximate(kind)
    store.delete(range(590))
    assert len(store.segments[0]) == 600, "a sealed segment is masked, not rewritten"
    found = store.search(unit(20, 9), 10)[0]
    assert all(sorted(row) == list(range(590, 600)) for row in found.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_kinds_are_saved_opened_and_made_the_same_again(kind: Kind, tmp_path: Path) -> None:
    store = approximate(kind)
    store.save(tmp_path / "a")
    opened = FaissStore.open(tmp_path / "a")
    assert [s.kind for s in opened.segments] == [kind]
    again = approximate(kind)
    for mine, theirs, other in zip(*(s.search(unit(20, 9), 10) for s in (store, opened, again)), strict=True):
        assert np.array_equal(mine, theirs)
        assert np.array_equal(mine, other)
    assert list(opened.segments[0].problems()) == []


def test_a_check_finds_an_index_that_does_not_find() -> None:
    segment = approximate("hnsw", 3000).segments[0]
    rows = segment.vectors
    rows[:] = rows[::-1].copy()  # the graph now links strangers
    assert "find themselves" in " ".join(segment.problems())
    rows[5] *= 2
    assert "unit length" in " ".join(segment.problems())
    lists = approximate("ivf").segments[0]
    longest = max(range(lists.inner.nlist), key=lists.inner.invlists.list_size)
    positions, _ = ivf_list(lists.inner, longest)
    positions[0] = positions[1]
    assert "each vector once" in " ".join(lists.problems())


@pytest.mark.parametrize("kind", ["flat", *KINDS])
def test_a_damaged_file_of_any_kind_is_read_or_refused(kind: Kind, tmp_path: Path) -> None:
    """One bit flipped at 300 places (not in the first 256 bytes: a length there can ask for all memory)."""
    (segment,) = approximate(kind).segments if kind != "flat" else made(600).segments
    segment.save(tmp_path)
    whole = (tmp_path / f"{segment.name}.faiss").read_bytes()
    everything = np.ones(len(segment), dtype=bool)
    refusals = []
    for place in range(256, len(whole), max(1, len(whole) // 300)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / f"{place}.faiss").write_bytes(damaged)
        try:
            opened = Segment.open(tmp_path, str(place))
            for exact in (True, False):
                ids, _ = opened.nearest(unit(3, 9), 10, everything, exact)
                assert ids.shape == (3, 10)
        except IndexUnavailable as error:
            refusals.append(error.message)
    assert refusals or kind == "flat", "links and lists hold places that can be wrong"
    assert all("kb rebuild" in message for message in refusals)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_is_refused(kind: Kind, tmp_path: Path) -> None:
    (segment,) = approximate(kind).segments
    segment.save(tmp_path)
    path = tmp_path / f"{segment.name}.faiss"
    whole = path.read_bytes()
    for size in (0, 10, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.faiss").write_bytes(whole[:size])
        with pytest.raises(IndexUnavailable, match="kb rebuild"):
            Segment.open(tmp_path, "cut")


def test_which_kind_by_size() -> None:
    sizes = Sizes(hnsw_from=100, ivf_from=1000)
    assert [sizes.kind(n) for n in (0, 99, 100, 999, 1000)] == ["flat", "flat", "hnsw", "hnsw", "ivf"]
    assert Sizes(hnsw_from=1000, ivf_from=100).kind(5000) == "ivf", "so the graph can be left out"


def test_building_can_be_stopped() -> None:
    store = made(100)
    with pytest.raises(Stopped):
        store.merged([s.name for s in store.segments], Sizes(1, 1 << 40), lambda: True)


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
    monkeypatch.setattr(segments, "OPEN", 10)
    store = made(100)
    before = store.segments[0]
    store.delete(range(20))
    assert store.segments[0] is before
    assert store.search(unit(100)[:20], 1)[0].min() >= 20
    assert store.due() == ()
    store.delete([20])
    assert store.due() == (before.name,)
    assert store.replace(store.due(), store.merged(store.due()))
    assert [len(s) for s in store.segments] == [79]


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
