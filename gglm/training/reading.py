"""Labelled questions to training examples: crops around the answer, distractors, nulls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gglm import verdict
from gglm.tasks import MAX_QUESTION, MAX_TITLE, Array, Mask, layout
from gglm.tokenizer import EOS, Tokenizer
from gglm.training.corpus import read_jsonl
from gglm.training.spans import Example

Cut = Callable[[Array, tuple[int, int] | None, int, np.random.Generator], tuple[Array, tuple[int, int] | None]]
"""Part of a passage: `crop`, or `sentences` with its ``ends`` given."""
MAX_TARGET = 96
"""Tokens that the decoder has to write at most, [EOS] included."""


@dataclass(frozen=True)
class Question:
    """A question with its passage as token ids; ``span`` inclusive, None: not answered there."""

    question: Array
    title: Array
    passage: Array
    span: tuple[int, int] | None
    context: int
    """Number of the passage among the distinct ones, to keep it out of its own distractors."""
    answer: Array
    """What the decoder has to write, without [EOS]; empty: nothing."""
    verdict: float = -1.0
    """1: yes, 0: no, −1: no such question."""


def answer_span(row: dict[str, Any]) -> tuple[int, int] | None:
    """Code points ``start, end`` of the answer or, for answers in own words, of the evidence."""
    kind = row.get("type", "span")
    if not row.get("answerable", True) or kind == "unanswerable":
        return None
    answers = row.get("answers") or []
    if answers:
        text = answers[0]["text"]
        start = int(answers[0].get("start", row["context"].find(text)))  # −1: in own words
        if start >= 0:
            return start, start + len(text)
    evidence = row.get("evidence") or ""
    start = row["context"].find(evidence) if evidence else -1
    return (start, start + len(evidence)) if start >= 0 else None


def verdict_of(row: dict[str, Any]) -> float:
    """1 where the answer to a yes/no question begins with a yes, 0 with a no, −1 for anything else."""
    if row.get("type") != "yesno" or not row.get("answers"):
        return -1.0
    said = verdict.said(row["answers"][0]["text"])
    return -1.0 if said is None else float(said)


def load_questions(files: Sequence[Path], tokenizer: Tokenizer) -> tuple[list[Question], list[str]]:
    """Questions of CMRC-like JSON lines, and the distinct passages they were asked of.

    Rows whose answer has no place in the passage are left out.
    """
    numbers: dict[str, int] = {}
    encoded: list[tuple[Array, Array, Array]] = []
    out: list[Question] = []
    for file in files:
        for row in read_jsonl(file):
            context = row.get("context") or ""
            span = answer_span(row)
            if not context or (span is None and row.get("answerable", True)):
                continue
            if context not in numbers:
                numbers[context] = len(numbers)
                a, b, c = tokenizer.encode_with_offsets(context)
                encoded.append((a.astype(np.int64), b.astype(np.int64), c.astype(np.int64)))
            number = numbers[context]
            ids, starts, ends = encoded[number]
            where = None
            if span is not None:
                first = int(np.searchsorted(ends, span[0], "right"))
                last = int(np.searchsorted(starts, span[1], "left")) - 1
                if not first <= last < len(ids):
                    continue
                where = (first, last)
            answer = row["answers"][0]["text"] if where and row.get("answers") else ""
            question, title, target = (
                tokenizer.encode(text).astype(np.int64) for text in (row["question"], row.get("title") or "", answer)
            )
            out.append(Question(question, title, ids, where, number, target, verdict_of(row)))
    return out, list(numbers)


def hard_distractors(questions: Sequence[str], passages: Sequence[str], own: Sequence[int], k: int = 4) -> Array:
    """The ``k`` passages nearest to each question by character-bigram TF-IDF, its own left out: int64 (n, k)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    matrix = vectorizer.fit_transform(passages).T.tocsc()
    nearest = np.zeros((len(questions), k), np.int64)
    for start in range(0, len(questions), 256):
        part = slice(start, start + 256)
        scores = (vectorizer.transform(questions[part]) @ matrix).toarray()
        scores[np.arange(len(scores)), np.asarray(own[part])] = -1
        nearest[part] = np.argpartition(-scores, k, axis=1)[:, :k]
    return nearest


@dataclass(frozen=True)
class Passages:
    """How often a question is read over what; shares of the answered questions, the rest: its own passage.

    beside: its own passage and one or two others, one softmax over all of them; instead: only another
    one, so that «no answer» is right; elsewhere: share of those others that are a part of the same
    document without the answer, where there is one (else a hard distractor is taken); brief: share of
    all questions whose passages are a few whole sentences only, as a notice or a short document is.
    """

    beside: float = 0.2
    instead: float = 0.12
    elsewhere: float = 0.5
    brief: float = 0.0


BRIEF = (24, 200)
"""Tokens that the passages of a brief question have room for: drawn between these."""


class QuestionSampler:
    """Examples by number, the same for the same seed: epoch after epoch in a fresh order.

    Args:
        size: tokens of an input at most; longer passages are cropped around the answer at random.
        no_title: share of questions that lose their title.
        write: share of questions whose answer the decoder has to write.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        distractors: Array | None,
        passages: Sequence[Array],
        tokenizer: Tokenizer,
        seed: int,
        mix: Passages | None = None,
        no_title: float = 0.3,
        write: float = 0.0,
    ) -> None:
        self.questions, self.distractors, self.passages = questions, distractors, passages
        self.content, self.ends, self.seed = tokenizer.is_content, tokenizer.ends_sentence, seed
        self.mix, self.no_title, self.write = mix or Passages(), no_title, write
        self._order: tuple[int, Array] = (-1, np.zeros(0, np.int64))

    def order(self, epoch: int) -> Array:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, 7, epoch]).permutation(len(self.questions)))
        return self._order[1]

    def example(self, number: int, size: int) -> list[Example]:
        """Question ``number`` (any count from 0) with each passage that it is read over.

        ``size``: tokens of one input at most; several passages get three quarters of it each.
        """
        rng = np.random.default_rng([self.seed, 11, number])
        epoch, index = divmod(number, len(self.questions))
        which = int(self.order(epoch)[index])
        q = self.questions[which]
        title = q.title[:MAX_TITLE] if rng.random() >= self.no_title else q.title[:0]
        dice = rng.random() if q.span is not None else 1.0
        own, others = dice >= self.mix.instead, 0
        if not own:
            others = 1
        elif dice < self.mix.instead + self.mix.beside:
            others = 1 + int(rng.random() < 0.4)
        if others and own:
            size = size * 3 // 4
        room = size - min(len(q.question), MAX_QUESTION) - len(title) - 4
        cut: Cut = crop
        if rng.random() < self.mix.brief:
            room, cut = min(room, int(rng.integers(*BRIEF))), partial(sentences, ends=self.ends)
        read: list[tuple[Array, tuple[int, int] | None]] = [cut(q.passage, q.span, room, rng)] if own else []
        for _ in range(others):
            if (other := self._other(which, room, rng, cut)) is not None:
                read.append((other, None))
        if not read:
            read = [cut(q.passage, q.span, room, rng)]
        if len(read) > 1:
            rng.shuffle(read)
        rows = [reading_example(q.question, title, passage, span, self.content) for passage, span in read]
        for row in rows[1:]:
            row.same_question = True
        for row in rows:
            if row.relevant > 0:
                row.verdict = q.verdict
        if any(row.relevant > 0 for row in rows) and len(q.answer) and rng.random() < self.write:
            rows[0].target = np.append(q.answer[: MAX_TARGET - 1], EOS)
        return rows

    def _other(self, which: int, room: int, rng: np.random.Generator, cut: Cut) -> Array | None:
        """A passage that does not answer question ``which``: elsewhere in its document, or a hard distractor."""
        if rng.random() < self.mix.elsewhere and (away := elsewhere(self.questions[which], room, rng, cut)) is not None:
            return away
        if self.distractors is None:
            return None
        return cut(self.passages[int(rng.choice(self.distractors[which]))], None, room, rng)[0]


def elsewhere(
    question: Question, room: int, rng: np.random.Generator, cut: Cut | None = None, least: int = 60
) -> Array | None:
    """``least`` to ``room`` tokens of the question's passage that hold neither the answer nor its text again."""
    assert question.span is not None
    first, last = question.span
    parts = [p for p in (question.passage[:first], question.passage[last + 1 :]) if len(p) >= least]
    if not parts:
        return None
    part = parts[int(rng.integers(len(parts)))]
    away = (cut or crop)(part, None, min(room, max(least, len(part) - 20)), rng)[0]
    return None if holds(away, question.passage[first : last + 1]) else away


def holds(passage: Array, answer: Array) -> bool:
    """Does the answer occur in the passage?"""
    if len(answer) > len(passage):
        return False
    return bool((np.lib.stride_tricks.sliding_window_view(passage, len(answer)) == answer).all(-1).any())


def crop(
    passage: Array, span: tuple[int, int] | None, room: int, rng: np.random.Generator
) -> tuple[Array, tuple[int, int] | None]:
    """``room`` tokens of the passage at random, the span inside (its start at least, if it is longer)."""
    if len(passage) <= room:
        return passage, span
    if span is None:
        start = int(rng.integers(0, len(passage) - room + 1))
        return passage[start : start + room], None
    low, high = max(0, span[1] + 1 - room), min(span[0], len(passage) - room)
    start = int(rng.integers(low, high + 1)) if low <= high else min(span[0], len(passage) - room)
    cut = passage[start : start + room]
    return cut, (span[0] - start, min(span[1] - start, len(cut) - 1))


def sentences(
    passage: Array, span: tuple[int, int] | None, room: int, rng: np.random.Generator, *, ends: Mask
) -> tuple[Array, tuple[int, int] | None]:
    """Whole sentences of the passage, ``room`` tokens at most, the span inside; as `crop` where they are longer.

    ends: bool (vocabulary,), which ids end a sentence.
    """
    cut, inside = crop(passage, span, room, rng)
    if len(cut) == len(passage):
        return cut, inside
    last = np.flatnonzero(ends[passage])
    starts = np.unique(np.concatenate([[0], last[last < len(passage) - 1] + 1]))
    stops = np.append(starts[1:], len(passage))
    seed = span or (where := int(rng.integers(len(passage))), where)
    low = int(np.searchsorted(starts, seed[0], "right")) - 1
    high = int(np.searchsorted(starts, seed[1], "right")) - 1
    if stops[high] - starts[low] > room:
        return cut, inside
    sides = [True, True]
    while any(sides):
        left = bool(rng.random() < 0.5) if all(sides) else sides[0]
        a, b = (low - 1, high) if left else (low, high + 1)
        if a < 0 or b >= len(starts) or stops[b] - starts[a] > room:
            sides[0 if left else 1] = False
        else:
            low, high = a, b
    first = int(starts[low])
    return passage[first : stops[high]], None if span is None else (span[0] - first, span[1] - first)


def reading_example(
    question: Array, title: Array, passage: Array, span: tuple[int, int] | None, content: Mask
) -> Example:
    """Encoder input with its right span, and the null position where there is none."""
    encoded = layout("问答", question, title, passage, content)
    allowed = encoded.passage
    allowed[0] = True
    where = (0, 0) if span is None else (encoded.base + span[0], encoded.base + span[1])
    return Example(
        encoded.tokens, encoded.segments, encoded.matches, allowed, [(1, [where])], relevant=float(span is not None)
    )


def micro_batches(questions: Iterable[Sequence[Example]], rows: int) -> list[list[Example]]:
    """Batches of about ``rows``, a question's rows kept together, those of like length too (little padding)."""
    out: list[list[Example]] = []
    for question in sorted(questions, key=lambda rows: -max(len(e.tokens) for e in rows)):
        if not out or len(out[-1]) + len(question) > rows:
            out.append([])
        out[-1] += question
    return out


def longest_first(examples: Iterable[Example]) -> list[Example]:
    """Sorted by length, so that equal lengths share a micro-batch and little is padding."""
    return sorted(examples, key=lambda e: -len(e.tokens))
