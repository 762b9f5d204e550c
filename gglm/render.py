"""Generated tokens to text: copied stretches in the source's own characters, the rest as written.

A copied token stands for the code points ``start:end`` of its source *as given*: traditional,
full-width or otherwise unlike the normalised token. Stop strings are held back until it is certain
that they do not begin.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gglm.generate import Step
from gglm.reading import TokenizedSource, Window
from gglm.tokenizer import EOS, Ids, Tokenizer
from gglm.types import Piece, Source, SourceSpan


@dataclass(frozen=True, slots=True)
class Origins:
    """What each memory position stands for: source index (−1: not a source) and code points, (S,) each."""

    source: Ids
    start: Ids
    end: Ids

    @classmethod
    def of(cls, windows: Sequence[Window], sources: Sequence[TokenizedSource]) -> Origins:
        """Positions of windows laid end to end."""
        total = sum(len(w.encoded.tokens) for w in windows)
        source, start, end = (np.full(total, -1, np.int32) for _ in range(3))
        at = 0
        for window in windows:
            if window.count:
                here = slice(at + window.encoded.base, at + window.encoded.base + window.count)
                there = slice(window.first, window.first + window.count)
                source[here] = window.index
                start[here] = sources[window.index].starts[there]
                end[here] = sources[window.index].ends[there]
            at += len(window.encoded.tokens)
        return cls(source, start, end)

    def __getitem__(self, position: int) -> SourceSpan | None:
        if self.source[position] < 0:
            return None
        return SourceSpan(int(self.source[position]), int(self.start[position]), int(self.end[position]))


def tokens_to_pieces(
    steps: Iterable[Step], tokenizer: Tokenizer, origins: Origins, sources: Sequence[Source]
) -> Iterator[Piece]:
    """A piece a token, as soon as its characters are complete (a rare character is several byte tokens)."""
    written = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    first_byte = int(np.argmax(tokenizer.is_byte))  # SentencePiece keeps <0x00> … <0xFF> side by side
    last: SourceSpan | None = None
    for step in steps:
        if step.token == EOS:
            break
        span = None if step.origin is None else origins[step.origin]
        if span is not None:
            if span != last:  # further bytes of the same character add nothing
                yield Piece(sources[span.source].text[span.start : span.end], span)
            last = span
            written.reset()
            continue
        last = None
        if tokenizer.is_byte[step.token]:
            text = written.decode(bytes([step.token - first_byte]))
        else:
            written.reset()
            text = tokenizer.pieces[step.token]
        if text:
            yield Piece(text)


def join(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Neighbouring pieces as one where they continue each other in the source or are both written."""
    out: list[Piece] = []
    for piece in pieces:
        if out:
            before = out[-1]
            if before.origin is None and piece.origin is None:
                out[-1] = Piece(before.text + piece.text)
                continue
            a, b = before.origin, piece.origin
            if a is not None and b is not None and a.source == b.source and a.end == b.start:
                out[-1] = Piece(before.text + piece.text, SourceSpan(a.source, a.start, b.end))
                continue
        out.append(piece)
    return tuple(out)


class StopFilter:
    """Passes pieces on until a stop string appears; ``stopped`` says whether one did.

    Text that might begin a stop string is kept until it is clear; a piece that a stop string cuts
    keeps its provenance, shortened.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = tuple(s for s in stop if s)
        self.stopped = False

    def __call__(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        if not self.stop:
            yield from pieces
            return
        held: list[Piece] = []
        for piece in pieces:
            held.append(piece)
            text = "".join(p.text for p in held)
            found = [i for i in (text.find(s) for s in self.stop) if i >= 0]
            if found:
                self.stopped = True
                yield from _head(held, min(found))
                return
            keep = max((n for s in self.stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
            while held and sum(len(p.text) for p in held[1:]) >= keep:
                yield held.pop(0)
        yield from held


def _head(pieces: Sequence[Piece], length: int) -> Iterator[Piece]:
    """The first ``length`` characters of the pieces."""
    for piece in pieces:
        if length <= 0:
            return
        text = piece.text[:length]
        length -= len(text)
        origin = piece.origin
        if origin is not None and len(text) < len(piece.text):
            origin = SourceSpan(origin.source, origin.start, origin.start + len(text))
        yield Piece(text, origin)
