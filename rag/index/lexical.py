"""BM25 (Robertson & Zaragoza 2009) over our own postings: exact, incremental, memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag.index import files, postings
from rag.index.postings import Segment
from rag.index.terms import term_keys
from rag.ports import FloatMatrix, IdArray

K1 = 1.2
B = 0.75
STATE = "lexical.json"
DEAD = "dead.npy"
_BUILD = 4096
"""Texts whose postings are made at once."""
_SMALL = 4096
"""Segments up to this size are rewritten as soon as something in them is deleted."""
_DEAD_SHARE = 0.2
"""Larger ones, when this share of them is deleted."""


class Bm25Index:
    """The `LexicalIndex` port. Reading is safe from several threads; change it from one only.

    Deleted chunks are masked at once and leave the statistics (number of chunks, document
    frequencies, mean length) when their segment is rewritten.
    """

    def __init__(self, segments: Sequence[Segment] = (), dead: IdArray | None = None) -> None:
        self._segments = list(segments)
        self._dead = np.zeros(0, dtype=np.int64) if dead is None else dead
        self._refresh()

    # -- changing -----------------------------------------------------------------------------

    def add(self, ids: Sequence[int] | IdArray, texts: Sequence[str]) -> None:
        """Index texts under chunk ids.

        Raises:
            ValueError: as many texts as ids are needed, and an id can be used only once ever.
        """
        if len(ids) != len(texts):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
        new = files.id_array(ids)
        if len(new) != len(ids) or any(files.member(s.ids, new).any() for s in self._segments):
            raise ValueError("a chunk id can be indexed only once")
        for at in range(0, len(texts), _BUILD):
            self._segments.append(postings.build(ids[at : at + _BUILD], texts[at : at + _BUILD]))
        self._compact()

    def delete(self, ids: Sequence[int] | IdArray) -> None:
        """Take chunks out; ids that are not there are ignored."""
        gone = files.id_array(ids)
        held = [s.ids[files.member(s.ids, gone)] for s in self._segments]
        if held:
            self._dead = np.union1d(self._dead, np.concatenate(held))
        self._compact()

    def _compact(self) -> None:
        segments: list[Segment] = []
        for segment in self._segments:
            dead = int(files.member(segment.ids, self._dead).sum())
            if dead == len(segment):
                continue
            if dead and (len(segment) <= _SMALL or dead > _DEAD_SHARE * len(segment)):
                segment = self._merge([segment])
            segments.append(segment)
        first = files.merge_from(segments)
        if first < len(segments) - 1:
            segments[first:] = [self._merge(segments[first:])]
        self._segments = segments
        held = [s.ids for s in segments]
        self._dead = self._dead[files.member(self._dead, np.sort(np.concatenate(held)))] if held else self._dead[:0]
        self._refresh()

    def _merge(self, segments: Sequence[Segment]) -> Segment:
        return postings.merge(segments, [~files.member(s.ids, self._dead) for s in segments])

    def _refresh(self) -> None:
        total = sum(len(s) for s in self._segments)
        mean = sum(int(s.lengths.sum(dtype=np.int64)) for s in self._segments) / max(total, 1)
        self._total = total
        self._norms = [
            (K1 * (1 - B + B * s.lengths / max(mean, 1e-9))).astype(np.float32) for s in self._segments
        ]
        self._alive = [~files.member(s.ids, self._dead) for s in self._segments]

    # -- reading ------------------------------------------------------------------------------

    def ids(self) -> IdArray:
        """The ids of all chunks that can be found, ascending."""
        held = [s.ids[alive] for s, alive in zip(self._segments, self._alive, strict=True)]
        return np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return sum(int(alive.sum()) for alive in self._alive)

    def search(
        self, query: str, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` best chunks: ids int64 (k,) and BM25 scores float32 (k,), best first, equal scores
        by id; −1 and 0 where fewer chunks share a term with the query."""
        ids = np.full(k, -1, dtype=np.int64)
        scores = np.zeros(k, dtype=np.float32)
        keys, often = np.unique(term_keys(query), return_counts=True)
        if k < 1 or not len(keys) or not self._segments:
            return ids, scores
        rows = [s.rows(keys) for s in self._segments]
        weights = self._weights(rows, often)
        masks = self._masks(allowed, excluded)
        found: list[tuple[IdArray, npt.NDArray[np.float32]]] = []
        floor = np.float32(0)
        for number in range(len(self._segments)):
            numbers, values = self._top(number, rows[number], weights, k, masks[number], floor)
            found.append((self._segments[number].ids[numbers], values))
            everything = np.concatenate([v for _, v in found])
            if len(everything) >= k:
                floor = np.partition(everything, len(everything) - k)[len(everything) - k]
        all_ids = np.concatenate([i for i, _ in found])
        all_scores = np.concatenate([v for _, v in found])
        best = np.lexsort((all_ids, -all_scores))[:k]
        ids[: len(best)] = all_ids[best]
        scores[: len(best)] = all_scores[best]
        return ids, scores

    def _weights(self, rows: list[npt.NDArray[np.int64]], often: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What each query term is worth: inverse document frequency times its count in the query."""
        frequency = np.zeros(len(often), dtype=np.int64)
        for segment, at in zip(self._segments, rows, strict=True):
            frequency += np.where(at >= 0, segment.starts[at + 1] - segment.starts[at], 0)
        idf = np.log1p((self._total - frequency + 0.5) / (frequency + 0.5))
        return (idf * often).astype(np.float32)

    def _masks(self, allowed: IdArray | None, excluded: IdArray | None) -> list[npt.NDArray[np.bool_]]:
        masks = self._alive
        if allowed is not None:
            wanted = files.id_array(allowed)
            masks = [m & files.member(s.ids, wanted) for m, s in zip(masks, self._segments, strict=True)]
        if excluded is not None:
            unwanted = files.id_array(excluded)
            masks = [m & ~files.member(s.ids, unwanted) for m, s in zip(masks, self._segments, strict=True)]
        return masks

    def _top(
        self,
        number: int,
        rows: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        k: int,
        mask: npt.NDArray[np.bool_],
        floor: np.float32,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Document numbers and scores that may be among the ``k`` best of all segments.

        Rare terms come first. Once the common ones that are left cannot lift a document without
        any of the others over the k-th best, only the documents still in question are looked up in
        their long rows (MaxScore, Turtle & Flood 1995): exact, and most of the work saved.
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
        long = max(len(segment) // 32, 256)
        for i, row in enumerate(rows):
            if candidates is None and i and sizes[i] > long and len(segment) > k:
                threshold = max(floor, np.partition(scores, len(scores) - k)[len(scores) - k])
                if left[i] < threshold:
                    few = np.flatnonzero(scores >= threshold - left[i])
                    candidates = few if len(few) < long * 4 else None
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

    # -- files --------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write to a new folder; segments that lie on the disk already are linked, not copied."""
        path.mkdir(parents=True)
        self._segments = [segment.save(path) for segment in self._segments]
        files.write_array(path / DEAD, self._dead)
        files.write_json(path / STATE, {"k1": K1, "b": B, "segments": [s.name for s in self._segments]})
        files.sync_folder(path)

    @classmethod
    def open(cls, path: Path) -> Bm25Index:
        """Memory-map what `save` wrote.

        Raises:
            IndexUnavailable: a file is missing or damaged.
        """
        state = files.read_json(path / STATE)
        return cls(
            [Segment.open(path, name) for name in state["segments"]], np.asarray(files.read_array(path / DEAD))
        )


