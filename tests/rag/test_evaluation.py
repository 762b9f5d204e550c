"""The measures themselves: ranks, the rule for right answers, thresholds, evaluation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.calibrate import calibrate
from rag.errors import InvalidInput
from rag.evaluation.answers import Question, judge, percentiles, questions, right_answer, same_document, summary
from rag.evaluation.retrieval import ndcg_at, questions_and_contexts, recall_at, reciprocal_rank, scores
from rag.evaluation.rows import read_rows
from rag.types import Answer, Citation, Passage


def test_rank_measures_on_a_known_ranking() -> None:
    ranked, relevant = [9, 3, 7, 1], {3, 1}
    assert recall_at(ranked, relevant, 1) == 0.0
    assert recall_at(ranked, relevant, 2) == 0.5
    assert recall_at(ranked, relevant, 4) == 1.0
    assert reciprocal_rank(ranked, relevant) == 0.5
    assert reciprocal_rank([], relevant) == 0.0
    # gains at ranks 2 and 4 over the ideal at ranks 1 and 2
    assert ndcg_at(ranked, relevant, 10) == pytest.approx((0.63093 + 0.43068) / (1 + 0.63093), abs=1e-4)
    assert scores([[1], [2, 1]], [{1}, {1}]) == {
        "r@1": 0.5,
        "r@5": 1.0,
        "r@10": 1.0,
        "mrr@10": 0.75,
        "ndcg@10": pytest.approx((1 + 0.63093) / 2, abs=1e-4),
    }


@given(ranked=st.lists(st.integers(0, 20), unique=True), relevant=st.sets(st.integers(0, 20), min_size=1))
def test_measures_lie_between_0_and_1_and_a_perfect_ranking_has_1(ranked: list[int], relevant: set[int]) -> None:
    for k in (1, 5, 10):
        assert 0 <= recall_at(ranked, relevant, k) <= 1
        assert 0 <= ndcg_at(ranked, relevant, k) <= 1 + 1e-9
    perfect = sorted(relevant)
    assert ndcg_at(perfect, relevant, 10) == pytest.approx(1)
    assert reciprocal_rank(perfect, relevant) == 1


@pytest.mark.parametrize(
    ("answer", "golds", "right"),
    [
        ("5天", ["5天"], True),
        ("每年5天", ["5天"], True),  # holds the gold answer, short
        ("员工每年享受带薪年假5天", ["5天"], False),  # holds it, but buries it
        ("4%", ["4％"], True),
        ("每日 1:00–5:00", ["每日1:00–5:00"], True),
        ("15天", ["10天"], False),
        ("", ["5天"], False),
        ("逾期的，每日按欠付金额的0.5‰支付", ["逾期的，每日按欠付金额的0.5‰支付违约金"], True),  # F1 over .6
        ("支付违约金", ["逾期的，每日按欠付金额的0.5‰支付违约金"], False),
    ],
)
def test_the_rule_for_a_right_answer(answer: str, golds: list[str], right: bool) -> None:
    assert right_answer(answer, golds) is right


def answered(text: str, path: str, answerable: bool = True, p: float = 0.9, told: int = 0) -> Answer:
    """The first ``told`` characters are the answer's own, the rest is quoted."""
    quote = text[told:]
    citation = Citation(1, "d", 1, "t", path, None, 0, len(quote), quote, told, len(text), "copied", 0.9)
    shown = Passage(1, "d", 1, "t", path, None, "", 0, 2, "原文")
    return Answer(
        question="问",
        standalone_question="问",
        answer=text,
        answerable=answerable,
        p_answerable=p,
        reason="answered" if answerable else "not_answered",
        citations=(citation,) if answerable else (),
        passages=(shown,),
        model="m",
        generation=1,
        run_id="r",
        timings_ms={"total": 12.0},
    )


ROWS: list[dict[str, Any]] = [
    {"id": "a", "doc": "合同.md", "type": "span", "question": "质保期？", "answers": ["12个月"], "evidence": "12个月"},
    {"id": "b", "doc": None, "type": "unanswerable", "question": "运费？", "answers": []},
]


def test_right_needs_the_answer_and_a_citation_into_the_document() -> None:
    item = questions(ROWS)[0]
    assert judge(item, answered("12个月", "folder/合同.md")).right
    assert not judge(item, answered("12个月", "别的.md")).right
    assert not judge(item, answered("3个月", "合同.md")).right
    refused = judge(item, answered("资料中没有找到", "合同.md", answerable=False))
    assert not refused.right
    assert refused.f1 == 0.0
    assert refused.retrieved


def test_yes_and_no_count_with_their_evidence() -> None:
    asked = Question("1", "a.md", "yesno", "能退吗？", ("不能，过了七天就不退了。",), "七天后概不退款")
    assert judge(asked, answered("不能：七天后概不退款", "a.md", told=3)).right
    assert not judge(asked, answered("能：七天后概不退款", "a.md", told=2)).right
    assert not judge(asked, answered("七天后概不退款", "a.md")).right, "neither is said"
    assert not judge(asked, answered("不能：退款走原渠道", "a.md", told=3)).right, "the evidence is another"
    assert not judge(asked, answered("不能：七天后概不退款", "b.md", told=3)).right
    assert not judge(asked, answered("不能：七天后概不退款", "a.md", answerable=False, told=3)).right


def test_a_quotation_tells_neither_yes_nor_no() -> None:
    asked = Question("1", "a.md", "yesno", "冬天开放吗？", ("会，照常开放。",), "会展中心冬天也开放")
    assert not judge(asked, answered("会展中心冬天也开放", "a.md")).right
    assert judge(asked, answered("会：会展中心冬天也开放", "a.md", told=2)).right


def test_an_unanswerable_question_is_right_when_refused() -> None:
    item = questions(ROWS)[1]
    assert judge(item, answered("没有找到", "x", answerable=False)).right
    assert not judge(item, answered("免费", "x")).right


def test_the_summary_counts() -> None:
    first, second = questions(ROWS)
    verdicts = [
        judge(first, answered("12个月", "合同.md", p=0.9)),
        judge(first, answered("12个月", "别的.md", p=0.6)),
        judge(second, answered("没有找到", "x", answerable=False, p=0.1)),
    ]
    report = summary(verdicts)
    assert report["answerable"]["right"] == 50.0
    assert report["answerable"]["right_answer"] == 100.0
    assert report["answerable"]["by_type"]["span"]["count"] == 2
    assert report["unanswerable"] == {"count": 1, "refused": 100.0}
    assert report["citations"]["precision"] == 50.0
    assert report["refusal"]["auroc"] == 1.0
    assert report["refusal"]["calibrated"]["threshold"] == pytest.approx(0.35)
    assert report["refusal"]["calibrated"]["refused_unanswerable"] == 1.0
    assert report["latency_ms"]["p50"] == 12.0
    json.dumps(report, allow_nan=False)
    json.dumps(summary([]), allow_nan=False)


def test_documents_are_compared_by_file_name() -> None:
    assert same_document("docs/a.md", "a.md")
    assert same_document("a.md", "docs/a.md")
    assert not same_document("a.md.txt", "a.md")
    assert not same_document("a.md", None)


def test_percentiles() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "max": None}
    assert percentiles([float(i) for i in range(1, 101)]) == {"p50": 51.0, "p95": 96.0, "max": 100.0}


@pytest.mark.parametrize("row", [{"answers": []}, {"question": " "}, {"question": "问", "doc": "a.md", "answers": []}])
def test_rows_that_cannot_be_asked_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="Question 1"):
        questions([row])


def test_cmrc_rows_give_their_distinct_contexts() -> None:
    rows = [
        {"question": "甲？", "context": "一"},
        {"question": "乙？", "context": "二"},
        {"question": "丙？", "context": "一"},
    ]
    assert questions_and_contexts(rows) == (["甲？", "乙？", "丙？"], [0, 1, 0], ["一", "二"])
    with pytest.raises(InvalidInput, match="Row 1"):
        questions_and_contexts([{"question": "甲？"}])
    with pytest.raises(InvalidInput, match="no rows"):
        questions_and_contexts([])


def test_files_plain_and_compressed(tmp_path: Path) -> None:
    import zstandard

    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    plain, packed = tmp_path / "q.jsonl", tmp_path / "q.jsonl.zst"
    plain.write_text(lines, encoding="utf-8")
    frames = [zstandard.compress(part.encode()) for part in (lines[:40], lines[40:])]
    packed.write_bytes(b"".join(frames))
    assert list(read_rows(plain)) == list(read_rows(packed)) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1}\n{', "line 2"), (b"[1]", "line 1"), ("问".encode("gb18030") + b"\xff", "UTF-8")],
)
def test_damaged_files_are_named_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        list(read_rows(file))
    with pytest.raises(InvalidInput, match="no file"):
        list(read_rows(tmp_path / "none.jsonl"))
    broken = tmp_path / "q.jsonl.zst"
    broken.write_bytes(b"no zstd")
    with pytest.raises(InvalidInput, match="zstd"):
        list(read_rows(broken))


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=50)


@given(yes=probabilities, no=st.lists(st.floats(0, 1), max_size=50), share=st.floats(0, 0.9))
def test_the_threshold_refuses_no_more_answerable_than_allowed(yes: list[float], no: list[float], share: float) -> None:
    fitted = calibrate(yes, no, share)
    assert fitted.refused_answerable <= share + 1e-9
    assert 0 <= fitted.threshold <= 1


def test_the_threshold_lies_between_what_it_separates() -> None:
    fitted = calibrate([0.8, 0.9, 0.95, 0.7], [0.1, 0.3, 0.2], 0.1)
    assert fitted.threshold == pytest.approx(0.5)
    assert (fitted.refused_answerable, fitted.refused_unanswerable, fitted.auroc) == (0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="answer"):
        calibrate([], [0.1])
    with pytest.raises(ValueError, match="max_false_refusals"):
        calibrate([0.5], [], 2.0)
