"""BM25 (Robertson & Zaragoza 2009) over our own postings: exact, incremental, memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rag.errors import IndexUnavailable
from rag.index import postings
from rag.index.postings import Segment
from rag.index.segments import Mask, Segmented
from rag.index.terms import BIGRAM_SHIFT, WORD_BIT, Keys, term_keys
from rag.ports import FloatMatrix, IdArray

K1 = 0.9
B = 0.5
CHARACTER, WORD = 0.8, 2.0
"""What a Han character, and a word, code or number, counts beside a pair of characters. These four were chosen
on training questions (docs/decisions/008)."""
LONG_SHARE = 1 / 64
"""A term in more than this share of a segment's documents has a long row."""
_LONG_AT_LEAST = 256
_POOL = 8192
"""Postings of the rarest terms whose documents give the first bound of the k-th best score."""
_FEW = 512
"""Documents in question that are looked up without thinning them out further."""
_BUILD = 2048
"""Texts whose postings are made at once."""


class Bm25Index(Segmented[Segment]):
    """The `LexicalIndex` port. Deleted chunks are masked at once and leave the statistics (number of
    chunks, document frequencies, mean length) when their segment is rewritten.
    """

    state_file = "lexical.json"
    segment_type = Segment
    largest: ClassVar[int] = 1 << 17

    def add(self, ids: Sequence[int] | IdArray, texts: Sequence[str]) -> None:
        """Index texts under chunk ids.

        Raises:
            ValueError: as many texts as ids are needed, and an id can be used only once ever.
        """
        self._check_new(ids, len(texts))
        for at in range(0, len(texts), _BUILD):
            self._segments.append(postings.build(ids[at : at + _BUILD], texts[at : at + _BUILD]))
            self._compact()

    def _merge(self, segments: Sequence[Segment], kept: Sequence[Mask]) -> Segment:
        return postings.merge(segments, kept)

    def _refresh(self) -> None:
        super()._refresh()
        self._total = sum(len(s) for s in self._segments)
        mean = sum(int(s.lengths.sum(dtype=np.int64)) for s in self._segments) / max(self._total, 1)
        self._norms = [(K1 * (1 - B + B * s.lengths / max(mean, 1e-9))).astype(np.float32) for s in self._segments]

    def lengths(self) -> dict[int, int]:
        """Number of terms of each chunk."""
        return {
            chunk_id: length
            for s in self._segments
            for chunk_id, length in zip(s.ids.tolist(), s.lengths.tolist(), strict=True)
        }

    def search(
        self, query: str, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` best chunks: ids int64 (k,) and BM25 scores float32 (k,), best first, equal scores
        by id; −1 and 0 where fewer chunks share a term with the query.

        Raises:
            IndexUnavailable: a file is damaged.
        """
        try:
            return self._search(query, k, allowed, excluded)
        except IndexError as error:  # bits of a mapped file that changed after it was opened or checked
            raise IndexUnavailable(
                "The lexical index is damaged. `chatgglm kb rebuild` makes it again from the database."
            ) from error

    def worth(self, query: str) -> tuple[Keys, npt.NDArray[np.float32]]:
        """The terms of a query that occur here, ascending, each once, and what each is worth: inverse
        document frequency times its kind's."""
        keys = np.unique(term_keys(query))
        rows = [s.rows(keys) for s in self._segments]
        known = np.any([at >= 0 for at in rows], axis=0) if rows else np.zeros(len(keys), dtype=bool)
        return keys[known], self._weights(keys, rows)[known]

    def _search(
        self, query: str, k: int, allowed: IdArray | None, excluded: IdArray | None
    ) -> tuple[IdArray, FloatMatrix]:
        ids = np.full(k, -1, dtype=np.int64)
        scores = np.zeros(k, dtype=np.float32)
        keys, often = np.unique(term_keys(query), return_counts=True)
        if k < 1 or not len(keys) or not self._segments:
            return ids, scores
        rows = [s.rows(keys) for s in self._segments]
        weights = self._weights(keys, rows) * often.astype(np.float32)
        masks = self._masks(allowed, excluded)
        found: list[tuple[IdArray, npt.NDArray[np.float32]]] = []
        floor = np.float32(0)
        for number in range(len(self._segments)):
            numbers, values = self._top(number, rows[number], weights, k, masks[number], floor)
            found.append((self._segments[number].ids[numbers], values))
            floor = _kth(np.concatenate([v for _, v in found]), k)
        all_ids = np.concatenate([i for i, _ in found])
        all_scores = np.concatenate([v for _, v in found])
        best = np.lexsort((all_ids, -all_scores))[:k]
        ids[: len(best)] = all_ids[best]
        scores[: len(best)] = all_scores[best]
        return ids, scores

    def _weights(self, keys: Keys, rows: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Inverse document frequency times the worth of the kind of each query term."""
        frequency = np.zeros(len(keys), dtype=np.int64)
        for segment, at in zip(self._segments, rows, strict=True):
            frequency += np.where(at >= 0, segment.starts[at + 1] - segment.starts[at], 0)
        idf = np.log1p((self._total - frequency + 0.5) / (frequency + 0.5))
        return (idf * term_worth(keys)).astype(np.float32)

    def _top(
        self,
        number: int,
        rows: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        k: int,
        mask: Mask,
        floor: np.float32,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Document numbers and scores that may be among the ``k`` best of all segments.

        Rare terms come first. Once the common ones that are left cannot lift a document without
        any of the others over the k-th best, only the documents still in question are looked up in
        their long rows (MaxScore, Turtle & Flood 1995), fewer with each row: exact, and most of the
        work saved. The k-th best among the documents of the rarest terms is a bound that is cheap to have.
        """
        segment, norms = self._segments[number], self._norms[number]
        starts = segment.starts
        present = rows >= 0
        rows, weights = rows[present], weights[present]
        sizes = starts[rows + 1] - starts[rows]
        order = np.argsort(sizes, kind="stable")
        rows, weights, sizes = rows[order], weights[order], sizes[order]
        least = norms.min() if len(norms) else np.float32(1)
        peaks = segment.peaks[rows].astype(np.float32)
        bounds = weights * (K1 + 1) * peaks / (peaks + least)
        left = np.concatenate([np.cumsum(bounds[::-1])[::-1], [0]]) * np.float32(1.0001)
        scores = np.zeros(len(segment), dtype=np.float32)
        scores[~mask] = -np.inf
        candidates: npt.NDArray[np.int64] | None = None
        pool: npt.NDArray[np.uint32] | None = None
        long = max(len(segment) * LONG_SHARE, _LONG_AT_LEAST)
        look_at = long
        for i, row in enumerate(rows):
            if candidates is None and i and sizes[i] > look_at:
                look_at = 1.3 * sizes[i]
                if pool is None:
                    some = max(1, int(np.searchsorted(np.cumsum(sizes[:i]), _POOL)))
                    pool = np.unique(np.concatenate([segment.docs[starts[r] : starts[r + 1]] for r in rows[:some]]))
                threshold = max(floor, _kth(scores[pool], k) or _kth(scores, k))
                if left[i] < threshold:
                    few = np.flatnonzero(scores >= threshold - left[i])
                    candidates = few if len(few) < 4 * long else None
            if candidates is not None and len(candidates) > _FEW:
                values = scores[candidates]
                candidates = candidates[values >= max(floor, _kth(values, k)) - left[i]]
            part = slice(int(starts[row]), int(starts[row + 1]))
            docs, freqs = segment.docs[part], segment.freqs[part]
            if candidates is not None:
                at = np.searchsorted(docs, candidates.astype(np.uint32))
                at[at == len(docs)] = 0
                hit = docs[at] == candidates
                docs, freqs = candidates[hit], freqs[at[hit]]
            tf = freqs.astype(np.float32)
            scores[docs] += weights[i] * np.float32(K1 + 1) * tf / (tf + norms[docs])
        found = np.arange(len(scores)) if candidates is None else candidates
        found = found[scores[found] > 0]
        if len(found) > k:
            values = scores[found]
            cut = np.partition(values, len(values) - k)[len(values) - k]
            found = found[values >= cut]  # ties at the cut stay: the id decides later
        return found, scores[found]


def term_worth(keys: Keys) -> npt.NDArray[np.float32]:
    """How much each term counts by its kind: Han character, pair of characters, or word."""
    character = keys < (1 << BIGRAM_SHIFT)
    return np.select([character, keys >= WORD_BIT], [CHARACTER, WORD], 1.0).astype(np.float32)


def _kth(scores: npt.NDArray[np.float32], k: int) -> np.float32:
    """The k-th best of the scores above 0; 0 where there are fewer."""
    above = scores[scores > 0]
    return np.partition(above, len(above) - k)[len(above) - k] if len(above) >= k else np.float32(0)
