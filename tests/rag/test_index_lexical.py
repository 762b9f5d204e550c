"""BM25 over our postings: exact scores, increments, deletion, files."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import IndexUnavailable
from rag.index import segments
from rag.index.lexical import K1, B, Bm25Index, term_worth
from rag.index.terms import term_keys

TEXTS = [
    "年假：工作满一年的员工每年有十五天年假。",
    "病假需要在当天上午九点之前告知主管。",
    "加班费按照基本工资的百分之一百五十计算。",
    "型号 SN-2024-A 的产品保修期为十八个月。",
    "The API listens on port 8000 by default.",
    "員工請假應當提前三天申請。",
]


def made(texts: list[str], first: int = 1) -> Bm25Index:
    index = Bm25Index()
    index.add(range(first, first + len(texts)), texts)
    return index


def bm25(texts: dict[int, str], query: str) -> dict[int, float]:
    """The formula itself."""
    documents = {i: Counter(term_keys(text).tolist()) for i, text in texts.items()}
    lengths = {i: sum(counts.values()) for i, counts in documents.items()}
    mean = sum(lengths.values()) / len(lengths)
    scores: dict[int, float] = {}
    asked = Counter(term_keys(query).tolist())
    worth = term_worth(np.array(list(asked), dtype=np.uint64)).tolist()
    for (term, often), share in zip(asked.items(), worth, strict=True):
        df = sum(term in counts for counts in documents.values())
        idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
        for i, counts in documents.items():
            if tf := min(counts[term], 255):
                norm = K1 * (1 - B + B * lengths[i] / mean)
                scores[i] = scores.get(i, 0.0) + share * often * idf * (K1 + 1) * tf / (tf + norm)
    return scores


def ranked(scores: dict[int, float], k: int) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]


@pytest.mark.parametrize(
    ("query", "best"),
    [("年假有几天", 1), ("病假告知谁", 2), ("加班費怎麼算", 3), ("sn2024a", 4), ("port", 5), ("请假提前几天", 6)],
)
def test_finds_what_is_asked(query: str, best: int) -> None:
    ids, scores = made(TEXTS).search(query, 3)
    assert ids[0] == best
    assert scores[0] > scores[1]


@pytest.mark.parametrize(
    ("written", "also"),
    [
        ("員工請假應當提前", "员工请假应当提前"),
        ("ＳＮ－２０２４－Ａ 的保修期", "sn-2024-a的保修期"),
        ("保修期为１８个月", "保修期为18个月"),
        ("百分之一百五十", "150%"),
    ],
)
def test_one_thing_in_two_writings_finds_the_same(written: str, also: str) -> None:
    index = made(TEXTS)
    ids, scores = index.search(written, 3)
    other_ids, other_scores = index.search(also, 3)
    assert ids[0] == other_ids[0] > 0
    if not any(c in written for c in "百十"):
        assert np.array_equal(ids, other_ids)
        assert scores == pytest.approx(other_scores)


def test_years_and_codes_are_found_whole() -> None:
    near = ["二〇二三年的报告", "2025年的报告", "型号 SN-2024-B", "型号 SN-2023-A", "型号 SM-2024-A", "编号 2024"]
    index = made(["2024年的报告", "型号 SN-2024-A", *near])
    assert index.search("二〇二四年", 1)[0].tolist() == [1]
    assert index.search("二零二四年的报告", 1)[0].tolist() == [1]
    for query in ("SN-2024-A", "sn2024a", "ＳＮ-２０２４-Ａ"):
        ids, scores = index.search(query, 2)
        assert ids[0] == 2
        assert scores[0] > 1.2 * scores[1], "the whole code counts beside its parts"


def test_result_shape_where_little_is_found() -> None:
    index = made(TEXTS)
    ids, scores = index.search("API", 4)
    assert ids.tolist() == [5, -1, -1, -1]
    assert scores[1:].tolist() == [0, 0, 0]
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    for query in ("", "，。", "zzz"):
        assert index.search(query, 2)[0].tolist() == [-1, -1]
    assert Bm25Index().search("年假", 2)[0].tolist() == [-1, -1]
    assert index.search("年假", 0)[0].tolist() == []


ALPHABET = "的是了一不人在有我他这中大来上国年日月水火土"
DOCUMENTS = st.lists(st.text(st.sampled_from(ALPHABET + " ab1"), max_size=60), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.text(st.sampled_from(ALPHABET), min_size=1, max_size=12), st.integers(1, 20), st.data())
def test_scores_are_those_of_the_formula_however_it_was_built(
    texts: list[str], query: str, k: int, data: st.DataObject
) -> None:
    index = Bm25Index()
    at = 0
    while at < len(texts):
        count = data.draw(st.integers(1, len(texts) - at))
        index.add(range(at, at + count), texts[at : at + count])
        at += count
    gone = set(data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=10)))
    index.delete(sorted(gone))
    left = {i: text for i, text in enumerate(texts) if i not in gone}
    expected = ranked(bm25(left, query), k) if left else []
    ids, scores = index.search(query, k)
    assert np.count_nonzero(ids >= 0) == len(expected)
    for i, score, (_, right) in zip(ids.tolist(), scores.tolist(), expected, strict=False):
        assert score == pytest.approx(right, rel=1e-4)
        assert bm25(left, query)[i] == pytest.approx(score, rel=1e-4)


def test_skipping_long_rows_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough documents for the common terms to be skipped; compared with the plain sum."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, 801)
    draw = rng.choice(800, size=(6000, 40), p=weights / weights.sum())
    texts = ["".join(chr(0x4E00 + c) for c in row) for row in draw]
    index = made(texts)
    exhaustive = Bm25Index(index.segments)
    seen = []
    for number in range(40):
        query = "".join(chr(0x4E00 + c) for c in draw[number, :8]) + "一丁七"
        ids, scores = index.search(query, 10)
        with monkeypatch.context() as patch:
            patch.setattr("rag.index.lexical.LONG_SHARE", 1)  # no row is long: every posting is added up
            all_ids, all_scores = exhaustive.search(query, 10)
        assert scores == pytest.approx(all_scores, rel=1e-4)
        seen.append(set(ids.tolist()) == set(all_ids.tolist()))
    assert all(seen)


def test_allowed_and_excluded() -> None:
    index = made(TEXTS)
    assert index.search("员工假", 6, allowed=np.array([2, 6]))[0].tolist()[:3] != [-1, -1, -1]
    assert set(index.search("员工假", 6, allowed=np.array([2, 6]))[0].tolist()) == {2, 6, -1}
    assert 1 not in index.search("员工假", 6, excluded=np.array([1]))[0]
    assert index.search("员工假", 3, allowed=np.array([], dtype=np.int64))[0].tolist() == [-1] * 3


def test_deleted_chunks_are_gone_and_ids_are_used_once() -> None:
    index = made(TEXTS)
    index.delete([1, 999])
    assert index.ids().tolist() == [2, 3, 4, 5, 6]
    assert 1 not in index.search("年假", 6)[0]
    with pytest.raises(ValueError, match="once"):
        index.add([6], ["又一个"])
    with pytest.raises(ValueError, match="once"):
        index.add([7, 7], ["一", "二"])
    with pytest.raises(ValueError, match="2 ids"):
        index.add([7, 8], ["一"])
    index.delete([2, 3, 4, 5, 6])
    assert len(index) == 0
    assert index.segments == ()


def test_small_additions_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    index = Bm25Index()
    for number in range(200):
        index.add([number], [f"第{number}条 编号 N{number}"])
    sizes = [len(s) for s in index.segments]
    assert sum(sizes) == 200
    assert len(sizes) <= 5
    assert all(a >= segments.FANOUT * b for a, b in itertools.pairwise(sizes))
    assert index.search("N77", 1)[0].tolist() == [77]
    assert [problem for s in index.segments for problem in s.problems()] == []


def test_a_large_segment_masks_its_dead_until_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "OPEN", 10)
    index = made([f"编号 N{i}" for i in range(100)], first=0)
    before = index.segments[0]
    index.delete(range(20))
    assert index.segments[0] is before
    assert len(index) == 80
    assert 7 not in index.search("N7", 100)[0]
    index.delete([20])
    assert index.due() == (before.name,)
    assert index.replace(index.due(), index.merged(index.due()))
    assert [len(s) for s in index.segments] == [79]
    assert index.search("N21", 1)[0].tolist() == [21]


def test_segments_above_the_limit_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bm25Index, "largest", 16)
    index = Bm25Index()
    for number in range(40):
        index.add([number], [f"N{number}"])
    assert max(len(s) for s in index.segments) <= 16
    assert all(index.search(f"N{i}", 1)[0].tolist() == [i] for i in range(40))


def test_more_than_255_occurrences_are_counted_as_255() -> None:
    index = made(["啊 " * 400, "啊"])
    assert index.search("啊", 1)[0].tolist()[0] in (1, 2)
    assert int(index.segments[0].freqs.max()) == 255
    assert list(index.segments[0].problems()) == []


def test_saved_and_opened_it_answers_the_same(tmp_path: Path) -> None:
    index = made(TEXTS)
    index.delete([2])
    before = index.search("员工请假", 6)
    index.save(tmp_path / "a")
    opened = Bm25Index.open(tmp_path / "a")
    for mine, theirs in zip(before, opened.search("员工请假", 6), strict=True):
        assert np.array_equal(mine, theirs)
    assert not list((tmp_path / "a").rglob("*.pkl"))
    opened.add([7], ["新的员工手册"])
    opened.save(tmp_path / "b")
    again = Bm25Index.open(tmp_path / "b")
    assert again.ids().tolist() == [1, 3, 4, 5, 6, 7]
    assert Bm25Index.open(tmp_path / "a").ids().tolist() == [1, 3, 4, 5, 6], "the older files are as they were"


def test_unchanged_segments_are_linked_not_copied(tmp_path: Path) -> None:
    index = made([f"编号 N{i}" for i in range(100)])
    index.save(tmp_path / "a")
    index.add([1000], ["另一个"])
    index.save(tmp_path / "b")
    for name in (p.name for p in (tmp_path / "a").glob("*.docs.npy")):
        assert (tmp_path / "a" / name).stat().st_ino == (tmp_path / "b" / name).stat().st_ino


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "foreign"])
def test_damaged_files_are_told_with_what_to_do(tmp_path: Path, damage: str) -> None:
    made(TEXTS).save(tmp_path / "a")
    path = next((tmp_path / "a").glob("*.docs.npy"))
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "garbage":
        path.write_bytes(b"\x80\x04N." * 40)  # a pickle is never loaded
    else:
        np.save(path, np.zeros(3, dtype=np.float64))
    with pytest.raises(IndexUnavailable, match="kb rebuild"):
        Bm25Index.open(tmp_path / "a")


def test_a_word_counts_more_than_a_pair_and_a_pair_more_than_a_character() -> None:
    keys = np.sort(term_keys("年假 8000"))
    assert sorted(term_worth(keys).tolist()) == pytest.approx([0.8, 0.8, 1.0, 2.0])


def test_what_the_terms_of_a_question_are_worth() -> None:
    index = made(TEXTS)
    assert index.worth("年假没年假")[0].tolist() == np.unique(term_keys("年假")).tolist()
    rare, common = index.worth("病")[1], index.worth("假")[1]
    assert rare[0] > common[0] > 0
    assert not len(index.worth("没")[0])
    assert not len(Bm25Index().worth("年假")[0])
