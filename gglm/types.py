"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Source:
    """A text that the model reads; the title is read too, yet never quoted."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """Code points ``start:end`` (half open) of ``sources[source].text`` as it was given."""

    source: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if self.source < 0 or not 0 <= self.start < self.end:
            raise ValueError(f"not a span: source {self.source}, {self.start}:{self.end}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of output text and where it was copied from; None: the model wrote it itself."""

    text: str
    origin: SourceSpan | None = None


@dataclass(frozen=True, slots=True)
class SpanCandidate:
    """One possible answer span. ``score`` is comparable across the sources of a question."""

    span: SourceSpan
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The answer to one question over its sources.

    ``answer`` is always the best answer, also where ``answerable`` is False. It equals the
    joined ``pieces``; a copied piece equals the source's own characters, byte for byte.
    ``p_answerable``, ``confidence`` and each of ``relevance`` (one a source) lie in 0…1.
    ``candidates`` holds further spans, best first, the chosen one included. ``p_yes`` (0…1) is for yes/no
    questions: how likely the source of the answer says yes; ``verdict`` the same where it is sure enough.
    """

    answer: str
    kind: Literal["span", "generated"]
    pieces: tuple[Piece, ...]
    answerable: bool
    p_answerable: float
    confidence: float
    relevance: tuple[float, ...]
    candidates: tuple[SpanCandidate, ...] = ()
    p_yes: float = 0.5
    verdict: bool | None = None

    @property
    def spans(self) -> tuple[SourceSpan, ...]:
        """Copied stretches of the answer, in answer order."""
        return tuple(p.origin for p in self.pieces if p.origin is not None)


@dataclass(frozen=True, slots=True)
class Generation:
    """Free text from the decoder (summary, translation, chat, rewrite).

    ``certainty`` (0…1) is the geometric mean of its tokens' probabilities; 1 where nothing was generated.
    """

    text: str
    pieces: tuple[Piece, ...]
    finish_reason: Literal["stop", "length"]
    tokens: int
    certainty: float = 1.0


SURE = 0.5
"""Certainty of a translated sentence from which on it is `TranslatedSentence.sure`."""


@dataclass(frozen=True, slots=True)
class TranslatedSentence:
    """Code points ``start:end`` of the text that was translated, and how certain the decoder was of it (0…1)."""

    start: int
    end: int
    certainty: float

    @property
    def sure(self) -> bool:
        """Certain enough that the wording is worth reading; False means that it is often wrong."""
        return self.certainty >= SURE


@dataclass(frozen=True, slots=True)
class Translation(Generation):
    """A translated text; ``sentences`` are those of the text, in order."""

    sentences: tuple[TranslatedSentence, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the decoder picks tokens. ``temperature`` 0 is greedy; ``beams`` > 1 is beam search.

    Raises:
        ValueError: an option lies outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 1
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    max_tokens: int = 128
    stop: tuple[str, ...] = field(default=())
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError("temperature must be 0 (greedy) or more")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("top_k must be 0 (off) or more, top_p within (0, 1]")
        if self.beams < 1 or (self.beams > 1 and self.temperature > 0):
            raise ValueError("beams must be 1 or more, and beam search needs temperature 0")
        if self.repetition_penalty <= 0:
            raise ValueError("repetition_penalty must be above 0")
        if not 0 <= self.min_tokens <= self.max_tokens or self.max_tokens < 1:
            raise ValueError("0 <= min_tokens <= max_tokens is needed, and max_tokens >= 1")
