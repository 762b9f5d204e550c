"""Value objects that pass between retrieval, reading, citation and the surfaces above.

All offsets are Unicode code points, half open, into a document version's stored canonical text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["copied", "supported"]
Reason = Literal["answered", "nothing_relevant", "not_answered", "empty_index", "chat", "sources_disagree"]


@dataclass(frozen=True, slots=True)
class Span:
    """Code points ``start:end`` of some text."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"not a span: {self.start}:{self.end}")


@dataclass(frozen=True, slots=True)
class Scores:
    """Why a passage was found: BM25, cosine, both fused (0…1) and the reader's relevance (0…1)."""

    lexical: float | None = None
    dense: float | None = None
    fused: float = 0.0
    relevance: float | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as retrieval hands it on: ``text`` is exactly ``canonical[char_start:char_end]``."""

    chunk_id: int
    document_id: str
    version_id: int
    title: str
    path: str
    page: int | None
    heading: str
    char_start: int
    char_end: int
    text: str
    score: float = 0.0
    scores: Scores = field(default_factory=Scores)

    def __post_init__(self) -> None:
        if self.char_end - self.char_start != len(self.text):
            raise ValueError("a passage's text must span exactly its offsets")


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote that is byte-identical to the stored text at its offsets.

    ``answer_start``/``answer_end`` say which characters of the answer it stands for.
    """

    marker: int
    document_id: str
    version_id: int
    title: str
    path: str
    page: int | None
    char_start: int
    char_end: int
    quote: str
    answer_start: int
    answer_end: int
    kind: Kind
    score: float

    def __post_init__(self) -> None:
        if self.char_end - self.char_start != len(self.quote) or not self.quote:
            raise ValueError("a quote must span exactly its offsets")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the history."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ReaderOutput:
    """What a reader makes of a question and its passages (see `rag.ports.Reader`).

    ``spans`` are (passage index, Span into that passage's text, Span into ``text``) of the copied
    stretches; ``alternatives`` are further answers as (score, passage index, Span into the passage),
    the score being the likelihood relative to the answer given: 1 = just as likely. ``verdict`` is what the
    source says to a yes/no question, None where the reader is not sure or cannot tell. ``p_answerable`` (0…1) is how
    likely the answer is right, as far as the reader can say. Where the best passage's ``relevance`` lies below
    ``relevant_from``, which is a matter of the reader's own scale, nothing relevant was found at all.
    """

    text: str
    answerable: bool
    p_answerable: float
    confidence: float
    relevance: tuple[float, ...]
    spans: tuple[tuple[int, Span, Span], ...] = ()
    alternatives: tuple[tuple[float, int, Span], ...] = ()
    kind: Kind = "copied"
    verdict: bool | None = None
    relevant_from: float = 0.3


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one question: an answer with verified citations, or an honest refusal."""

    question: str
    standalone_question: str
    answer: str
    answerable: bool
    p_answerable: float
    reason: Reason
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    model: str
    generation: int
    run_id: str
    timings_ms: dict[str, float]
    display: str = ""
    """What a person reads: the answer, then the sentence that supports it, with [n] markers."""
    generated: tuple[Span, ...] = ()
    """Stretches of ``answer`` that stand in no source: a word that follows from the quote (可以, 不需要)
    or a label from the question."""
