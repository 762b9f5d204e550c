"""Recurring-span selection: reading, copying and refusal learnt from plain text.

After Ram et al. 2021 (Splinter), for Chinese tokens and in the layout of 问答. Three forms:

- *slots*: in one window every occurrence but one of a recurring span becomes a [Q] slot that has
  to point at the one left;
- *cloze*: a sentence of the window is taken out as the question, its recurring spans are slots, and
  the rest of the window is the passage;
- *clause*: the question keeps a sentence whole; the answer is the clause of the passage that shares
  its rarest recurring span, so that long answers are learnt too.

For cloze and clause a share of the passages is swapped for another document's: then the null
position is right. All of them mask tokens of the passage as well.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from gglm.tasks import TASK_ID, Array, Mask, layout
from gglm.tokenizer import MASK, PARA, QUERY, SPECIAL, Tokenizer
from gglm.training.corpus import Shards

_STOP = (
    "的了是在和与及或也都而并但就不有为以于其这那之等中上下对被把从到由将可会能要个一我你他她它们此该即则所已又很还再更最"
    "只且若如因后前时年月日着过得地使让给向按每各种些次者"
)
_PRIME = np.uint64(1_000_003)


@dataclass
class Example:
    """One row of a batch. Arrays are int64; spans are inclusive token positions, (0, 0) is null.

    slots: (position of [Q], list of right spans) pairs; masked: positions whose ``labels`` are asked.
    """

    tokens: Array
    segments: Array
    matches: Array
    allowed: Mask
    slots: list[tuple[int, list[tuple[int, int]]]]
    masked: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    relevant: float = -1.0
    """1: the passage answers the question, 0: it does not, −1: not asked."""
    verdict: float = -1.0
    """1: it answers a yes/no question with yes, 0: with no, −1: not asked."""
    target: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    """What the decoder has to write, without [BOS]; empty: nothing."""
    copyable: Mask | None = None
    same_question: bool = False
    """Another passage for the question of the row before."""


@dataclass(frozen=True)
class Lexicon:
    """What the span finder knows of the vocabulary."""

    content: Mask
    stop: Mask
    sentence_end: Mask
    clause_end: Mask
    common: Array
    """Sorted keys of token pairs too frequent to name anything."""

    @classmethod
    def build(cls, tokenizer: Tokenizer, shards: Shards, sample: int = 6_000_000, frequent: float = 4e-4) -> Lexicon:
        size = len(tokenizer)
        pieces = tokenizer.pieces
        content = tokenizer.is_content & ~tokenizer.is_byte
        ids = np.asarray(shards.ids[:sample]).astype(np.int64)
        keys, counts = np.unique(ids[:-1] * 65_536 + ids[1:], return_counts=True)
        stop = np.array([p in _STOP and len(p) == 1 for p in pieces])
        ends = np.array([p in "。！？；\n" and len(p) == 1 for p in pieces])
        clauses = np.array([p in "，。！？；：\n、" and len(p) == 1 for p in pieces])
        assert len(content) == size
        return cls(content, stop, ends, clauses, np.sort(keys[counts > frequent * len(ids)]))


Cluster = tuple[int, list[int]]
"""Length and non-overlapping start positions of a span that occurs at least twice."""


def recurring(x: Array, lexicon: Lexicon, rng: np.random.Generator, longest: int = 10) -> list[Cluster]:
    """Maximal recurring spans of 2…``longest`` content tokens that neither start nor end with a stop word."""
    n = len(x)
    keep, stop, h = lexicon.content[x], lexicon.stop[x], x.astype(np.uint64)
    hashes, valid = [h], [keep]
    for length in range(2, min(longest, n) + 1):
        hashes.append(hashes[-1][:-1] * _PRIME + h[length - 1 :])
        valid.append(valid[-1][:-1] & keep[length - 1 :])
        if not valid[-1].any():
            break
    used = np.zeros(n, bool)
    found: list[Cluster] = []
    for length in range(len(hashes), 1, -1):
        ok = valid[length - 1] & ~stop[: n - length + 1] & ~stop[length - 1 :]
        at = np.flatnonzero(ok)
        if len(at) < 2:
            continue
        key = hashes[length - 1][at]
        order = np.argsort(key, kind="stable")
        key, at = key[order], at[order]
        edges = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1], [True]]))
        for a, b in itertools.pairwise(edges):
            if b - a < 2:
                continue
            starts: list[int] = []
            last = -length
            for p in at[a:b].tolist():
                if p >= last + length and not used[p : p + length].any():
                    starts.append(p)
                    last = p
            if not 2 <= len(starts) <= 8:
                continue
            if length == 2:
                pair = int(x[starts[0]]) * 65_536 + int(x[starts[0] + 1])
                i = int(np.searchsorted(lexicon.common, pair))
                if (i < len(lexicon.common) and lexicon.common[i] == pair) or rng.random() < 0.4:
                    continue
            for p in starts:
                used[p : p + length] = True
            found.append((length, starts))
    return found


def mask_tokens(
    x: Array, free: Mask, rng: np.random.Generator, vocab: int, rate: float = 0.12
) -> tuple[Array, Array, Array]:
    """Mask runs of 1–4 of the ``free`` positions; returns (masked x, positions, their true ids).

    A tenth of them become a random common token instead of [MASK], a twentieth stay.
    """
    hidden = np.zeros(len(x), bool)
    want = int(rate * free.sum())
    for _ in range(4 * want):
        if hidden.sum() >= want:
            break
        i, run = int(rng.integers(len(x))), (1, 2, 2, 3, 4)[int(rng.integers(5))]
        if free[i : i + run].all():
            hidden[i : i + run] = True
    at = np.flatnonzero(hidden)
    y, dice = x.copy(), rng.random(len(at))
    y[at[dice < 0.85]] = MASK
    swap = at[(dice >= 0.85) & (dice < 0.95)]
    y[swap] = rng.integers(len(SPECIAL) + 256, min(4000, vocab), len(swap))
    return y, at, x[at]


def slots_example(x: Array, lexicon: Lexicon, rng: np.random.Generator, budget: int = 14) -> Example | None:
    """The *slots* form of a window x, or None if nothing recurs in it."""
    clusters = recurring(x, lexicon, rng)
    if not clusters:
        return None
    order = rng.permutation(len(clusters))
    drop, free = np.zeros(len(x), bool), lexicon.content[x].copy()
    slot_of: dict[int, tuple[int, int]] = {}
    for c in order:
        length, starts = clusters[c]
        if len(slot_of) >= budget:
            break
        keep = int(rng.integers(len(starts)))
        for i, p in enumerate(starts):
            free[p : p + length] = False
            if i != keep and len(slot_of) < budget:
                drop[p + 1 : p + length] = True
                slot_of[p] = (starts[keep], length)
    y, masked, labels = mask_tokens(x, free & ~drop, rng, len(lexicon.content))
    y[list(slot_of)] = QUERY
    shift = np.cumsum(~drop) + 1  # position of x[i] in the output: two prefix tokens come first
    tokens = np.concatenate([[TASK_ID["预训"], PARA], y[~drop]])
    allowed = np.ones(len(tokens), bool)
    allowed[:2] = False
    allowed[tokens == QUERY] = False
    slots = [
        (int(shift[p]), [(int(shift[s]), int(shift[s]) + length - 1)]) for p, (s, length) in sorted(slot_of.items())
    ]
    return Example(
        tokens, np.full(len(tokens), 2), np.zeros(len(tokens), np.int64), allowed, slots, shift[masked], labels
    )


def sentences(x: Array, lexicon: Lexicon, low: int = 12, high: int = 90) -> list[tuple[int, int]]:
    """Sentences of x, ``low`` to ``high`` tokens long, the end mark included."""
    cuts = np.concatenate([[0], np.flatnonzero(lexicon.sentence_end[x]) + 1, [len(x)]]).tolist()
    return [(a, b) for a, b in itertools.pairwise(cuts) if low <= b - a <= high]


def recurring_outside(clusters: list[Cluster], a: int, b: int) -> list[tuple[int, int, list[int]]]:
    """(length, start in ``a:b``, starts outside) of the spans that stand once in the sentence and elsewhere too."""
    hits = []
    for length, starts in clusters:
        inside = [p for p in starts if a <= p and p + length <= b]
        outside = [p for p in starts if p + length <= a or p >= b]
        if len(inside) == 1 and outside:
            hits.append((length, inside[0], outside))
    return hits


def question_example(
    x: Array, other: Array | None, lexicon: Lexicon, rng: np.random.Generator, clause: bool
) -> Example | None:
    """The *cloze* or *clause* form of window x; ``other``, if given, replaces the passage: null is right."""
    clusters = recurring(x, lexicon, rng)
    found = sentences(x, lexicon)
    if not clusters or not found:
        return None
    for s in rng.permutation(len(found)):
        a, b = found[s]
        if hits := recurring_outside(clusters, a, b):
            break
    else:
        return None
    passage = np.concatenate([x[:a], x[b:]])

    def moved(p: int) -> int:
        return p if p < a else p - (b - a)

    answers: list[list[tuple[int, int]]] = []
    if clause:
        length, _, outside = max(hits)
        at = moved(outside[int(rng.integers(len(outside)))])
        ends = lexicon.sentence_end if rng.random() < 0.4 else lexicon.clause_end
        cuts = np.flatnonzero(ends[passage])
        first = int(cuts[cuts < at].max(initial=-1)) + 1
        after = cuts[cuts >= at + length - 1]
        last = int(after.min(initial=len(passage))) - 1
        if not 4 <= last - first + 1 <= 90:
            return None
        question, positions = x[a:b], [1]
        answers.append([(first, last)])
    else:
        chosen = sorted((hits[i] for i in rng.permutation(len(hits))[: 1 + int(rng.integers(3))]), key=lambda h: h[1])
        parts, positions, cursor, size = [], [], a, 0
        for length, at, outside in chosen:
            parts += [x[cursor:at], np.array([QUERY])]
            size += at - cursor
            positions.append(2 + size)
            size += 1
            cursor = at + length
            answers.append([(moved(p), moved(p) + length - 1) for p in outside])
        parts.append(x[cursor:b])
        question = np.concatenate(parts)
    free = lexicon.content[passage].copy()
    for spans in answers:
        for first, last in spans:
            free[first : last + 1] = False
    if other is not None:
        passage, answers = other, [[] for _ in answers]
        free = lexicon.content[passage].copy()
    y, masked, labels = mask_tokens(passage, free, rng, len(lexicon.content))
    if len(question) > 94:
        return None
    encoded = layout("问答", question, np.zeros(0, np.int64), y, lexicon.content)
    base = encoded.base
    slots = [
        (slot, [(base + f, base + t) for f, t in spans] or [(0, 0)])
        for slot, spans in zip(positions, answers, strict=True)
    ]
    allowed = encoded.passage
    allowed[0] = True
    return Example(
        encoded.tokens, encoded.segments, encoded.matches, allowed, slots, masked + base, labels,
        relevant=float(other is None),
    )  # fmt: skip


def window(shards: Shards, rng: np.random.Generator, size: int) -> tuple[Array, int]:
    """A random stretch of at most ``size`` tokens of one document, long documents likelier; and where it starts."""
    while True:
        at = int(rng.integers(shards.offsets[-1]))
        d = int(np.searchsorted(shards.offsets, at, "right")) - 1
        first, last = int(shards.offsets[d]), int(shards.offsets[d + 1])
        if last - first < 100:
            continue
        size = min(size, last - first)
        start = int(rng.integers(first, last - size + 1))
        return np.asarray(shards.ids[start : start + size]).astype(np.int64), start
