"""From the results of both indexes to one ranking: words, meaning, and how well one sentence covers the question.

The weights, what they were chosen on, and what else was tried: docs/decisions/008.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.index.terms import Keys, normal_form, term_places
from rag.ports import FloatMatrix, IdArray, LexicalIndex, VectorStore

DENSE_WEIGHT = 0.5
"""Weight of the cosine as a share of the best one, beside the BM25 score as a share of the best one."""
FOCUS_WEIGHT = 0.75
"""Weight of what one sentence of the passage covers of the question (`Focus`), beside the BM25 share."""
FOCUSED = 8
"""Passages, at most, whose sentences are looked at."""
_SENTENCE_END = re.compile("[。!?;\n]")  # in normal form, where ！？； are these
Scored = Mapping[int, float]


def by_id(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[int, float]:
    """The result of one search, best first; −1, which stands for nothing, left out."""
    return {i: s for i, s in zip(ids.ravel().tolist(), scores.ravel().tolist(), strict=True) if i >= 0}


def search_both(
    query: str,
    vector: FloatMatrix,
    lexical: LexicalIndex,
    vectors: VectorStore,
    k: int,
    allowed: IdArray | None = None,
) -> tuple[dict[int, float], dict[int, float], bool]:
    """BM25 and cosine by id, and whether neither index has more than the ``k`` it brought in.

    What only the words found has its cosine too: the nearest ``k`` come first, then those.
    """
    words = by_id(*lexical.search(query, k, allowed=allowed))
    meaning = by_id(*vectors.search(vector[None, :], k, allowed=allowed))
    exhausted = len(words) < k and len(meaning) < k
    others = np.array([i for i in words if i not in meaning], dtype=np.int64)
    cosines = vectors.cosines(vector, others).tolist() if len(others) else []
    meaning |= {i: c for i, c in zip(others.tolist(), cosines, strict=True) if c == c}
    return words, meaning, exhausted


def fuse(searches: Sequence[tuple[float, Scored, Scored]]) -> dict[int, float]:
    """Weighted scores, 0…1, of (weight of the query, BM25 by id, cosine by id).

    A convex combination (Bruch, Gai & Ingber 2023) of both as shares of the query's best. What one
    search did not bring in counts 0 there.
    """
    fused: dict[int, float] = {}
    total = sum(weight for weight, _, _ in searches) * (1 + DENSE_WEIGHT)
    for weight, lexical, dense in searches:
        best = max(lexical.values(), default=0.0) or 1.0
        nearest = max(0.0, max(dense.values(), default=0.0)) or 1.0
        for chunk_id in lexical.keys() | dense.keys():
            score = lexical.get(chunk_id, 0.0) / best + DENSE_WEIGHT * max(0.0, dense.get(chunk_id, 0.0)) / nearest
            fused[chunk_id] = fused.get(chunk_id, 0.0) + weight * score / total
    return fused


def order(scored: Scored) -> list[int]:
    """Ids by falling score, equal ones ascending."""
    return sorted(scored, key=lambda i: (-scored[i], i))


class Sentences:
    """The terms of some passages, (context, text) each, by sentence; the context, title and heading, is one."""

    def __init__(self, passages: Sequence[tuple[str, str]]) -> None:
        parts, starts, at = [], [], 0
        for context, text in passages:
            starts.append(at)
            parts.append(f"{_SENTENCE_END.sub(' ', normal_form(context))}\n{normal_form(text)}\n")
            at += len(parts[-1])
        joined = "".join(parts)
        ends = np.array([match.end() for match in _SENTENCE_END.finditer(joined)], dtype=np.int64)
        self.count = len(ends)
        self.first = np.searchsorted(ends, np.array(starts, dtype=np.int64), side="right")
        """Number of the sentence that is a passage's context, (n,)."""
        self.keys, places = term_places(joined)
        self.sentence = np.searchsorted(ends, places, side="right")
        """Where each term stands."""


@dataclass(frozen=True, eq=False)
class Focus:
    """How much of a question a single sentence covers: passages that speak of everything asked in one
    place come before those that speak of it here and there."""

    keys: Keys
    """The question's terms that the index knows, ascending, each once."""
    worth: FloatMatrix
    """What each is worth (`LexicalIndex.worth`), adding up to 1."""

    @classmethod
    def of(cls, question: str, lexical: LexicalIndex) -> Focus:
        """For a question to an index."""
        keys, worth = lexical.worth(question)
        total = float(worth.sum())
        return cls(keys, worth / np.float32(total)) if total > 0 else cls(keys[:0], worth[:0])

    def __call__(self, passages: Sentences) -> FloatMatrix:
        """Share, 0…1, of the question's terms by worth in the best sentence of each passage, (n,); those of
        its context count for every sentence."""
        if not len(self.keys) or not passages.count:
            return np.zeros(len(passages.first), dtype=np.float32)
        at = np.searchsorted(self.keys, passages.keys)
        at[at == len(self.keys)] = 0
        known = self.keys[at] == passages.keys
        held = np.zeros((passages.count, len(self.keys)), dtype=bool)
        held[passages.sentence[known], at[known]] = True
        sizes = np.diff(passages.first, append=passages.count)
        held |= np.repeat(held[passages.first], sizes, axis=0)
        best: FloatMatrix = np.maximum.reduceat(held @ self.worth, passages.first)
        return np.minimum(best, np.float32(1))


def sharpen(
    fused: Scored, asked: Iterable[tuple[float, Focus]], texts: Mapping[int, tuple[str, str]]
) -> dict[int, float]:
    """Fused scores, 0…1, with the focus of those passages whose (context, text) is given; 0 for the rest.

    ``asked`` are the weights of the queries with their focus.
    """
    queries = list(asked)
    total = sum(weight for weight, _ in queries) or 1.0
    base = (1 + DENSE_WEIGHT) / (1 + DENSE_WEIGHT + FOCUS_WEIGHT)
    sharp = {i: base * score for i, score in fused.items()}
    passages = Sentences(list(texts.values()))
    for weight, focus in queries:
        for i, covered in zip(texts, focus(passages).tolist(), strict=True):
            sharp[i] += (1 - base) * covered * weight / total
    return sharp
