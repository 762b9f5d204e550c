"""Citations for answers in free words: which sentences of the passages say what the answer says.

Nothing is trusted: a sentence of the answer is supported only by a passage sentence that holds
most of its wording and every number in it. What has no such sentence stays uncited.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rag.text import key, numbers, sentences, terms
from rag.types import Passage, ReaderOutput, Span

MIN_COVERAGE = 0.5
"""Share of an answer sentence's terms that its quote must hold."""


def overlap(question: str, text: str) -> float:
    """Share (0…1) of a question's terms that a text holds: relevance for readers without a head for it."""
    wanted = terms(question)
    return len(wanted & terms(text)) / len(wanted) if wanted else 0.0


def support(answer: str, passages: Sequence[Passage]) -> list[tuple[int, Span, Span]]:
    """(passage index, Span of the passage's text, Span of the answer) for each supported sentence."""
    found = []
    for claim in sentences(answer):
        text = answer[claim.start : claim.end]
        quote = _verbatim(text, passages) or _closest(text, passages)
        if quote is not None:
            found.append((*quote, claim))
    return found


def _verbatim(text: str, passages: Sequence[Passage]) -> tuple[int, Span] | None:
    core = text.strip("。！？!?；; \n“”\"'「」")
    if len(key(core)) < 2:
        return None
    for index, passage in enumerate(passages):
        at = passage.text.find(core)
        if at >= 0:
            return index, Span(at, at + len(core))
    return None


def _closest(text: str, passages: Sequence[Passage]) -> tuple[int, Span] | None:
    wanted, figures = terms(text), numbers(text)
    best: tuple[float, int, Span] | None = None
    for index, passage in enumerate(passages):
        parts = sentences(passage.text)
        windows = parts + [Span(a.start, b.end) for a, b in pairwise(parts)]
        for window in windows:
            quote = passage.text[window.start : window.end]
            held = terms(quote)
            if not wanted or not figures <= numbers(quote):
                continue
            coverage = len(wanted & held) / len(wanted)
            if coverage < MIN_COVERAGE:
                continue
            score = coverage + 0.5 * len(wanted & held) / len(held)  # a tight quote over a long one
            if best is None or score > best[0]:
                best = (score, index, window)
    return best[1:] if best else None


SUPPORTED = 0.5
"""Share of an answer that its passages must support."""


def supported_output(question: str, answer: str, passages: Sequence[Passage], refused: bool = False) -> ReaderOutput:
    """A free-text answer as reader output: `p_answerable` is the share of it that is supported."""
    spans = [] if refused else support(answer, passages)
    covered = sum(span.end - span.start for _, _, span in spans)
    total = sum(s.end - s.start for s in sentences(answer))
    share = covered / total if total else 0.0
    return ReaderOutput(
        text=answer,
        answerable=share >= SUPPORTED,
        p_answerable=share,
        confidence=share,
        relevance=tuple(overlap(question, p.text) for p in passages),
        spans=tuple(spans),
        kind="supported",
    )
