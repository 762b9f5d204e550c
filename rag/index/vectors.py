"""Vectors by chunk id on FAISS: exact inner product, in memory-mapped segments."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.index import files
from rag.index.segments import Mask, Segmented
from rag.ports import FloatMatrix, IdArray

_BITMAP_IDS = 1 << 28
"""Up to this id, a selector is a bitmap (32 MiB at most); beyond, a hash set."""


def _faiss() -> Any:
    """FAISS, imported on first use; its stubs do not know its Python layer."""
    import faiss

    return faiss


@dataclass(frozen=True, eq=False)
class Segment:
    """An immutable `faiss.IndexIDMap2` over `faiss.IndexFlatIP`."""

    index: Any
    ids: IdArray
    """Chunk ids in the index's own order."""
    name: str
    folder: Path | None = None
    buffer: Any = None
    """The mapped file that the index reads from; must live as long as the index."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def vectors(self) -> FloatMatrix:
        """float32 (n, dim) in the order of ``ids``, a view."""
        faiss = _faiss()
        flat = faiss.downcast_index(self.index.index)
        view: FloatMatrix = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
        return view

    def nearest(self, queries: FloatMatrix, k: int, mask: Mask) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` best of the vectors whose ``mask`` is True; −1 where there are fewer."""
        faiss = _faiss()
        if mask.all():
            scores, ids = self.index.search(queries, k)
            return ids, scores
        chosen = self.ids[mask]
        if not len(chosen):
            return np.full((len(queries), k), -1, dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
        if int(chosen.max()) < _BITMAP_IDS:
            bits = np.zeros((int(chosen.max()) // 8 + 1) * 8, dtype=bool)
            bits[chosen] = True
            selector = faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))
        else:
            selector = faiss.IDSelectorBatch(chosen)
        scores, ids = self.index.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return ids, scores

    def save(self, folder: Path) -> Segment:
        """Its file in ``folder``: linked if it has one already, else written. Returns it from there."""
        faiss = _faiss()
        target = folder / f"{self.name}.faiss"
        if not files.link(self.folder, target):
            # Through Python: FAISS itself cannot open every path, and does not fsync.
            files.write_bytes(target, memoryview(faiss.serialize_index(self.index)))
        return Segment.open(folder, self.name)

    @classmethod
    def open(cls, folder: Path, name: str) -> Segment:
        """Memory-map a segment.

        Raises:
            IndexUnavailable: the file is missing or damaged.
        """
        faiss = _faiss()
        path = folder / f"{name}.faiss"
        try:
            buffer = np.memmap(path, dtype=np.uint8, mode="r")
            if hasattr(faiss, "ZeroCopyIOReader"):
                index = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(buffer), buffer.size))
            else:
                index = faiss.deserialize_index(np.array(buffer))
            ids = faiss.vector_to_array(index.id_map)
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            raise files.damaged(path, str(error).splitlines()[0]) from error
        return cls(index, ids, name, folder, buffer)

    @classmethod
    def build(cls, ids: IdArray, vectors: FloatMatrix) -> Segment:
        """A segment in memory."""
        faiss = _faiss()
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        index.add_with_ids(vectors, ids)
        return cls(index, np.array(ids), uuid.uuid4().hex[:16])


class FaissStore(Segmented[Segment]):
    """The `VectorStore` port."""

    state_file = "vectors.json"
    segment_type = Segment

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
        return Segment.build(
            np.concatenate([s.ids[k] for s, k in zip(segments, kept, strict=True)]),
            np.concatenate([s.vectors[k] for s, k in zip(segments, kept, strict=True)]),
        )

    def search(
        self, queries: FloatMatrix, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]:
        """The ``k`` nearest for each of q queries: ids int64 (q, k) and cosines float32 (q, k), best
        first, equal ones by id; −1 and 0 where fewer vectors are allowed.

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
        found = [
            segment.nearest(queries, min(k, len(segment)), mask)
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


def check_vectors(vectors: FloatMatrix) -> None:
    """Raises ValueError unless it is float32 (n, dim) of unit-length rows."""
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"float32 (n, dim) is needed, not {vectors.dtype} {vectors.shape}")
    if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3):
        raise ValueError("vectors must have unit length")
