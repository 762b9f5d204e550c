"""Vectors by chunk id on FAISS: inner product, in memory-mapped segments."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rag.index import files, kinds
from rag.index.kinds import Kind, Sizes, faiss
from rag.index.segments import Mask, Segmented
from rag.ports import FloatMatrix, IdArray

_SAMPLE = 200
"""Vectors of an approximate segment that a check searches for."""
_FOUND = 0.95
"""Share of them, at least, that must find themselves."""


@dataclass(frozen=True, eq=False)
class Segment:
    """An immutable `faiss.IndexIDMap` over one of the `kinds`."""

    index: Any
    ids: IdArray
    """Chunk ids in the index's own order."""
    name: str
    folder: Path | None = None
    buffer: Any = None
    """The mapped file that the index reads from; must live as long as the index."""
    inner: Any = field(init=False, repr=False)
    """The index under the id map; it counts from 0."""
    ascending: bool = field(init=False, repr=False)
    """Whether ``ids`` are; they nearly always are, and found faster then."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", faiss().downcast_index(self.index.index))
        object.__setattr__(self, "ascending", bool(np.all(np.diff(self.ids) > 0)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kind(self) -> Kind:
        """Flat, graph or inverted lists."""
        return kinds.kind_of(self.inner)

    @property
    def vectors(self) -> FloatMatrix:
        """float32 (n, dim) in the order of ``ids``; a copy if the kind is ivf, else a view."""
        return kinds.vectors_of(self.inner)

    def nearest(self, queries: FloatMatrix, k: int, mask: Mask, exact: bool = True) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` best of the vectors whose ``mask`` is True: ids and cosines, both (q, k); −1 where
        there are fewer. What an approximate search leaves too short is searched exactly.

        Raises:
            IndexUnavailable: its file was damaged after it was opened, or where no look at opening shows it.
        """
        left = int(mask.sum())
        if not left:
            return np.full((len(queries), k), -1, dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
        selector = None
        if left < len(self):
            selector = faiss().IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        try:
            scores, positions = kinds.search(self.inner, queries, k, selector, exact)
            short = (positions[:, : min(k, left)] < 0).any(axis=1) if not exact else np.zeros(len(queries), dtype=bool)
            if short.any():
                scores[short], positions[short] = kinds.search(self.inner, queries[short], k, selector, exact=True)
            return np.where(positions >= 0, self.ids[positions], -1), scores
        except (RuntimeError, IndexError) as error:  # what FAISS finds wrong, and places that there are not
            if self.folder is None:
                raise
            raise files.damaged(self.folder / f"{self.name}.faiss", error) from error

    def positions(self, ids: IdArray) -> tuple[IdArray, IdArray]:
        """Which of ``ids`` (ascending) it holds, as indexes into them, and where."""
        if self.ascending:
            at = np.searchsorted(self.ids, ids)
            at[at == len(self)] = 0
            found = np.flatnonzero(self.ids[at] == ids) if len(self) else np.zeros(0, dtype=np.int64)
            return found, at[found]
        where = np.flatnonzero(files.member(self.ids, ids))
        return np.searchsorted(ids, self.ids[where]), where

    def problems(self) -> Iterator[str]:
        """What is wrong with the index itself, in words."""
        if len(np.unique(self.ids)) != len(self.ids):
            yield f"Segment {self.name}: a chunk id occurs twice."
        if self.kind == "ivf":
            listed = np.concatenate([kinds.ivf_list(self.inner, n)[0] for n in range(self.inner.nlist)])
            if not np.array_equal(np.sort(listed), np.arange(len(self))):
                yield f"Segment {self.name}: the lists do not hold each vector once."
                return
        vectors = self.vectors
        bad = self.ids[~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3)]
        if len(bad):
            yield f"Segment {self.name}: {len(bad)} vectors are not of unit length, that of chunk {bad[0]} first."
        elif self.kind != "flat" and len(self):
            sample = np.ascontiguousarray(vectors[:: max(1, len(self) // _SAMPLE)])
            scores, _ = kinds.search(self.inner, sample, 1, None, exact=False)
            found = float(np.mean(scores[:, 0] > 1 - 1e-3))
            if found < _FOUND:
                yield f"Segment {self.name}: only {found:.0%} of its vectors find themselves."

    def save(self, folder: Path) -> Segment:
        """Its file in ``folder``: linked if it has one already, else written. Returns it from there."""
        target = folder / f"{self.name}.faiss"
        if not files.link(self.folder, target):
            # Through Python: FAISS itself cannot open every path, and does not fsync.
            files.write_bytes(target, memoryview(faiss().serialize_index(self.index)))
        return Segment.open(folder, self.name)

    @classmethod
    def open(cls, folder: Path, name: str) -> Segment:
        """Memory-map a segment.

        Raises:
            IndexUnavailable: the file is missing or damaged.
        """
        path = folder / f"{name}.faiss"
        try:
            buffer = np.memmap(path, dtype=np.uint8, mode="r")
            index = faiss().read_index(faiss().ZeroCopyIOReader(faiss().swig_ptr(buffer), buffer.size))
            ids = faiss().vector_to_array(index.id_map)
            segment = cls(index, ids, name, folder, buffer)
            if segment.inner.ntotal != len(ids):
                raise ValueError(f"{segment.inner.ntotal} vectors for {len(ids)} ids")
            kinds.check(segment.inner)
        except MemoryError as error:  # what a damaged length asks for, too
            raise files.damaged(path, "or there is not enough memory for it") from error
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            raise files.damaged(path, error) from error
        return segment

    @classmethod
    def build(
        cls, ids: IdArray, vectors: FloatMatrix, kind: Kind = "flat", stop: Callable[[], bool] = kinds.never
    ) -> Segment:
        """A segment in memory.

        Raises:
            kinds.Stopped: ``stop`` said so.
        """
        return cls(kinds.build(ids, vectors, kind, stop), np.array(ids), uuid.uuid4().hex[:16])


class FaissStore(Segmented[Segment]):
    """The `VectorStore` port. Without filters, large segments are searched approximately; with them,
    exactly."""

    state_file = "vectors.json"
    segment_type = Segment
    largest: ClassVar[int] = 1 << 18

    def __init__(self, dim: int = 0, segments: Sequence[Segment] = (), dead: IdArray | None = None) -> None:
        self._dim = dim
        super().__init__(segments, dead)

    @property
    def dim(self) -> int:
        """Length of a vector; 0: as the first that is added."""
        return int(self._segments[0].index.d) if self._segments else self._dim

    def add(self, ids: Sequence[int] | IdArray, vectors: FloatMatrix) -> None:
        """Store unit-length vectors float32 (n, dim) under chunk ids.

        Raises:
            ValueError: shape, dtype or length of a vector is wrong, or an id was used before.
        """
        check_vectors(vectors)
        self._check_new(ids, len(vectors))
        if self.dim and len(vectors) and vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {self.dim} dimensions are needed, not {vectors.shape[1]}")
        if len(vectors):
            self._segments.append(Segment.build(np.asarray(ids, dtype=np.int64), vectors))
            self._compact()

    def _merge(self, segments: Sequence[Segment], kept: Sequence[Mask]) -> Segment:
        return Segment.build(*_joined(segments, kept))

    def merged(
        self, names: Collection[str], sizes: Sizes = kinds.FLAT, stop: Callable[[], bool] = kinds.never
    ) -> Segment:
        """One segment, in memory, of those named, without what is deleted in them, of the kind that
        ``sizes`` say.

        Raises:
            kinds.Stopped: ``stop`` said so.
        """
        ids, vectors = _joined(*self._chosen(names))
        return Segment.build(ids, vectors, sizes.kind(len(ids)), stop)

    def search(
        self,
        queries: FloatMatrix,
        k: int,
        allowed: IdArray | None = None,
        excluded: IdArray | None = None,
        exact: bool = False,
    ) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` nearest for each of q queries: ids int64 (q, k) and cosines float32 (q, k), best
        first, equal ones by id; −1 and 0 where fewer vectors are allowed. A search with ``allowed`` or
        ``excluded`` is exact.

        Raises:
            ValueError: the queries have another number of dimensions.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        ids = np.full((len(queries), max(k, 0)), -1, dtype=np.int64)
        scores = np.zeros(ids.shape, dtype=np.float32)
        if k < 1 or not len(queries) or not self._segments:
            return ids, scores
        if queries.shape[1] != self.dim:
            raise ValueError(f"queries of {self.dim} dimensions are needed, not {queries.shape[1]}")
        masks = self._masks(allowed, excluded)
        exact = exact or allowed is not None or excluded is not None
        found = [
            segment.nearest(queries, min(k, len(segment)), mask, exact)
            for segment, mask in zip(self._segments, masks, strict=True)
        ]
        all_ids = np.concatenate([i for i, _ in found], axis=1)
        all_scores = np.concatenate([s for _, s in found], axis=1)
        all_scores[all_ids < 0] = -np.inf
        best = np.lexsort((all_ids, -all_scores), axis=1)[:, :k]
        width = best.shape[1]
        ids[:, :width] = np.take_along_axis(all_ids, best, axis=1)
        scores[:, :width] = np.take_along_axis(all_scores, best, axis=1)
        scores[ids < 0] = 0
        return ids, scores

    def cosines(self, query: FloatMatrix, ids: IdArray) -> FloatMatrix:
        """Exact cosines of a query float32 (dim,) with the vectors of chunks, (n,); NaN where there is none.

        Raises:
            ValueError: the query has another number of dimensions.
        """
        out = np.full(len(ids), np.nan, dtype=np.float32)
        if not self._segments or not len(ids):
            return out
        if query.shape != (self.dim,):
            raise ValueError(f"a query of {self.dim} dimensions is needed, not {query.shape}")
        order = np.argsort(ids, kind="stable")
        wanted = np.asarray(ids, dtype=np.int64)[order]
        for segment, alive in zip(self._segments, self._alive, strict=True):
            found, where = segment.positions(wanted)
            found, where = found[alive[where]], where[alive[where]]
            if len(found):
                out[order[found]] = kinds.some_vectors(segment.inner, where) @ query
        return out


def check_vectors(vectors: FloatMatrix) -> None:
    """Raises ValueError unless it is float32 (n, dim) of unit-length rows."""
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"float32 (n, dim) is needed, not {vectors.dtype} {vectors.shape}")
    if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3):
        raise ValueError("vectors must have unit length")


def _joined(segments: Sequence[Segment], kept: Sequence[Mask]) -> tuple[IdArray, FloatMatrix]:
    """Ids and vectors of several segments, without those whose ``kept`` is False."""
    return (
        np.concatenate([s.ids[k] for s, k in zip(segments, kept, strict=True)]),
        np.concatenate([s.vectors[k] for s, k in zip(segments, kept, strict=True)]),
    )
