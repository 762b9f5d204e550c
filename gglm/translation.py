"""Translation sentence by sentence: what is cut where, and each sentence's place in the text.

The decoder has seen pairs of some thirty tokens; a longer sentence is given to it clause by clause. Of each
sentence the result says how certain the decoder was: where that is little, the wording is often wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gglm import render, summary
from gglm.types import Generation, Piece, SamplingOptions, SourceSpan, TranslatedSentence, Translation

OPTIONS = SamplingOptions(beams=3, max_tokens=120)
"""Three beams instead of greedy: 1–3 chrF and 2–5 BLEU more on four sets, 1.7 times as long (docs/log.md)."""
LONGEST = 40
"""Characters that are given to the decoder at once, where the sentence has commas to cut it at."""
_CLAUSE = re.compile(r"(?<=[，,：:])")

Write = Callable[[str], Generation]


@dataclass(frozen=True, slots=True)
class Part:
    """What comes next of a translation: pieces, and the sentence that they belong to; None: line breaks, spaces."""

    pieces: tuple[Piece, ...]
    sentence: TranslatedSentence | None = None
    tokens: int = 0
    whole: bool = True
    """False where the limit of tokens cut it short."""


def clauses(text: str, start: int, end: int, longest: int = LONGEST) -> Iterator[tuple[int, int]]:
    """Code points of the stretches of ``text[start:end]`` that are translated at once: cut at commas, if long."""
    at = here = start
    for clause in _CLAUSE.split(text[start:end]):
        if here > at and here + len(clause) - at > longest:
            yield at, here
            at = here
        here += len(clause)
    if end > at:
        yield at, end


def translate(text: str, write: Write, spaced: bool) -> Iterator[Part]:
    """The parts of a translation, in the order of the text.

    Args:
        write: translates one sentence or clause.
        spaced: the target language puts spaces between sentences (English does, Chinese does not).
    """
    for start, end in summary.sentences(text):
        first, last = _trimmed(text, start, end)
        if first < last:
            yield _sentence(text, first, last, write, spaced)
        breaks = text.count("\n", start, end)
        if breaks or (spaced and end < len(text) and text[end] != "\n"):
            yield Part((Piece("\n" * breaks or " "),))


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    body = text[start:end]
    return start + len(body) - len(body.lstrip()), start + len(body.rstrip())


def _sentence(text: str, start: int, end: int, write: Write, spaced: bool) -> Part:
    pieces: list[Piece] = []
    certainties: list[tuple[int, float]] = []
    whole = True
    for a, b in clauses(text, start, end):
        first, last = _trimmed(text, a, b)
        if first == last:
            continue
        made = write(text[first:last])
        if pieces and spaced:
            pieces.append(Piece(" "))
        pieces += [_moved(piece, first) for piece in made.pieces]
        certainties.append((made.tokens, made.certainty))
        whole &= made.finish_reason == "stop"
    tokens = sum(n for n, _ in certainties)
    return Part(tuple(pieces), TranslatedSentence(start, end, _mean(certainties)), tokens, whole)


def _mean(certainties: Iterable[tuple[int, float]]) -> float:
    """Geometric mean of (tokens, certainty); 1 where there are no tokens."""
    known = [(n, math.log(max(certainty, 1e-9))) for n, certainty in certainties]
    tokens = sum(n for n, _ in known)
    return math.exp(sum(n * log for n, log in known) / tokens) if tokens else 1.0


def _moved(piece: Piece, by: int) -> Piece:
    """With the origin counted from the beginning of the whole text."""
    origin = piece.origin
    return Piece(piece.text, SourceSpan(0, origin.start + by, origin.end + by)) if origin else piece


def collect(parts: Iterable[Part], advance: Callable[[int], object] = int) -> Translation:
    """The whole translation; ``advance`` is told how many code points of the text are done."""
    done: list[Part] = []
    for part in parts:
        done.append(part)
        if part.sentence:
            advance(part.sentence.end)
    return _joined(done)


def _joined(parts: list[Part]) -> Translation:
    pieces = render.join(piece for part in parts for piece in part.pieces)
    return Translation(
        text="".join(piece.text for piece in pieces),
        pieces=pieces,
        finish_reason="stop" if all(part.whole for part in parts) else "length",
        tokens=sum(part.tokens for part in parts),
        certainty=_mean((part.tokens, part.sentence.certainty) for part in parts if part.sentence),
        sentences=tuple(part.sentence for part in parts if part.sentence),
    )
