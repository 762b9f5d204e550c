from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.reading import Part, Spans, TokenizedSource, Window, cut, decode, merge, trim, windows
from gglm.tasks import encode_task
from gglm.tokenizer import Tokenizer
from gglm.types import Source


@given(st.integers(0, 3000), st.integers(20, 400), st.data())
def test_windows_cover_everything_and_overlap(length: int, room: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, room // 2))
    pieces = cut(length, room, overlap)
    covered = np.zeros(length, int)
    for first, count in pieces:
        assert first >= 0
        assert count <= room
        assert first + count <= length
        covered[first : first + count] += 1
    assert covered.all()
    for (a, n), (b, _) in pairwise(pieces):
        assert a < b
        assert a + n - b >= overlap
    assert len(pieces) == (0 if not length else 1 if length <= room else -(-(length - overlap) // (room - overlap)))


def test_windows_of_text_hold_its_tokens(tokenizer: Tokenizer) -> None:
    text = "净水器的保修期为十八个月，自购买之日起计算。" * 30
    source = TokenizedSource.of(tokenizer, Source(text, "手册" * 50))
    made = windows("问答", tokenizer, "保修多久？" * 60, [source], 128, 32)
    assert len(made) > 3
    for window in made:
        assert len(window.encoded.tokens) <= 128
        passage = window.encoded.tokens[window.encoded.base :]
        assert np.array_equal(passage, source.ids[window.first : window.first + window.count])


def part(
    tokenizer: Tokenizer, first: int, start: list[float], end: list[float], null: float = 0.0, relevance: float = 0.0
) -> Part:
    window = Window(0, first, len(start), encode_task("问答", tokenizer, "谁？", "", "甲"))
    return Part(window, np.array(start, np.float32), np.array(end, np.float32), null, null, relevance)


def test_merging_takes_the_window_with_most_context(tokenizer: Tokenizer) -> None:
    a = part(tokenizer, 0, [1.0] * 10, [1.0] * 10)
    b = part(tokenizer, 6, [2.0] * 10, [2.0] * 10)
    merged = merge(16, [a, b])
    assert merged.start.tolist() == [1.0] * 8 + [2.0] * 8
    shifted = merge(16, [a, part(tokenizer, 6, [2.0] * 10, [2.0] * 10, null=5.0)])
    assert shifted.start.tolist() == [1.0] * 8 + [-3.0] * 8, "logits count over their own window's null"
    relevant = merge(16, [a, part(tokenizer, 6, [2.0] * 10, [2.0] * 10, relevance=3.0)], weight=0.5)
    assert relevant.start.tolist() == [1.0] * 8 + [3.5] * 8
    assert relevant.relevance == 3.0


@given(st.data())
def test_span_decoding_equals_trying_everything(tokenizer: Tokenizer, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    longest = data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sources = [
        TokenizedSource.of(tokenizer, Source("净水器保修期为十八个月"[:n] + "月" * max(0, n - 11))) for n in counts
    ]
    spans = [
        Spans(rng.normal(size=n).astype(np.float32) * 3, rng.normal(size=n).astype(np.float32) * 3, 0.0) for n in counts
    ]
    every = [
        (float(s.start[i] + s.end[j]), k, i, j)
        for k, s in enumerate(spans)
        for i in range(counts[k])
        for j in range(i, min(counts[k], i + longest))
    ]
    best = max(every)
    total = np.log(sum(np.exp(e[0]) for e in every))
    decoded = decode(sources, spans, longest)
    first = decoded.candidates[0]
    assert (first.span.source, first.span.start, first.span.end) == (best[1], best[2], best[3] + 1)
    assert decoded.margin == pytest.approx(best[0], abs=1e-4)
    assert decoded.certainty == pytest.approx(np.exp(best[0] - total), abs=1e-4)
    assert first.score == pytest.approx(best[0] - np.log(np.exp(total) + 1), abs=1e-4)
    for a in decoded.candidates:
        assert a.span.end - a.span.start <= longest
        assert sum(a.span.source == b.span.source and a.span.start < b.span.end and b.span.start < a.span.end
                   for b in decoded.candidates) == 1  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  甲乙 \n", "甲乙"),
        ("，甲。", "甲。"),
        ("甲，", "甲"),
        ("。、，", None),
        ("《甲》", "《甲》"),
        ("\u3000甲", "甲"),
        ("", None),
    ],
)
def test_trimming(text: str, kept: str | None) -> None:
    span = trim(text, 0, len(text))
    assert (text[slice(*span)] if span else None) == kept


def test_nothing_to_read() -> None:
    decoded = decode([], [], 10)
    assert decoded.candidates == ()
    assert decoded.certainty == 0.0


def test_short_passages_are_repeated_and_read_as_one(tokenizer: Tokenizer) -> None:
    source = TokenizedSource.of(tokenizer, Source("总部设在南京。", "公司"))
    (plain,) = windows("问答", tokenizer, "总部在哪", [source], 256, 32)
    (window,) = windows("问答", tokenizer, "总部在哪", [source], 256, 32, least=60)
    assert (plain.every, plain.count, window.count) == (0, len(source.ids), len(source.ids))
    assert window.every > window.count
    passage = window.encoded.tokens[window.encoded.base :]
    assert len(passage) + 1 >= 60
    for at in range(0, len(passage), window.every):
        assert passage[at : at + window.count].tolist() == source.ids.tolist()
    scores = np.arange(len(window.encoded.tokens), dtype=np.float32)
    last = len(passage) - window.count + window.encoded.base
    assert window.of_passage(scores).tolist() == scores[last:].tolist(), "the highest among the copies"
    assert plain.of_passage(scores).tolist() == scores[plain.encoded.base :][: plain.count].tolist()
    longer = TokenizedSource.of(tokenizer, Source("总部设在南京。" * 20))
    assert all(w.every == 0 for w in windows("问答", tokenizer, "总部在哪", [longer], 256, 32, least=60))
    for w in windows("问答", tokenizer, "总部在哪", [source], 40, 8, least=60):
        assert len(w.encoded.tokens) <= 40, "never more than the window"
