"""How much of a question the sentence of its answer names, and what an engine makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gglm.coverage import coverage
from gglm.types import Source, SourceSpan
from gglm.weights import Answerability
from tests.gglm.conftest import Trained

TEXT = "滤芯每半年换一次。整机保修十八个月，自购买之日起算。\n门店在南市。"


@pytest.mark.parametrize(
    ("question", "answer", "share"),
    [
        ("整机保修多久？", "十八个月", 1.0),
        ("整機保修多久", "十八个月", 1.0),  # traditional
        ("整机保修多久？", "半年", 0.25),  # another sentence: only 机, by the title
        ("门店在哪里", "南市", 1.0),
        ("上海明天下雨吗", "南市", 0.0),
        ("净水机门店在哪里", "南市", 1.0),  # 净水机 by the title
        ("有没有门店", "南市", 1.0),
        ("什么？", "南市", 0.0),  # nothing but question words
    ],
)
def test_the_share_of_the_question_that_the_sentence_names(question: str, answer: str, share: float) -> None:
    start = TEXT.index(answer)
    assert coverage(question, "净水机", TEXT, SourceSpan(0, start, start + len(answer))) == pytest.approx(share)


def test_a_row_is_read_with_its_header() -> None:
    table = "花名录\n| 品种 | 花期 |\n|---|---|\n| 紫藤 | 四月 |\n| 牡丹 | 五月 |"
    start = table.index("五月")
    assert coverage("牡丹花期", "", table, SourceSpan(0, start, start + 2)) == 1.0
    assert coverage("花名录", "", table, SourceSpan(0, start, start + 2)) == pytest.approx(1 / 3), "花, of the header"


def test_found_sources_are_judged_by_their_own_settings(trained: Trained) -> None:
    engine = trained.engine()
    source = [Source(TEXT)]
    foreign, own = "上海明天下雨吗", "整机保修多久"
    chosen = {q: engine.read(q, source) for q in (foreign, own)}
    assert {q: engine.read(q, source, found=True) for q in (foreign, own)} == chosen, "no settings of their own yet"
    only_coverage = Answerability(margin=0.0, coverage=20.0, bias=-10.0, threshold=0.5)
    engine.settings = replace(engine.settings, found=only_coverage)
    assert {q: engine.read(q, source) for q in (foreign, own)} == chosen, "closed reading knows nothing of them"
    for question in (foreign, own):
        reading = engine.read(question, source, found=True)
        assert reading.answer == chosen[question].answer
        assert reading.answerable == (reading.p_answerable >= 0.5)
    assert engine.read(foreign, source, found=True).p_answerable < 0.1
    named = [
        q for q in ("整机保修自购买之日起算", "滤芯每半年换") if engine.read(q, source, found=True).p_answerable > 0.4
    ]
    assert named, "of two sentences that the question repeats, one at least is where this small reader looks"
