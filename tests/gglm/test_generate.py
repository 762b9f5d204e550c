from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gglm.engine import Engine
from gglm.generate import Rules, beam_search, choose, generate, score, stream
from gglm.model import ChatGGLM, Memory
from gglm.render import StopFilter, join, tokens_to_pieces
from gglm.tokenizer import BOS, EOS, PAD, SPECIAL
from gglm.types import Piece, SamplingOptions, Source, SourceSpan
from tests.gglm.conftest import GREETING, PASSAGES, QUESTIONS, TITLES
from tests.gglm.test_model import memory, model  # noqa: F401

RULES = Rules.standard(97, 97)


def greedy_by_hand(net: ChatGGLM, source: Memory, rules: Rules, steps: int) -> list[int]:
    """Without a cache: the whole prefix anew at each step."""
    out = [BOS]
    for _ in range(steps):
        with torch.inference_mode():
            scores = net.decode(torch.tensor([out]), source).log_probs[0, -1]
        out.append(int(scores.masked_fill(rules.forbidden, -math.inf).argmax()))
        if out[-1] == EOS:
            break
    return out[1:]


def test_greedy_equals_recomputing_everything(model: ChatGGLM) -> None:  # noqa: F811
    for seed in range(5):
        source = memory(seed=seed)
        steps = list(stream(model, source, SamplingOptions(max_tokens=10), RULES))
        assert [s.token for s in steps] == greedy_by_hand(model, source, RULES, 10)
        assert all(s.token >= len(SPECIAL) or s.token == EOS for s in steps)


def test_every_copied_token_is_the_token_at_its_origin(model: ChatGGLM) -> None:  # noqa: F811
    copied = 0
    for seed in range(10):
        source = memory(seed=seed)
        for step in stream(model, source, SamplingOptions(max_tokens=12, temperature=1.0, seed=seed), RULES):
            if step.origin is not None:
                assert int(source.tokens[0, step.origin]) == step.token
                assert bool(source.copyable[0, step.origin])
                copied += 1
    assert copied > 20


def test_copy_only_tokens_have_an_origin(model: ChatGGLM) -> None:  # noqa: F811
    only = torch.zeros(97, dtype=torch.bool)
    only[16:60] = True
    rules = Rules(RULES.forbidden, only)
    seen = 0
    for seed in range(10):
        source = memory(seed=seed)
        for step in stream(model, source, SamplingOptions(max_tokens=12, temperature=1.0, seed=seed), rules):
            if only[step.token]:
                assert step.origin is not None or int(source.tokens.eq(step.token).sum())
                assert step.token in source.tokens
                seen += 1
    assert seen > 20


def exhaustive(net: ChatGGLM, source: Memory, rules: Rules, length: int, vocabulary: list[int]) -> list[int]:
    """Best finished sequence by mean log-probability, all of them tried."""
    best, best_score = [], -math.inf
    for n in range(length):
        for body in itertools.product(vocabulary, repeat=n):
            tokens = [*body, EOS]
            value = score(net, source, tokens)
            if value > best_score:
                best, best_score = tokens, value
    return best


def test_wide_beam_finds_what_trying_everything_finds(model: ChatGGLM) -> None:  # noqa: F811
    allowed = [20, 21, 22]
    forbidden = torch.ones(97, dtype=torch.bool)
    forbidden[[*allowed, EOS]] = False
    for seed in range(4):
        source = memory(seed=seed)
        source.tokens[0, :6] = torch.tensor([20, 21, 22, 20, 22, 21])
        found = beam_search(model, source, SamplingOptions(beams=40, max_tokens=4), Rules(forbidden))
        assert found[-1].token == EOS
        assert [s.token for s in found] == exhaustive(model, source, Rules(forbidden), 4, allowed)


def test_one_beam_is_greedy_and_more_are_no_worse(model: ChatGGLM) -> None:  # noqa: F811
    for seed in range(3):
        source = memory(seed=seed)
        greedy = generate(model, source, SamplingOptions(max_tokens=8), RULES)
        beams = generate(model, source, SamplingOptions(max_tokens=8, beams=4), RULES)
        mean = [sum(s.log_prob for s in steps) / len(steps) for steps in (greedy, beams)]
        if beams[-1].token == EOS or greedy[-1].token != EOS:
            assert mean[1] >= mean[0] - 1e-4
        for step in beams:
            assert step.origin is None or int(source.tokens[0, step.origin]) == step.token
    with pytest.raises(ValueError, match="cannot stream"):
        next(stream(model, memory(), SamplingOptions(beams=2), RULES))


def test_same_seed_same_text(model: ChatGGLM) -> None:  # noqa: F811
    def tokens(seed: int) -> list[int]:
        options = SamplingOptions(temperature=1.0, seed=seed, max_tokens=10)
        return [s.token for s in stream(model, memory(), options, RULES)]

    assert tokens(3) == tokens(3)
    assert len({tuple(tokens(s)) for s in range(8)}) > 1


def draws(scores: Tensor, options: SamplingOptions, count: int = 4000) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    picked = torch.tensor([choose(scores, options, generator) for _ in range(count)])
    return (picked.bincount(minlength=len(scores)) / count).tolist()


def test_sampling_follows_the_distribution() -> None:
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert choose(scores, SamplingOptions()) == 0
    assert draws(scores, SamplingOptions(temperature=1.0)) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    sharper = torch.tensor([0.5, 0.3, 0.15, 0.05]) ** 2
    assert draws(scores, SamplingOptions(temperature=0.5)) == pytest.approx(
        (sharper / sharper.sum()).tolist(), abs=0.03
    )
    assert draws(scores, SamplingOptions(temperature=1.0, top_k=2)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert draws(scores, SamplingOptions(temperature=1.0, top_p=0.6)) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert draws(scores, SamplingOptions(temperature=1.0, top_p=0.4)) == pytest.approx([1, 0, 0, 0])


def test_lengths_and_repetition(model: ChatGGLM) -> None:  # noqa: F811
    source = memory()
    with torch.no_grad():
        model.output_bias[EOS] = 50.0
    assert [s.token for s in stream(model, source, SamplingOptions(max_tokens=9), RULES)][-1] == EOS
    long = list(stream(model, source, SamplingOptions(min_tokens=5, max_tokens=9), RULES))
    assert len(long) == 6
    assert long[-1].token == EOS
    with torch.no_grad():
        model.output_bias[EOS] = -50.0
        model.output_bias[40] = 20.0
        model.decoder.gate.bias.fill_(50.0)
    assert {s.token for s in stream(model, source, SamplingOptions(max_tokens=6), RULES)} == {40}
    varied = [s.token for s in stream(model, source, SamplingOptions(max_tokens=6, repetition_penalty=1e9), RULES)]
    assert varied[0] == 40
    assert varied.count(40) <= 3


def test_provenance_of_every_copied_character(engine: Engine) -> None:
    """The decoder's answer is the source's own characters at the places it names."""
    traditional = [
        ("本手冊介紹淨水器的使用。淨水器的保修期為十八個月，自購買之日起計算。濾芯不在保修之列。", "十八個月"),
        (PASSAGES[0], "十八个月"),
    ]
    for text, wanted in traditional:
        made = engine.write("问答", QUESTIONS[0][0], sources=[Source(text, TITLES[0])])
        assert made.text == wanted
        (piece,) = made.pieces
        assert piece.origin is not None
        assert text[piece.origin.start : piece.origin.end] == piece.text == wanted
        assert made.finish_reason == "stop"


def test_decoder_reads_several_sources_together(engine: Engine) -> None:
    given = [Source(PASSAGES[1], TITLES[1]), Source(PASSAGES[0], TITLES[0])]
    made = engine.write("问答", QUESTIONS[0][0], sources=given)
    for piece in made.pieces:
        if piece.origin is not None:
            text = given[piece.origin.source].text
            assert text[piece.origin.start : piece.origin.end] == piece.text
    assert made.text == "".join(p.text for p in made.pieces)
    streamed = engine.stream("问答", QUESTIONS[0][0], sources=given)
    assert join(streamed) == made.pieces


def test_beams_write_the_same_answer(engine: Engine) -> None:
    options = SamplingOptions(beams=3)
    assert engine.write("对话", GREETING[0], options=options).text == GREETING[1]


def test_rare_characters_come_back_whole(engine: Engine) -> None:
    """A character without a piece is several byte tokens; copied or written, it is one character."""
    from gglm.generate import Step
    from gglm.reading import TokenizedSource, Window
    from gglm.render import Origins
    from gglm.tasks import encode_task

    tokenizer = engine.tokenizer
    text = "甲𠮷乙🙂丙"
    source = Source(text)
    tokenized = TokenizedSource.of(tokenizer, source)
    encoded = encode_task("问答", tokenizer, "谁？", "", text)
    window = Window(0, 0, len(tokenized.ids), encoded)
    origins = Origins.of([window], [tokenized])
    copied = [Step(int(t), 0.0, encoded.base + i) for i, t in enumerate(tokenized.ids)]
    (piece,) = join(tokens_to_pieces(copied, tokenizer, origins, [source]))
    assert piece == Piece(text, SourceSpan(0, 0, len(text)))
    written = [Step(int(t), 0.0) for t in tokenized.ids]
    (piece,) = join(tokens_to_pieces(written, tokenizer, origins, [source]))
    assert piece == Piece(text)
    torn = [s for s in written if s.token != int(tokenized.ids[3])]
    assert "�" not in "".join(p.text for p in tokens_to_pieces(torn, tokenizer, origins, [source]))


def pieces(*texts: str) -> list[Piece]:
    at = 0
    out = []
    for text in texts:
        out.append(Piece(text, SourceSpan(0, at, at + len(text))))
        at += len(text)
    return out


@pytest.mark.parametrize(
    ("stop", "kept", "stopped"),
    [((), "甲乙丙丁戊", False), (("丙丁",), "甲乙", True), (("丁己",), "甲乙丙丁戊", False), (("戊", "乙"), "甲", True),
     (("甲",), "", True), (("乙丙丁戊己",), "甲乙丙丁戊", False)],
)  # fmt: skip
@pytest.mark.parametrize("cut", [("甲", "乙", "丙", "丁", "戊"), ("甲乙丙", "丁戊"), ("甲乙丙丁戊",)])
def test_stop_strings_end_the_text_wherever_tokens_are_cut(
    stop: tuple[str, ...], kept: str, stopped: bool, cut: tuple[str, ...]
) -> None:
    held = StopFilter(stop)
    out = list(held(pieces(*cut)))
    assert "".join(p.text for p in out) == kept
    assert held.stopped == stopped
    for piece in out:
        assert piece.origin is not None
        assert "甲乙丙丁戊"[piece.origin.start : piece.origin.end] == piece.text


def test_padded_rows_of_the_table_never_come_out(engine: Engine) -> None:
    config = engine.model.config
    assert config.vocab_size > len(engine.tokenizer)
    rules = Rules.standard(len(engine.tokenizer), config.vocab_size)
    assert rules.forbidden[PAD]
    assert rules.forbidden[len(engine.tokenizer) :].all()
    assert not rules.forbidden[EOS]
