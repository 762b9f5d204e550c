"""One question to one answer: retrieve, read, verify the citations, or refuse and say why."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from rag import asked as in_documents
from rag import compose
from rag.cite import cite, supported_share
from rag.filters import Filters
from rag.parts import Part, split_question
from rag.ports import Reader
from rag.retrieve import Found, Retriever, diverse, merge_neighbours, near_best, usable_question
from rag.rewrite import Rewriter, Standalone, standalone
from rag.settings import Settings
from rag.smalltalk import Topic, classify, closing, fitting, fixed_reply
from rag.types import Answer, Citation, Passage, ReaderOutput, Reason, Turn
from rag.wire import answer_to_dict, citation_to_dict, passage_to_dict

MIN_SUPPORT = 0.5
"""Share of an answer's characters that verified citations must stand for."""
PASSAGE_CHARS = 480
"""Size of an unmerged passage, the reader's window; `Settings.top_k` of these are read."""
PART_WEIGHT = 0.5
"""Weight of the search for each part of a question after several things."""
PIECE_CHARS = 4


@runtime_checkable
class Chatter(Protocol):
    """A reader that can make small talk."""

    def chat(self, message: str, history: Sequence[Turn] = ()) -> str: ...


@dataclass
class _Run:
    """What one question gathers on its way."""

    question: str
    standalone: str
    started: float = field(default_factory=time.perf_counter)
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    timings: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("rewrite", "retrieve", "rerank", "read", "cite"), 0.0)
    )
    generation: int = 0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] += 1000 * (time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class _Read:
    """A read and verified answer; ``citations`` is empty where nothing could be verified."""

    output: ReaderOutput
    draft: compose.Draft
    citations: tuple[Citation, ...]

    @property
    def answer(self) -> str:
        return self.draft.text

    @property
    def supported(self) -> bool:
        copied = list(self.answer)
        for span in self.draft.generated:
            copied[span.start : span.end] = " " * (span.end - span.start)
        return supported_share("".join(copied), self.citations) >= MIN_SUPPORT


class Answerer:
    """Answers questions over a knowledge base. Stateless; one instance serves all requests."""

    def __init__(self, retriever: Retriever, reader: Reader, settings: Settings) -> None:
        self.retriever = retriever
        self.reader = reader
        self.settings = settings

    def ask(
        self,
        question: str,
        kb: str = "default",
        history: Sequence[Turn] = (),
        filters: Filters | None = None,
    ) -> Answer:
        """Answer a question, or refuse.

        Raises:
            NotFound: there is no such knowledge base.
            InvalidInput: the question is empty or too long.
            IndexUnavailable: the index is damaged.
        """
        for event in self._events(question, kb, history, filters):
            if isinstance(event, Answer):
                return event
        raise AssertionError("no answer event")

    def stream(
        self,
        question: str,
        kb: str = "default",
        history: Sequence[Turn] = (),
        filters: Filters | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The same as events, JSON-ready.

        ``passages`` (what was found, before it is read), ``token`` (the texts joined are the
        answer's ``display``), ``citation``, and last ``done`` with the whole answer. An answer is
        verified before its first token, so none is ever taken back.

        Raises:
            as `ask`, before the first event.
        """
        events = self._events(question, kb, history, filters)
        first = next(events)  # errors are raised here, not in the middle of a response
        return self._stream(first, events)

    def _stream(self, first: Answer | Found, rest: Iterator[Answer | Found]) -> Iterator[dict[str, Any]]:
        yield from self._wire(first)
        for event in rest:
            yield from self._wire(event)

    @staticmethod
    def _wire(event: Answer | Found) -> Iterator[dict[str, Any]]:
        if isinstance(event, Found):
            yield {"type": "passages", "passages": [passage_to_dict(p) for p in event.passages]}
            return
        text = event.display
        for start in range(0, len(text), PIECE_CHARS):
            yield {"type": "token", "text": text[start : start + PIECE_CHARS]}
        for citation in event.citations:
            yield {"type": "citation", "citation": citation_to_dict(citation)}
        yield {"type": "done", "answer": answer_to_dict(event)}

    def _events(
        self, question: str, kb: str, history: Sequence[Turn], filters: Filters | None
    ) -> Iterator[Answer | Found]:
        question = usable_question(question, self.settings)
        run = _Run(question, question)
        run.generation = self.retriever.generation(kb)
        topic = classify(question) or (closing(question) if history else None)
        if topic is not None:
            yield self._small_talk(run, topic, history)
            return
        with run.timed("rewrite"):
            asked = standalone(question, history, self.reader)
            parts = split_question(asked.question)
        run.standalone = asked.question
        with run.timed("retrieve"):
            queries = [*asked.queries, *((part.question, PART_WEIGHT) for part in parts)]
            found = self.retriever.find(queries, kb, self.settings.candidates, filters)
        run.generation = found.generation
        if not found.passages:
            reason: Reason = "empty_index" if found.empty else "nothing_relevant"
            yield self._refuse(run, reason, (), 0.0)
            return
        with run.timed("rerank"):
            ranked = found.passages
            if len(near_best(ranked)) > self.settings.top_k:  # else the reader reads them all anyway
                ranked = self.retriever.rerank(asked.question, ranked)
        with run.timed("retrieve"):
            nearest = ranked[: 2 * self.settings.top_k]
            texts = self.retriever.texts([p.version_id for p in nearest])
            live = [p for p in nearest if p.version_id in texts]
            merged = merge_neighbours(live, texts)
            passages = _cut(diverse(merged, self.settings.top_k), self.settings.top_k)
        if not passages:
            yield self._refuse(run, "nothing_relevant", (), 0.0)
            return
        yield Found(passages, found.generation)
        near = near_best(passages)
        passages = (*near, *(p for p in passages if p not in near))
        read = self._read_parts(run, parts, passages[: len(near)], texts) if parts else None
        if read is None:
            read = self._read(run, asked, passages[: len(near)], texts, history)
        yield self._conclude(run, read, passages, texts)

    def _read_parts(
        self, run: _Run, parts: Sequence[Part], passages: tuple[Passage, ...], texts: dict[int, str]
    ) -> _Read | None:
        """The answers for each of several things, one behind the other; None where one of them is missing."""
        read = [self._read_once(run, part.question, passages, texts, ()) for part in parts]
        if not all(self._answers(r) and r.output.kind == "copied" for r in read):
            return None
        with run.timed("cite"):
            draft = compose.side_by_side([part.thing for part in parts], [r.draft for r in read])
            citations = cite(draft.text, "copied", draft.claims, texts)
        output = replace(
            read[0].output,
            text=draft.text,
            p_answerable=min(r.output.p_answerable for r in read),
            confidence=min(r.output.confidence for r in read),
            relevance=tuple(map(max, *(r.output.relevance for r in read))),
        )
        return _Read(output, draft, citations)

    def _read(
        self,
        run: _Run,
        asked: Standalone,
        passages: tuple[Passage, ...],
        texts: dict[int, str],
        history: Sequence[Turn],
    ) -> _Read:
        """Read the question as typed, over what its rewrite found, then the rewrite.

        What a rewrite puts in draws the reader to the wrong place: of 182 follow-ups 63 come out right so, 56 with the
        rewrite first. As typed it may fit any document, so only an answer of the first one counts (docs/log.md).
        """
        turns = () if isinstance(self.reader, Rewriter) else history  # else it has been rewritten already
        if asked.plain:
            read = self._read_once(run, asked.plain, passages, texts, turns)
            first = passages[0].document_id
            if self._answers(read) and all(claim.passage.document_id == first for claim in read.draft.claims):
                return read
        return self._read_once(run, asked.question, passages, texts, turns)

    def _read_once(
        self,
        run: _Run,
        question: str,
        passages: tuple[Passage, ...],
        texts: dict[int, str],
        history: Sequence[Turn],
    ) -> _Read:
        with run.timed("read"):
            output = self.reader.read(question, passages, history)
            output = in_documents.settled(question, output, passages)
        with run.timed("cite"):
            draft = compose.draft(question, output, passages, texts)
            draft = compose.with_alternatives(draft, output, passages)
            citations = cite(draft.text, output.kind, draft.claims, texts)
        return _Read(output, draft, citations)

    def _answers(self, read: _Read) -> bool:
        """The reader's own judgement of what it found, unless a setting says how sure it must be."""
        least = self.settings.answerable_threshold
        sure = read.output.answerable if least is None else read.output.p_answerable >= least
        return bool(read.answer.strip()) and sure and read.supported

    def _conclude(self, run: _Run, read: _Read, passages: tuple[Passage, ...], texts: dict[int, str]) -> Answer:
        output = read.output
        judged = [
            replace(p, scores=replace(p.scores, relevance=r))
            for p, r in zip(passages, output.relevance, strict=False)  # the rest was not read
        ]
        passages = (*judged, *passages[len(judged) :])
        if not self._answers(read):
            best = max(output.relevance, default=0.0)
            reason: Reason = "nothing_relevant" if best < output.relevant_from else "not_answered"
            return self._refuse(run, reason, passages, output.p_answerable)
        with run.timed("cite"):
            shown = compose.alternatives if read.draft.disagree else compose.display
            display = shown(read.answer, read.citations, texts, self.settings.supporting_sentence)
        return self._answer(
            run,
            answer=read.answer,
            display=display,
            answerable=True,
            p_answerable=output.p_answerable,
            reason="sources_disagree" if read.draft.disagree else "answered",
            citations=read.citations,
            generated=read.draft.generated,
            passages=passages,
        )

    def _refuse(self, run: _Run, reason: Reason, passages: tuple[Passage, ...], p_answerable: float) -> Answer:
        text = {"empty_index": compose.EMPTY, "nothing_relevant": compose.NOTHING_RELEVANT}.get(
            reason, compose.NOT_FOUND
        )
        return self._answer(
            run,
            answer=text,
            display=compose.refusal(text, passages),
            answerable=False,
            p_answerable=p_answerable,
            reason=reason,
            citations=(),
            passages=passages,
        )

    def _small_talk(self, run: _Run, topic: Topic, history: Sequence[Turn]) -> Answer:
        reply = ""
        if isinstance(self.reader, Chatter):
            with run.timed("read"):
                reply = self.reader.chat(run.question, history).strip()
        if not fitting(topic, reply, run.question):
            reply = fixed_reply(topic)
        return self._answer(
            run,
            answer=reply,
            display=reply,
            answerable=True,
            p_answerable=1.0,
            reason="chat",
            citations=(),
            passages=(),
        )

    def _answer(self, run: _Run, **fields: Any) -> Answer:
        run.timings["total"] = 1000 * (time.perf_counter() - run.started)
        return Answer(
            question=run.question,
            standalone_question=run.standalone,
            model=self.reader.id,
            generation=run.generation,
            run_id=run.run_id,
            timings_ms=dict(run.timings),
            **fields,
        )


def _cut(passages: Sequence[Passage], top_k: int) -> tuple[Passage, ...]:
    """The first ``top_k`` passages, fewer where merged ones are longer than so many windows."""
    kept: list[Passage] = []
    room = top_k * PASSAGE_CHARS
    for passage in passages[:top_k]:
        room -= len(passage.text)
        if kept and room < 0:
            break
        kept.append(passage)
    return tuple(kept)
