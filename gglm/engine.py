"""CPU inference: questions and sources in, answers with provenance out.

Weights are loaded once; every call is free of state, so threads may share an engine. Windows of all
requests of a batch are sorted by length and encoded together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gglm import followup, generate, render, summary, translation
from gglm.coverage import coverage
from gglm.errors import WeightsError
from gglm.expected import fitted
from gglm.model import Memory
from gglm.quantize import quantize
from gglm.reading import Decoded, Part, Spans, TokenizedSource, Window, decode, merge, windows
from gglm.tasks import Task, encode_task, encode_writing, pad_batch
from gglm.tokenizer import EOS
from gglm.types import Generation, Piece, Reading, SamplingOptions, Source, SpanCandidate, Translation, Turn
from gglm.weights import Answerability, ReaderSettings, Weights, load

SUMMARY = SamplingOptions(max_tokens=220)
"""Its length is that of an extracted summary too, in characters."""
Request = tuple[str, Sequence[Source], Sequence[Turn]]
BATCH_TOKENS = 4096
"""Tokens encoded at once: enough to keep one core busy, little enough to stay in memory."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A question and what the model says of each of its sources (None: it has no text)."""

    question: str
    sources: tuple[TokenizedSource, ...]
    spans: tuple[Spans | None, ...]

    def of(self, chosen: slice) -> Scored:
        """The same question over some of the sources: each was encoded by itself, so nothing is read anew."""
        return Scored(self.question, self.sources[chosen], self.spans[chosen])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Raw scores of one question, before calibration; what `gglm.calibration` fits to."""

    decoded: Decoded
    relevance: tuple[float, ...]
    """Logit of each source; −inf where it has no text."""
    candidates: tuple[SpanCandidate, ...]
    """The decoded ones or, where the question asks for a figure, the one that holds it and others of its form."""
    verdict: float = 0.0
    """Logit of yes (for yes/no questions) by the source that the best span lies in."""
    belief: float = 1.0
    """What p_answerable is multiplied with: `MISFIT`, or 1."""
    coverage: float = 0.0
    """How much of the question the sentence of the answer names, 0…1."""

    @property
    def best_relevance(self) -> float:
        """Logit of the source that the best span lies in."""
        if not self.decoded.candidates:
            return -30.0
        return self.relevance[self.decoded.candidates[0].span.source]


class Engine:
    """A generator ready for use; make one with `Engine.load`."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.model = weights.model
        self.tokenizer = weights.tokenizer
        self.settings: ReaderSettings = weights.reader

    @classmethod
    def load(cls, folder: Path | None = None, threads: int = 1, int8: bool = False) -> Engine:
        """Load a weights folder, the shipped one by default.

        Args:
            threads: for torch, process-wide; one is best where anything else runs.
            int8: quantise the projections (`gglm.quantize`).

        Raises:
            WeightsError: the folder is missing or damaged.
        """
        torch.set_num_threads(threads)
        weights = load(folder)
        if int8:
            weights = replace(weights, model=quantize(weights.model))
        return cls(weights)

    @property
    def id(self) -> str:
        """Name of the weights, e.g. ``gglm-small-0.1``."""
        return self.weights.name

    @property
    def answerable_threshold(self) -> float:
        """Of one source. Calibrated: refuses at most 10 % of answerable development questions."""
        return self.threshold(1)

    def threshold(self, sources: int, found: bool = False) -> float:
        """Below this p_answerable a question counts as not answered by so many sources."""
        return self._answerability(sources, found).threshold

    def _answerability(self, sources: int, found: bool) -> Answerability:
        if found and self.settings.found is not None:
            return self.settings.found
        return self.settings.alone if sources < 2 else self.settings.several

    def can(self, task: Task) -> bool:
        """Was the decoder trained well enough for this task?"""
        return task in self.weights.tasks

    # Reading

    def read(
        self, question: str, sources: Sequence[Source], history: Sequence[Turn] = (), found: bool = False
    ) -> Reading:
        """Answer a question from its sources. Never raises on odd text.

        Args:
            found: a search found the sources, so they may have nothing to do with the question. Without it
                they were chosen for the question (closed reading), and refusing is rarer.
        """
        return self.read_batch([(question, sources, history)], found)[0]

    def read_batch(self, requests: Sequence[Request], found: bool = False) -> list[Reading]:
        """`read` for many questions: their windows share batches. Same results, whatever the batch."""
        plain = [(self._stand_alone(q, h), s) for q, s, h in requests]
        return [self._reading(evidence, found) for evidence in self.evidence(plain)]

    def relevance(self, question: str, sources: Sequence[Source]) -> list[float]:
        """Probability that each source answers the question, 0…1; 0 for an empty text."""
        (evidence,) = self.evidence([(question, sources)])
        return [self._relevance(logit) for logit in evidence.relevance]

    def evidence(self, questions: Sequence[tuple[str, Sequence[Source]]]) -> list[Evidence]:
        """Raw span and relevance scores of each question over its sources."""
        return [self.judge(scored) for scored in self.score(questions)]

    def score(self, questions: Sequence[tuple[str, Sequence[Source]]]) -> list[Scored]:
        """Every source of each question, encoded with it."""
        tokenized = [[TokenizedSource.of(self.tokenizer, s) for s in sources] for _, sources in questions]
        jobs: list[tuple[int, Window]] = []
        for number, ((question, _), sources) in enumerate(zip(questions, tokenized, strict=True)):
            size, overlap, least = self.model.config.window, self.settings.overlap, self.settings.repeat_below
            jobs += [(number, w) for w in windows("问答", self.tokenizer, question, sources, size, overlap, least)]
        parts: dict[tuple[int, int], list[Part]] = {}
        order = sorted(range(len(jobs)), key=lambda i: len(jobs[i][1].encoded.tokens))
        for batch in _batches(order, [len(w.encoded.tokens) for _, w in jobs]):
            start, end, *judged = self._score([jobs[i][1] for i in batch])
            for row, i in enumerate(batch):
                number, window = jobs[i]
                edges = window.of_passage(start[row]), window.of_passage(end[row])
                scores = (*edges, start[row, 0], end[row, 0], *(j[row] for j in judged))
                parts.setdefault((number, window.index), []).append(Part(window, *scores))
        scored = []
        for number, sources in enumerate(tokenized):
            spans = tuple(
                merge(len(s.ids), parts[number, i], self.settings.source_weight) if (number, i) in parts else None
                for i, s in enumerate(sources)
            )
            scored.append(Scored(questions[number][0], tuple(sources), spans))
        return scored

    def judge(self, scored: Scored) -> Evidence:
        """The best answer over all sources together."""
        spans, texts = scored.spans, [s.source for s in scored.sources]
        decoded = decode(scored.sources, spans, self.settings.max_answer_tokens)
        candidates, belief = fitted(scored.question, texts, decoded.candidates)
        relevant = tuple(s.relevance if s else -np.inf for s in spans)
        source = spans[decoded.candidates[0].span.source] if decoded.candidates else None
        verdict = source.verdict if source else 0.0
        return Evidence(decoded, relevant, candidates, verdict, belief, _covered(scored.question, texts, candidates))

    @torch.inference_mode()
    def _score(self, batch: Sequence[Window]) -> tuple[np.ndarray, ...]:
        """Start and end logits (B, L), relevance and verdict logits (B,)."""
        hidden, _, passage = self._encode(batch)
        start, end = self.model.span_logits(hidden, passage)
        judged = self.model.relevance_logits(hidden), self.model.verdict_logits(hidden)
        return start.numpy(), end.numpy(), *(logits.numpy() for logits in judged)

    def _encode(self, batch: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (B, L, D), tokens (B, L), passage mask (B, L)."""
        tokens, segments, matches, passage = map(torch.from_numpy, pad_batch([w.encoded for w in batch]))
        return self.model.encode(tokens, segments, matches), tokens, passage

    def p_answerable(self, evidence: Evidence, found: bool = False) -> float:
        """Calibrated probability that the sources answer the question; of ``found`` ones, that the answer is right."""
        if not evidence.decoded.candidates:
            return 0.0
        a, best = self._answerability(len(evidence.relevance), found), evidence.decoded
        logit = a.margin * best.margin + a.relevance * evidence.best_relevance + a.certainty * best.certainty
        return evidence.belief * _sigmoid(logit + a.coverage * evidence.coverage + a.bias)

    def _relevance(self, logit: float) -> float:
        return _sigmoid(logit / self.settings.relevance_temperature + self.settings.relevance_bias)

    def _reading(self, evidence: Evidence, found: bool) -> Reading:
        p, candidates = self.p_answerable(evidence, found), evidence.candidates
        pieces = (Piece(candidates[0].text, candidates[0].span),) if candidates else ()
        return Reading(
            answer=pieces[0].text if pieces else "",
            kind="span",
            pieces=pieces,
            answerable=bool(pieces) and p >= self.threshold(len(evidence.relevance), found),
            p_answerable=p,
            confidence=p * evidence.decoded.certainty,
            relevance=tuple(self._relevance(logit) for logit in evidence.relevance),
            candidates=candidates,
            p_yes=(p_yes := _sigmoid(evidence.verdict)),
            verdict=p_yes >= 0.5 if max(p_yes, 1 - p_yes) >= self.settings.verdict else None,
        )

    # Writing

    def rewrite(self, question: str, history: Sequence[Turn]) -> str:
        """The question made to stand alone by the decoder; unchanged where the weights cannot."""
        if not history or not self.can("改写"):
            return question
        written = self.write("改写", question, history, options=SamplingOptions(max_tokens=96))
        return written.text.strip() or question

    def _stand_alone(self, question: str, history: Sequence[Turn]) -> str:
        if not history or not followup.depends(question):
            return question
        rewritten = self.rewrite(question, history)
        return rewritten if rewritten != question else followup.stand_alone(question, history)

    def summarize(self, text: str, options: SamplingOptions | None = None) -> Generation:
        """A summary: written where the decoder is good enough, else the most central sentences."""
        if self.can("摘要"):
            return self.write("摘要", "", (), [Source(text)], options or SUMMARY)
        pieces = summary.extract(text, max_chars=(options or SUMMARY).max_tokens)
        written = "".join(p.text for p in pieces)
        return Generation(written, pieces, "stop", len(self.tokenizer.encode(written)))

    def translate(
        self,
        text: str,
        options: SamplingOptions | None = None,
        direction: Literal["zh-en", "en-zh"] = "zh-en",
        advance: Callable[[int], object] = int,
    ) -> Translation:
        """Translation, sentence by sentence (experimental).

        Args:
            advance: is told how many code points of the text are done.

        Raises:
            WeightsError: these weights hold no trained translation.
        """
        return translation.collect(self._translate(text, options, direction), advance)

    def chat(self, message: str, history: Sequence[Turn] = (), options: SamplingOptions | None = None) -> Generation:
        """Small talk and questions about ChatGGLM itself.

        Raises:
            WeightsError: these weights hold no trained chat.
        """
        self._need("对话")
        return self.write("对话", message, history, options=options)

    def stream_chat(
        self, message: str, history: Sequence[Turn] = (), options: SamplingOptions | None = None
    ) -> Iterator[Piece]:
        """`chat`, piece by piece."""
        self._need("对话")
        return self.stream("对话", message, history, options=options)

    def stream_summarize(self, text: str, options: SamplingOptions | None = None) -> Iterator[Piece]:
        """`summarize`, piece by piece."""
        if self.can("摘要"):
            yield from self.stream("摘要", "", (), [Source(text)], options or SUMMARY)
        else:
            yield from summary.extract(text, max_chars=(options or SUMMARY).max_tokens)

    def stream_translate(
        self,
        text: str,
        options: SamplingOptions | None = None,
        direction: Literal["zh-en", "en-zh"] = "zh-en",
    ) -> Iterator[Piece]:
        """`translate`, a sentence's pieces at a time; line breaks stay where they are."""
        return (piece for part in self._translate(text, options, direction) for piece in part.pieces)

    def _translate(
        self, text: str, options: SamplingOptions | None, direction: Literal["zh-en", "en-zh"]
    ) -> Iterator[translation.Part]:
        task: Task = "翻译" if direction == "zh-en" else "英译中"
        self._need(task)

        def write(part: str) -> Generation:
            return self.write(task, "", (), [Source(part)], options or translation.OPTIONS)

        return translation.translate(text, write, spaced=task == "翻译")

    def _need(self, task: Task) -> None:
        if not self.can(task):
            raise WeightsError(
                f"The weights {self.id} have no trained decoder for {task}. "
                "Train it (`chatgglm train finetune`) or load other weights (CHATGGLM_READER_WEIGHTS)."
            )

    @torch.inference_mode()
    def memory(
        self, task: Task, question: str, sources: Sequence[Source], max_windows: int = 4
    ) -> tuple[Memory, render.Origins]:
        """What the decoder reads: windows end to end (the first ``max_windows``), and their origins."""
        tokenized = [TokenizedSource.of(self.tokenizer, s) for s in sources]
        size, overlap = self.model.config.window, self.settings.overlap
        batch = windows(task, self.tokenizer, question, tokenized, size, overlap)[:max_windows]
        if not batch:
            batch = [Window(0, 0, 0, encode_task(task, self.tokenizer, question, "", ""))]
        memory = self._memory(batch, [w.encoded.passage for w in batch], answering=task == "问答")
        return memory, render.Origins.of(batch, tokenized)

    @torch.inference_mode()
    def memory_of_talk(self, task: Task, message: str, history: Sequence[Turn]) -> tuple[Memory, render.Origins]:
        """What the decoder reads in 对话 and 改写; what it copies there is no source to quote."""
        encoded, copyable = encode_writing(task, self.tokenizer, message, history)
        window = Window(0, 0, 0, encoded)
        return self._memory([window], [copyable], answering=False), render.Origins.of([window], [])

    def _memory(self, batch: Sequence[Window], copyable: Sequence[npt.NDArray[np.bool_]], answering: bool) -> Memory:
        """Windows end to end, none of them padded; as in training, only 问答 starts where the span head says."""
        parts = []
        for window in batch:
            hidden, tokens, passage = self._encode([window])
            parts.append((hidden, tokens, self.model.span_logits(hidden, passage)[0]))
        hidden, tokens, start = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return Memory(
            hidden=hidden,
            tokens=tokens,
            readable=torch.ones_like(tokens, dtype=torch.bool),
            copyable=torch.from_numpy(np.concatenate(copyable))[None],
            first=start.log_softmax(-1) if answering else None,
        )

    def _rules(self, task: Task) -> generate.Rules:
        """In 问答 digits and Latin words can only be copied."""
        copy_only = torch.from_numpy(self.tokenizer.copy_only) if task == "问答" else None
        return generate.Rules.standard(len(self.tokenizer), self.model.config.vocab_size, copy_only)

    def write(
        self, task: Task, text: str, history: Sequence[Turn] = (), sources: Sequence[Source] = (),
        options: SamplingOptions | None = None,
    ) -> Generation:  # fmt: skip
        """Whatever the decoder writes for a task, trained for it or not.

        Args:
            text: message or question; empty where the task reads ``sources`` only.
        """
        options = options or SamplingOptions()
        memory, origins = self._prepare(task, text, history, sources)
        steps = generate.generate(self.model, memory, options, self._rules(task))
        stop = render.StopFilter(options.stop)
        pieces = render.join(stop(render.tokens_to_pieces(steps, self.tokenizer, origins, sources)))
        ended = stop.stopped or (bool(steps) and steps[-1].token == EOS)
        certainty = float(np.exp(np.mean([step.log_prob for step in steps]))) if steps else 1.0
        text = "".join(p.text for p in pieces)
        return Generation(text, pieces, "stop" if ended else "length", len(steps), certainty)

    def stream(
        self, task: Task, text: str, history: Sequence[Turn] = (), sources: Sequence[Source] = (),
        options: SamplingOptions | None = None,
    ) -> Iterator[Piece]:  # fmt: skip
        """`write`, token by token as they are chosen (no beams)."""
        options = options or SamplingOptions()
        memory, origins = self._prepare(task, text, history, sources)
        steps = generate.stream(self.model, memory, options, self._rules(task))
        pieces = render.tokens_to_pieces(steps, self.tokenizer, origins, sources)
        yield from render.StopFilter(options.stop)(pieces)

    def _prepare(
        self, task: Task, text: str, history: Sequence[Turn], sources: Sequence[Source]
    ) -> tuple[Memory, render.Origins]:
        if task in ("对话", "改写"):
            return self.memory_of_talk(task, text, history)
        return self.memory(task, text, sources)


def _batches(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cuts an order by length into batches of equal length, at most `BATCH_TOKENS` together.

    Nothing is padded: a result never depends on what else is in the batch, and one CPU core gains
    nothing from filling up.
    """
    batch: list[int] = []
    for i in order:
        full = (len(batch) + 1) * lengths[i] > BATCH_TOKENS
        if batch and (full or lengths[i] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _covered(question: str, sources: Sequence[Source], candidates: Sequence[SpanCandidate]) -> float:
    if not candidates:
        return 0.0
    span = candidates[0].span
    source = sources[span.source]
    return coverage(question, source.title, source.text, span)


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -60, 60))))
