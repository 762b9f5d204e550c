"""Our own generator as a reader: the engine's source spans become spans of passages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gglm.types as g
from rag.types import Passage, ReaderOutput, Span, Turn

if TYPE_CHECKING:
    from gglm.engine import Engine


FLUENT = 0.78
"""How certain the decoder must be of its small talk. Of 120 messages that it had not met, those that came out garbled
had at most .75 («对对对对是标准人。»), all good replies but one more than .8."""
RELEVANT = 0.05
"""Relevance of the best passage from which on something relevant was found (docs/log.md)."""


class GGLMReader:
    """Wraps a `gglm.engine.Engine`; reads, judges relevance, rewrites and chats."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(cls, folder: Path | None = None, threads: int = 1) -> GGLMReader:
        """Load weights from a folder, the shipped ones without.

        Raises:
            WeightsError: the folder is missing or damaged.
        """
        from gglm.engine import Engine

        return cls(Engine.load(folder, threads=threads))

    @property
    def id(self) -> str:
        return self.engine.id

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        """Read the passages together; spans are the engine's copied pieces, character for character."""
        if not passages:
            return ReaderOutput("", False, 0.0, 0.0, ())
        reading = self.engine.read(question, [source_of(p) for p in passages], _turns(history), found=True)
        best = max((c.score for c in reading.candidates), default=0.0)
        spans = _spans(reading)
        return ReaderOutput(
            text=reading.answer,
            answerable=reading.answerable,
            p_answerable=reading.p_answerable,
            confidence=reading.confidence,
            relevance=reading.relevance,
            spans=tuple(spans),
            alternatives=tuple(
                (math.exp(min(0.0, c.score - best)), c.span.source, Span(c.span.start, c.span.end))
                for c in reading.candidates
                if not any(i == c.span.source and s.start < c.span.end and c.span.start < s.end for i, s, _ in spans)
            ),
            kind="copied",
            verdict=reading.verdict,
            relevant_from=RELEVANT,
        )

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        """The relevance head's probability for each passage."""
        return self.engine.relevance(question, [source_of(p) for p in passages]) if passages else []

    def rewrite(self, question: str, history: Sequence[Turn]) -> str:
        """The question made to stand alone by the decoder; unchanged where it was not trained for it."""
        if not self.engine.can("改写"):
            return question
        return self.engine.rewrite(question, _turns(history))

    def chat(self, message: str, history: Sequence[Turn] = ()) -> str:
        """A small-talk reply; empty where the weights were not trained for it, or it comes out uncertain."""
        if not self.engine.can("对话"):
            return ""
        reply = self.engine.chat(message, _turns(history))
        return reply.text if reply.certainty >= FLUENT else ""

    def stream_chat(self, message: str, history: Sequence[Turn] = ()) -> Iterator[str]:
        """The same, piece by piece."""
        for piece in self.engine.stream_chat(message, _turns(history)):
            yield piece.text


def _spans(reading: g.Reading) -> list[tuple[int, Span, Span]]:
    """The copied pieces as (passage, span of its text, span of the answer)."""
    spans = []
    at = 0
    for piece in reading.pieces:
        if piece.origin is not None:
            origin = Span(piece.origin.start, piece.origin.end)
            spans.append((piece.origin.source, origin, Span(at, at + len(piece.text))))
        at += len(piece.text)
    return spans


def source_of(passage: Passage) -> g.Source:
    """The passage as the engine reads it: under its document's title and heading."""
    title = f"{passage.title} › {passage.heading}" if passage.heading else passage.title
    return g.Source(passage.text, title)


def _turns(history: Sequence[Turn]) -> list[g.Turn]:
    return [g.Turn(t.role, t.content) for t in history]
