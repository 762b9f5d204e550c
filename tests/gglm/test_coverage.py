"""How much of a question the sentence of its answer names, and what an engine makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gglm.coverage import coverage
from gglm.types import Source
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
        ("什么？", "南市", 1.0),  # nothing but question words
    ],
)
def test_the_share_of_the_question_that_the_sentence_names(question: str, answer: str, share: float) -> None:
    start = TEXT.index(answer)
    assert coverage(question, "净水机", TEXT, start, start + len(answer)) == pytest.approx(share)


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
        (span,) = reading.spans
        covered = coverage(question, "", TEXT, span.start, span.end)
        assert reading.answer == chosen[question].answer
        assert reading.answerable == (reading.p_answerable >= 0.5)
        belief = reading.p_answerable / (1 / (1 + 2.718281828 ** -(20 * covered - 10)))
        assert belief in (pytest.approx(1.0, abs=1e-4), pytest.approx(0.5, abs=1e-4))
