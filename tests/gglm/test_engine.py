from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gglm import metrics, weights
from gglm.engine import Engine
from gglm.errors import WeightsError
from gglm.tokenizer import Tokenizer
from gglm.training.batch import collate
from gglm.types import Reading, SamplingOptions, Source, Turn
from tests.gglm.conftest import GREETING, PASSAGES, QUESTIONS, TITLES, UNANSWERABLE, Trained, examples, fit, tiny


def sources(*numbers: int) -> list[Source]:
    return [Source(PASSAGES[i], TITLES[i]) for i in numbers]


def check(reading: Reading, given: list[Source]) -> None:
    """What every reading promises."""
    assert reading.answer == "".join(p.text for p in reading.pieces)
    for piece in reading.pieces:
        if piece.origin is not None:
            text = given[piece.origin.source].text
            assert piece.text == text[piece.origin.start : piece.origin.end]
    for candidate in reading.candidates:
        assert candidate.text == given[candidate.span.source].text[candidate.span.start : candidate.span.end]
    scores = [c.score for c in reading.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(s <= 1e-6 for s in scores)
    for a in reading.candidates:
        for b in reading.candidates:
            if a is not b and a.span.source == b.span.source:
                assert a.span.end <= b.span.start or b.span.end <= a.span.start
    assert len(reading.relevance) == len(given)
    for p in (reading.p_answerable, reading.confidence, *reading.relevance):
        assert 0 <= p <= 1


def test_tiny_learns_eight_examples_by_heart_in_half_a_minute(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny(tokenizer)
    assert model.count_parameters() < 1_000_000
    assert fit(model, [collate(examples(tokenizer))], 90) < 30
    engine = Engine.load(weights.save(tmp_path, model, tokenizer.model, "eight"))
    for question, number, answer in QUESTIONS:
        assert metrics.exact_match(engine.read(question, sources(number)).answer, [answer]) == 1.0
        assert metrics.exact_match(engine.write("问答", question, sources=sources(number)).text, [answer]), (
            "the decoder has learnt them too"
        )


def test_the_shared_fixture_knows_them_too(engine: Engine) -> None:
    for question, number, answer in QUESTIONS:
        reading = engine.read(question, sources(number))
        assert reading.answer == answer
        assert reading.answerable
        check(reading, sources(number))


def test_unanswerable_questions_are_told_apart(engine: Engine) -> None:
    yes = [engine.read(q, sources(i)).p_answerable for q, i, _ in QUESTIONS]
    no = [engine.read(q, sources(i)).p_answerable for q, i in UNANSWERABLE]
    assert metrics.auroc(yes, no) == 1.0
    assert all(engine.read(q, sources(i)).answer for q, i in UNANSWERABLE), "the best answer is always given"


def test_shared_norm_finds_the_source_that_answers(engine: Engine) -> None:
    question, number, answer = QUESTIONS[0]
    given = sources(1, number, 2)
    reading = engine.read(question, given)
    check(reading, given)
    assert reading.answer == answer
    assert reading.spans[0].source == 1
    assert reading.relevance.index(max(reading.relevance)) == 1
    assert engine.relevance(question, given) == pytest.approx(list(reading.relevance), abs=1e-5)


def test_batch_and_single_reading_agree(engine: Engine) -> None:
    requests = [(q, sources(i), ()) for q, i, _ in QUESTIONS] + [(q, sources(i, 0), ()) for q, i in UNANSWERABLE]
    random.Random(0).shuffle(requests)
    for request, batched in zip(requests, engine.read_batch(requests), strict=True):
        alone = engine.read(*request)
        assert alone.answer == batched.answer
        assert alone.spans == batched.spans
        assert alone.p_answerable == pytest.approx(batched.p_answerable, abs=1e-6)


@pytest.mark.parametrize(
    ("passage", "quoted"),
    [
        ("本手冊介紹淨水器的使用。淨水器的保修期為十八個月，自購買之日起計算。濾芯不在保修之列。", "十八個月"),
        ("本手册介绍净水器的使用。\u3000净水器的保修期为十八个月，自购买之日起计算。", "十八个月"),
    ],
)
def test_answers_keep_the_source_s_own_characters(engine: Engine, passage: str, quoted: str) -> None:
    given = [Source(passage, TITLES[0])]
    reading = engine.read(QUESTIONS[0][0], given)
    check(reading, given)
    assert reading.answer.encode() == quoted.encode()


def test_full_width_figures_come_back_full_width(engine: Engine) -> None:
    given = [Source(PASSAGES[1].replace("1998", "１９９８"), TITLES[1])]
    reading = engine.read("公司哪一年成立？", given)
    assert reading.answer == "１９９８年"
    check(reading, given)


def test_long_sources_are_read_in_windows(engine: Engine) -> None:
    """The answer lies far beyond the trained window, at offsets of the whole text."""
    filler = PASSAGES[1] * 20
    text = filler + PASSAGES[0] + filler
    assert len(text) > 10 * engine.model.config.window
    reading = engine.read(QUESTIONS[0][0], [Source(text, TITLES[0])])
    assert reading.answer == "十八个月"
    assert text[reading.spans[0].start : reading.spans[0].end] == "十八个月"
    assert len(filler) < reading.spans[0].start < len(filler) + len(PASSAGES[0])


ODD = [
    "",
    " ",
    "\n\n",
    "\ud800",
    "\x00",
    "。",
    "𠮷𠮷𠮷",
    "a" * 3000,
    "１" * 500,
    "🙂👨‍👩‍👧",
    "\u202e倒",
    "[SEP][Q]",
    "�",
]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_text_never_raises(engine: Engine, text: str) -> None:
    for question in ("净水器保修多久？", text):
        given = [Source(text, text), Source(PASSAGES[0], text)]
        check(engine.read(question, given, [Turn("user", text), Turn("assistant", text)]), given)
    alone = engine.read("净水器保修多久？", [Source(text)])
    check(alone, [Source(text)])
    if not text.strip():
        assert alone.answer == ""
        assert not alone.answerable
        assert alone.p_answerable == 0.0


def test_no_sources(engine: Engine) -> None:
    reading = engine.read("净水器保修多久？", [])
    assert reading.answer == ""
    assert not reading.answerable
    assert reading.relevance == ()
    assert engine.relevance("净水器保修多久？", []) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=300), max_size=3), st.text(max_size=60))
def test_quotes_are_the_source_s_characters_whatever_the_text(engine: Engine, texts: list[str], question: str) -> None:
    given = [Source(t) for t in texts]
    check(engine.read(question, given), given)


def test_follow_ups_see_the_question_before(engine: Engine) -> None:
    history = [Turn("user", "净水器保修多久？"), Turn("assistant", "十八个月")]
    followed = engine.read("那是多久呢？", sources(1, 0), history)
    assert followed == engine.read("净水器保修多久？ 那是多久呢？", sources(1, 0))
    assert followed != engine.read("那是多久呢？", sources(1, 0))
    alone = engine.read("谁是总经理？", sources(1, 0), history)
    assert alone == engine.read("谁是总经理？", sources(1, 0)), "a question that stands alone stays as it is"


def test_chat_writes_and_streams_the_same(engine: Engine) -> None:
    said = engine.chat(GREETING[0])
    assert said.text == GREETING[1]
    assert said.finish_reason == "stop"
    assert "".join(p.text for p in engine.stream_chat(GREETING[0])) == GREETING[1]
    short = engine.chat(GREETING[0], options=SamplingOptions(max_tokens=3))
    assert short.text == GREETING[1][:3]
    assert short.finish_reason == "length"
    stopped = engine.chat(GREETING[0], options=SamplingOptions(stop=("什么可",)))
    assert stopped.text == GREETING[1][: GREETING[1].index("什么可")]
    assert stopped.finish_reason == "stop"


def test_what_was_not_trained_is_refused(engine: Engine) -> None:
    with pytest.raises(WeightsError, match="翻译"):
        engine.translate("你好。")
    with pytest.raises(WeightsError, match="英译中"):
        engine.translate("Hello.", direction="en-zh")
    assert engine.rewrite("那多久呢？", [Turn("user", "净水器保修多久？")]) == "那多久呢？"


def test_translation_goes_by_sentences_and_keeps_line_breaks(engine: Engine) -> None:
    """The mechanics only: the tiny model has learnt no translation."""
    able = Engine(replace(engine.weights, tasks=("翻译", "英译中")))
    options = SamplingOptions(max_tokens=4)
    text = "谁是总经理？公司成立。\n\n  总部在哪里？"
    made = able.translate(text, options)
    assert made.text.count("\n") == 2
    assert len(made.text) > 6
    assert "".join(p.text for p in able.stream_translate(text, options)) == made.text
    for piece in made.pieces:
        assert piece.origin is None or piece.text == text[piece.origin.start : piece.origin.end]
    assert [text[s.start : s.end] for s in made.sentences] == ["谁是总经理？", "公司成立。", "总部在哪里？"]
    one = able.translate("总部在哪里？", options, direction="en-zh").text
    assert one == able.write("英译中", "", sources=[Source("总部在哪里？")], options=options).text
    with pytest.raises(WeightsError):
        engine.stream_translate("你好。")  # at once, not at the first piece


def test_summaries_are_copied_sentences(engine: Engine) -> None:
    text = "\n".join(PASSAGES) + "\n\n# 附录\n" + PASSAGES[0]
    made = engine.summarize(text)
    assert made.text == "".join(p.text for p in made.pieces)
    assert 0 < len(made.text) < len(text)
    copied = [p for p in made.pieces if p.origin is not None]
    assert copied
    for piece in copied:
        assert piece.text == text[piece.origin.start : piece.origin.end]  # type: ignore[union-attr]
    assert {p.text for p in made.pieces if p.origin is None} <= {"\n"}
    assert tuple(engine.stream_summarize(text)) == made.pieces
    assert engine.summarize("").text == ""
    assert engine.summarize("短").text == "短"


def test_int8_reads_the_same(trained: Trained, engine: Engine) -> None:
    small = Engine.load(trained.folder, int8=True)
    for question, number, answer in QUESTIONS:
        reading = small.read(question, sources(number))
        assert reading.answer == answer
        exact = engine.read(question, sources(number))
        assert abs(reading.p_answerable - exact.p_answerable) < 0.1


def test_ids_and_threshold_come_from_the_weights(engine: Engine) -> None:
    assert engine.id == "gglm-tiny-test"
    assert engine.answerable_threshold == 0.5
    assert np.isfinite(engine.evidence([("谁？", sources(1))])[0].decoded.margin)
