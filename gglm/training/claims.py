"""Yes/no questions made from plain text by rule: a clause as it stands, or with something in it changed.

A clause becomes «…吗？». For «no» its figure, a name in it or its polarity is another («退款需三日» → «退款需五日吗？»,
«不可以转让» → «可以转让吗？»), for «yes» it says what the text says. The window around the clause is the passage,
the clause the evidence, and the verdict head has to tell which it was. After FactCC (Kryściński et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gglm.tasks import Array, Mask
from gglm.tokenizer import Tokenizer
from gglm.training.cloze import Cloze, around, row
from gglm.training.spans import Example, Lexicon, recurring

_SHORTEST, _LONGEST = 7, 40
"""Tokens of a clause."""
_CHOICE = 0.3
"""Share of questions on a modal that ask «能不能» instead of «能…吗»."""
Changed = tuple[Array, Array] | None
"""The clause in a wording that the text bears out, and in one that it does not (either may be the clause itself)."""


@dataclass(frozen=True)
class ClaimWords:
    """Token ids that polarity hangs on."""

    no: Array
    modal: Array
    ask: Array
    digit: Mask
    digits: Array

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ClaimWords:
        def ids(text: str) -> Array:
            return tokenizer.encode(text).astype(np.int64)

        digit = np.array([p.isdecimal() and p.isascii() for p in tokenizer.pieces])
        return cls(ids("不没未"), ids("能可会需是要应必有得许允"), ids("吗？"), digit, np.flatnonzero(digit))


def claim_row(
    x: Array, lexicon: Lexicon, words: ClaimWords, rng: np.random.Generator, size: int
) -> list[Example] | None:
    """A made question over its window x, ``size`` tokens at most; None where no clause lends itself."""
    clauses = _clauses(x, lexicon)
    ways: list[Callable[[Array], Changed]] = [
        lambda c: _polarity(c, words),
        lambda c: _figure(c, x, words, rng),
        lambda c: _name(c, x, lexicon, rng),
    ]
    for number in rng.permutation(len(clauses)):
        first, last = clauses[number]
        clause = x[first:last]
        for way in rng.permutation(len(ways)):
            made = ways[way](clause)
            if made is None or (way and np.isin(clause, words.no).any()):  # «…不…吗？» can be answered both ways
                continue
            true, false = made
            negated = way == 0 and len(true) > len(false)  # the text says no; asked without the «not»
            yes = not negated if way == 0 else bool(rng.random() < 0.5)
            question = _asked(true if yes else false, words, rng, choice=way == 0)
            cloze = Cloze(question, x, [(first, last - 1)])
            passage, spans = around(cloze, size - len(question) - 4, rng)
            example = row(question, passage, spans, lexicon, rng)
            example.verdict = float(yes)
            return [example]
    return None


def _clauses(x: Array, lexicon: Lexicon) -> list[tuple[int, int]]:
    cuts = [-1, *np.flatnonzero(lexicon.clause_end[x]).tolist(), len(x)]
    return [(a + 1, b) for a, b in pairwise(cuts) if _SHORTEST < b - a <= _LONGEST]


def _polarity(clause: Array, words: ClaimWords) -> Changed:
    """With and without the «not» before its modal; a clause without one is its own affirmative."""
    modal = np.isin(clause, words.modal)
    denied = np.flatnonzero(np.isin(clause[:-1], words.no) & modal[1:])
    if len(denied) == 1:
        return clause, np.delete(clause, denied[0])
    if not len(denied) and modal.sum() == 1 and not np.isin(clause, words.no).any():
        return clause, clause
    return None


def _figure(clause: Array, x: Array, words: ClaimWords, rng: np.random.Generator) -> Changed:
    """Its number beside another one of the window or, where there is none, one of as many digits."""
    own = _runs(words.digit[clause])
    if not own:
        return None
    a, b = own[int(rng.integers(len(own)))]
    others = [x[c:d] for c, d in _runs(words.digit[x]) if abs((d - c) - (b - a)) <= 1]
    others = [o for o in others if not np.array_equal(o, clause[a:b])]
    if others and rng.random() < 0.7:
        other = others[int(rng.integers(len(others)))]
    else:
        other = clause[a:b].copy()
        other[int(rng.integers(len(other)))] = rng.choice(words.digits)
        if np.array_equal(other, clause[a:b]):
            return None
    return clause, np.concatenate([clause[:a], other, clause[b:]])


def _name(clause: Array, x: Array, lexicon: Lexicon, rng: np.random.Generator) -> Changed:
    """A recurring span of the window beside another one that the clause does not hold."""
    spans = [x[at[0] : at[0] + n] for n, at in recurring(x, lexicon, rng, longest=6)]
    inside = [(s, at) for s in spans if (at := _find(clause, s)) >= 0]
    outside = [s for s in spans if _find(clause, s) < 0]
    if not inside or not outside:
        return None
    span, at = inside[int(rng.integers(len(inside)))]
    alike = [o for o in outside if abs(len(o) - len(span)) <= 1]
    if not alike:
        return None
    other = alike[int(rng.integers(len(alike)))]
    return clause, np.concatenate([clause[:at], other, clause[at + len(span) :]])


def _asked(claim: Array, words: ClaimWords, rng: np.random.Generator, choice: bool) -> Array:
    """«…吗？», or «能不能…？» at a lone modal; now and then a token at an end is left out."""
    low, high = int(rng.random() < 0.3), len(claim) - int(rng.random() < 0.2)
    modal = np.flatnonzero(np.isin(claim, words.modal))
    if choice and len(modal) and low <= modal[0] < high and rng.random() < _CHOICE:
        at = int(modal[0])
        parts = [claim[low : at + 1], words.no[:1], claim[at : at + 1], claim[at + 1 : high], words.ask[-1:]]
        return np.concatenate(parts)
    return np.concatenate([claim[low:high], words.ask])


def _runs(flag: Mask) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flag, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _find(x: Array, part: Array) -> int:
    """Where a part begins, −1: nowhere."""
    if len(part) > len(x):
        return -1
    hit = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(x, len(part)) == part).all(-1))
    return int(hit[0]) if len(hit) else -1
