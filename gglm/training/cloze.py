"""Questions as a person would ask them, made from plain text by rule, over one or several passages.

A sentence whose span recurs elsewhere in its window is taken out; its clause becomes the question
with a question word in the span's place («白云山庄始建于 ___。» → «白云山庄始建于哪一年？»), and what
is left of the window is the passage that answers it. Other passages beside it, or in its place,
share the question's rarest pair of tokens, as a search would find them. After Ram et al. 2021
(recurring spans), Lewis et al. 2019 (cloze translation) and Clark & Gardner 2018 (shared norm).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gglm.tasks import Array, layout
from gglm.tokenizer import Tokenizer
from gglm.training.corpus import Shards
from gglm.training.reading import holds
from gglm.training.spans import Example, Lexicon, mask_tokens, recurring, recurring_outside, sentences

_PLACES = "省市县区国州镇乡村岛山河湖海洋路街"
_PERSONS = "说道曰认为指出表示称写道出生去世任"
_LONGEST = 60
"""Tokens of a question at most: a clause or two."""


@dataclass(frozen=True)
class QuestionWords:
    """Token ids of the question words, and what tells which one fits."""

    what: tuple[Array, ...]
    who: Array
    where: tuple[Array, ...]
    which: Array
    amount: tuple[Array, ...]
    mark: Array
    digit: Array
    latin: Array
    place: Array
    person: Array
    date: Array

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> QuestionWords:
        def ids(text: str) -> Array:
            return tokenizer.encode(text).astype(np.int64)

        pieces = tokenizer.pieces

        def marked(test: str) -> Array:
            return np.array([len(p) == 1 and p in test for p in pieces])

        return cls(
            what=(ids("什么"), ids("哪个"), ids("哪种")), who=ids("谁"), where=(ids("哪里"), ids("什么地方")),
            which=ids("哪"), amount=(ids("多少"), ids("几")), mark=ids("？"),
            digit=np.array([p.isdecimal() and p.isascii() for p in pieces]),
            latin=np.array([p.isascii() and p.isalpha() for p in pieces]),
            place=marked(_PLACES), person=marked(_PERSONS), date=marked("年月日"),
        )  # fmt: skip

    def fitting(self, span: Array, after: Array, rng: np.random.Generator) -> Array:
        """The word that asks for ``span``, ``after`` being the tokens that follow it."""
        follows = int(after[0]) if len(after) else -1
        if self.digit[span].all():
            return self.which if follows >= 0 and self.date[follows] else _pick(self.amount, rng)
        if self.date[span[-1]] and self.digit[span[0]]:
            return np.concatenate([self.which, span[-1:]])  # 哪年, 哪月, 哪日
        if self.place[span[-1]]:
            return _pick(self.where, rng)
        if len(span) <= 3 and follows >= 0 and self.person[follows] and not self.latin[span].any():
            return self.who
        return _pick(self.what, rng)


def _pick(words: tuple[Array, ...], rng: np.random.Generator) -> Array:
    return words[int(rng.integers(len(words)))]


@dataclass(frozen=True)
class PairIndex:
    """Where pairs of neighbouring tokens stand in (a part of) the shards: sorted keys and their positions."""

    keys: Array
    positions: Array

    @classmethod
    def build(cls, shards: Shards, lexicon: Lexicon, tokens: int = 12_000_000) -> PairIndex:
        """Pairs of content tokens without stop words among the first ``tokens``; 16 bytes each."""
        ids = np.asarray(shards.ids[:tokens]).astype(np.int64)
        good = lexicon.content[ids] & ~lexicon.stop[ids]
        at = np.flatnonzero(good[:-1] & good[1:])
        key = ids[at] * 65_536 + ids[at + 1]
        order = np.argsort(key, kind="stable")
        return cls(key[order], at[order])

    def near(self, question: Array, shards: Shards, rng: np.random.Generator, size: int, away: int) -> Array | None:
        """A window of another document around the question's rarest pair, ``size`` tokens at most.

        Args:
            away: a position of the shards; its document is left out.
        """
        keys = np.unique(question[:-1] * 65_536 + question[1:])
        low, high = np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
        count = high - low
        for i in np.argsort(np.where(count > 0, count, np.iinfo(np.int64).max), kind="stable")[:3]:
            if not count[i]:
                continue
            for _ in range(4):
                at = int(self.positions[int(rng.integers(low[i], high[i]))])
                first, last = _document(shards, at)
                if first <= away < last or last - first < 60:
                    continue
                start = int(np.clip(at - int(rng.integers(0, size)), first, max(first, last - size)))
                return np.asarray(shards.ids[start : min(last, start + size)]).astype(np.int64)
        return None


def _document(shards: Shards, at: int) -> tuple[int, int]:
    d = int(np.searchsorted(shards.offsets, at, "right")) - 1
    return int(shards.offsets[d]), int(shards.offsets[d + 1])


@dataclass(frozen=True)
class Cloze:
    """A made question: token ids, the passage without its sentence, and every place of the answer in it."""

    question: Array
    passage: Array
    answers: list[tuple[int, int]]
    """Inclusive positions in ``passage``."""

    @property
    def answer(self) -> Array:
        first, last = self.answers[0]
        return self.passage[first : last + 1]


def natural_question(x: Array, lexicon: Lexicon, words: QuestionWords, rng: np.random.Generator) -> Cloze | None:
    """A question from a sentence of window x, or None if nothing in it recurs outside of it."""
    clusters = recurring(x, lexicon, rng)
    found = sentences(x, lexicon)
    for s in rng.permutation(len(found)):
        a, b = found[s]
        hits = recurring_outside(clusters, a, b)
        if not hits:
            continue
        length, at, outside = hits[int(rng.integers(len(hits)))]
        first, last = _clauses(x, a, b, at, at + length, lexicon, rng)
        word = words.fitting(x[at : at + length], x[at + length : b], rng)
        question = np.concatenate([x[first:at], word, x[at + length : last], words.mark])
        left = len(question) - len(word) - len(words.mark)
        if left < 5 or len(question) > _LONGEST:
            continue
        answers = [(p if p < a else p - (b - a)) for p in outside]
        passage = np.concatenate([x[:a], x[b:]])
        return Cloze(question, passage, [(p, p + length - 1) for p in answers])
    return None


def _clauses(
    x: Array, a: int, b: int, first: int, last: int, lexicon: Lexicon, rng: np.random.Generator
) -> tuple[int, int]:
    """The clause around ``first:last`` in the sentence ``a:b`` (its end mark left out), often with a neighbour."""
    cuts = a + np.flatnonzero(lexicon.clause_end[x[a:b]])
    before, after = cuts[cuts < first], cuts[cuts >= last]
    wider = int(rng.random() < 0.6)
    low = int(before[-1 - wider]) + 1 if len(before) > wider else a
    high = int(after[0]) if len(after) else b
    if high - low < 10 and len(after) > 1:
        high = int(after[1])
    return low, high


def question_rows(
    x: Array,
    at: int,
    shards: Shards,
    index: PairIndex,
    lexicon: Lexicon,
    words: QuestionWords,
    rng: np.random.Generator,
    size: int,
    *,
    beside: float = 0.3,
    instead: float = 0.2,
) -> list[Example] | None:
    """A made question with each passage that it is read over: one row each, all in one softmax.

    Args:
        x, at: a window and its position in the shards; size: tokens of a row at most.
        beside, instead: shares of questions with one or two other passages beside their own, or in its place.
    """
    cloze = natural_question(x, lexicon, words, rng)
    if cloze is None:
        return None
    dice = rng.random()
    own = dice >= instead
    others = 1 if not own else (1 + int(rng.random() < 0.4) if dice < instead + beside else 0)
    room = (size * 3 // 4 if own and others else size) - len(cloze.question) - 4
    read: list[tuple[Array, list[tuple[int, int]]]] = []
    if own:
        read.append(around(cloze, room, rng))
    for _ in range(others):
        other = index.near(cloze.question, shards, rng, room, at)
        if other is not None and not holds(other, cloze.answer):
            read.append((other, []))
    if not read:
        return None
    rng.shuffle(read)
    rows = [row(cloze.question, passage, spans, lexicon, rng) for passage, spans in read]
    for example in rows[1:]:
        example.same_question = True
    return rows


def around(cloze: Cloze, room: int, rng: np.random.Generator) -> tuple[Array, list[tuple[int, int]]]:
    """``room`` tokens of the passage with at least one answer inside, and the answers that are."""
    passage, answers = cloze.passage, cloze.answers
    if len(passage) <= room:
        return passage, answers
    first, last = answers[int(rng.integers(len(answers)))]
    start = int(rng.integers(max(0, last + 1 - room), min(first, len(passage) - room) + 1))
    inside = [(a - start, b - start) for a, b in answers if start <= a and b < start + room]
    return passage[start : start + room], inside


def row(
    question: Array, passage: Array, spans: list[tuple[int, int]], lexicon: Lexicon, rng: np.random.Generator
) -> Example:
    """The question over a passage that answers it in ``spans``, or nowhere; some other tokens are masked."""
    free = lexicon.content[passage].copy()
    for first, last in spans:
        free[first : last + 1] = False
    masked, where, labels = mask_tokens(passage, free, rng, len(lexicon.content), rate=0.08)
    encoded = layout("问答", question, np.zeros(0, np.int64), masked, lexicon.content)
    base = encoded.base
    allowed = encoded.passage
    allowed[0] = True
    slots = [(1, [(base + a, base + b) for a, b in spans] or [(0, 0)])]
    return Example(
        encoded.tokens, encoded.segments, encoded.matches, allowed, slots, where + base, labels,
        relevant=float(bool(spans)),
    )  # fmt: skip
