"""Vectors by chunk id on FAISS: exact inner product, in memory-mapped segments."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.index import files
from rag.ports import FloatMatrix, IdArray

STATE = "vectors.json"
DEAD = "dead.npy"
_SMALL = 4096
_DEAD_SHARE = 0.2
_BITMAP_IDS = 1 << 28
"""Up to this id, a selector is a bitmap (32 MiB at most); beyond, a hash set."""


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
        import faiss

        flat = faiss.downcast_index(self.index.index)
        view: FloatMatrix = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
        return view

    def save(self, folder: Path) -> Segment:
        """Its file in ``folder``: linked if it has one already, else written. Returns it from there."""
        import faiss

        target = folder / f"{self.name}.faiss"
        if self.folder is not None:
            files.link(self.folder / target.name, target)
        else:  # through Python: FAISS itself cannot open every path, and does not fsync
            files.write_bytes(target, memoryview(faiss.serialize_index(self.index)))
        return Segment.open(folder, self.name)

    @classmethod
    def open(cls, folder: Path, name: str) -> Segment:
        """Memory-map a segment.

        Raises:
            IndexUnavailable: the file is missing or damaged.
        """
        import faiss

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
        import faiss

        index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        index.add_with_ids(vectors, ids)
        return cls(index, np.array(ids), uuid.uuid4().hex[:16])


class FaissStore:
    """The `VectorStore` port. Reading is safe from several threads; change it from one only.

    ``dim`` is 0 while nothing was added.
    """

    def __init__(self, segments: Sequence[Segment] = (), dead: IdArray | None = None) -> None:
        self._segments = list(segments)
        self._dead = np.zeros(0, dtype=np.int64) if dead is None else dead
        self._refresh()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._segments[0].index.d) if self._segments else 0

    # -- changing -----------------------------------------------------------------------------

    def add(self, ids: Sequence[int] | IdArray, vectors: FloatMatrix) -> None:
        """Store unit-length vectors float32 (n, dim) under chunk ids.

        Raises:
            ValueError: shape, dtype or length of a vector is wrong, or an id was used before.
        """
        vectors = np.ascontiguousarray(vectors)
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(ids) != len(vectors):
            raise ValueError(f"float32 ({len(ids)}, dim) is needed, not {vectors.dtype} {vectors.shape}")
        if self.dim and vectors.shape[1] != self.dim:
            raise ValueError(f"vectors of {self.dim} dimensions are needed, not {vectors.shape[1]}")
        if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3):
            raise ValueError("vectors must have unit length")
        if not len(ids):
            return
        new = files.id_array(ids)
        if len(new) != len(ids) or any(files.member(s.ids, new).any() for s in self._segments):
            raise ValueError("a chunk id can be stored only once")
        self._segments.append(Segment.build(np.asarray(ids, dtype=np.int64), vectors))
        self._compact()

    def delete(self, ids: Sequence[int] | IdArray) -> None:
        """Take vectors out; ids that are not there are ignored."""
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
        kept = [~files.member(s.ids, self._dead) for s in segments]
        return Segment.build(
            np.concatenate([s.ids[k] for s, k in zip(segments, kept, strict=True)]),
            np.concatenate([s.vectors[k] for s, k in zip(segments, kept, strict=True)]),
        )

    def _refresh(self) -> None:
        self._alive = [~files.member(s.ids, self._dead) for s in self._segments]

    # -- reading ------------------------------------------------------------------------------

    def ids(self) -> IdArray:
        """The ids of all vectors that can be found, ascending."""
        held = [s.ids[alive] for s, alive in zip(self._segments, self._alive, strict=True)]
        return np.sort(np.concatenate(held)) if held else np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return sum(int(alive.sum()) for alive in self._alive)

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
        found = [
            self._nearest(segment, alive, queries, min(k, len(segment)), allowed, excluded)
            for segment, alive in zip(self._segments, self._alive, strict=True)
        ]
        all_ids = np.concatenate([i for i, _ in found], axis=1)
        all_scores = np.concatenate([s for _, s in found], axis=1)
        all_scores[all_ids < 0] = -np.inf
        best = np.lexsort((all_ids, -all_scores), axis=1)[:, :k]
        ids[:, : best.shape[1]] = np.take_along_axis(all_ids, best, axis=1)
        scores[:, : best.shape[1]] = np.take_along_axis(all_scores, best, axis=1)
        scores[ids < 0] = 0
        return ids, scores

    @staticmethod
    def _nearest(
        segment: Segment,
        alive: npt.NDArray[np.bool_],
        queries: FloatMatrix,
        k: int,
        allowed: IdArray | None,
        excluded: IdArray | None,
    ) -> tuple[IdArray, FloatMatrix]:
        import faiss

        mask = alive
        if allowed is not None:
            mask = mask & files.member(segment.ids, files.id_array(allowed))
        if excluded is not None:
            mask = mask & ~files.member(segment.ids, files.id_array(excluded))
        if mask.all():
            scores, ids = segment.index.search(queries, k)
            return ids, scores
        chosen = segment.ids[mask]
        if not len(chosen):
            return np.full((len(queries), k), -1, dtype=np.int64), np.zeros((len(queries), k), dtype=np.float32)
        if int(chosen.max()) < _BITMAP_IDS:
            bits = np.zeros(int(chosen.max()) // 8 * 8 + 8, dtype=bool)
            bits[chosen] = True
            packed = np.packbits(bits, bitorder="little")
            selector = faiss.IDSelectorBitmap(packed)
        else:
            selector = faiss.IDSelectorBatch(chosen)
        scores, ids = segment.index.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return ids, scores

    # -- files --------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write to a new folder; segments that lie on the disk already are linked, not copied."""
        path.mkdir(parents=True)
        self._segments = [segment.save(path) for segment in self._segments]
        files.write_array(path / DEAD, self._dead)
        files.write_json(path / STATE, {"metric": "cosine", "segments": [s.name for s in self._segments]})
        files.sync_folder(path)

    @classmethod
    def open(cls, path: Path) -> FaissStore:
        """Memory-map what `save` wrote.

        Raises:
            IndexUnavailable: a file is missing or damaged.
        """
        state = files.read_json(path / STATE)
        segments = [Segment.open(path, name) for name in state["segments"]]
        return cls(segments, np.asarray(files.read_array(path / DEAD)))
