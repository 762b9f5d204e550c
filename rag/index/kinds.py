"""Three kinds of FAISS index for a segment: few vectors are compared one by one, many are not.

- **flat**: every vector is compared; exact.
- **hnsw**: a graph of neighbours is walked (Malkov & Yashunin 2018).
- **ivf**: vectors lie in lists around the centres of a k-means; the nearest lists are compared
  (Jégou, Douze & Schmid 2011).

All three hold the vectors themselves, so each can also search exactly: for filters, and where
tombstones leave too few results. The switch points are settings (`Settings.hnsw_from`,
`Settings.ivf_from`); docs/decisions/014 has the measurements behind their defaults.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rag.ports import FloatMatrix, IdArray

Kind = Literal["flat", "hnsw", "ivf"]

HNSW_LINKS = 16
"""Neighbours of a vector in the graph (M); twice as many on the lowest layer."""
HNSW_BUILD = 100
"""Candidates that are kept while a vector is linked in (efConstruction)."""
HNSW_SEARCH = 128
"""Candidates that are kept in a search (efSearch), at least; never fewer than twice the results."""
IVF_LISTS = 2.0
"""Times the square root of the number of vectors: so many lists."""
IVF_PROBES = 80
"""Lists that are searched (nprobe)."""
IVF_TRAIN = 64
"""Vectors a list that the k-means learns from."""
_STEP = 4096
"""Vectors that are added between two looks at whether to stop."""
_MAPPING = threading.Lock()


class Stopped(Exception):
    """The process ends; what was being built is given up."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True, slots=True)
class Sizes:
    """From how many vectors on a segment that is made by a merge is which kind; below, it is flat."""

    hnsw_from: int
    ivf_from: int

    def kind(self, count: int) -> Kind:
        """The kind for that many vectors."""
        if count >= self.ivf_from:
            return "ivf"
        return "hnsw" if count >= self.hnsw_from else "flat"


FLAT = Sizes(1 << 62, 1 << 62)
"""Everything is compared with everything."""


def faiss() -> Any:
    """FAISS, imported on first use; its stubs do not know its Python layer."""
    import faiss as module

    return module


def kind_of(index: Any) -> Kind:
    """The kind of the index under the id map.

    Raises:
        ValueError: it is none of ours.
    """
    found: dict[type, Kind] = {
        faiss().IndexFlatIP: "flat",
        faiss().IndexHNSWFlat: "hnsw",
        faiss().IndexIVFFlat: "ivf",
    }
    if type(index) not in found:
        raise ValueError(f"{type(index).__name__} is no kind of index of ours")
    return found[type(index)]


def check(index: Any) -> None:
    """That it is of our kinds and its lists name vectors that there are. (FAISS checks graphs itself, from 1.15.1 on.)

    Raises:
        ValueError: it is not so; a search would end in an error of its own.
    """
    if kind_of(index) != "ivf":
        return
    for number in range(index.nlist):
        positions, _ = ivf_list(index, number)
        if len(positions) and not 0 <= positions.min() <= positions.max() < index.ntotal:
            raise ValueError(f"list {number} names vectors that there are not")


def build(ids: IdArray, vectors: FloatMatrix, kind: Kind = "flat", stop: Callable[[], bool] = never) -> Any:
    """A `faiss.IndexIDMap` of vectors float32 (n, dim) by inner product. The same vectors give the same
    index.

    Raises:
        Stopped: ``stop`` said so.
    """
    count, dim = vectors.shape
    metric = faiss().METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss().IndexHNSWFlat(dim, HNSW_LINKS, metric)
        index.hnsw.efConstruction = HNSW_BUILD
    elif kind == "ivf":
        lists = max(1, int(IVF_LISTS * count**0.5))
        quantizer = faiss().IndexFlatIP(dim)
        index = faiss().IndexIVFFlat(quantizer, dim, lists, metric)
        index.cp.spherical = True  # cosines
        index.cp.max_points_per_centroid = IVF_TRAIN
        index.cp.min_points_per_centroid = 1  # no warnings on small tests
        index.train(vectors)  # from a fixed seed
    else:
        index = faiss().IndexFlatIP(dim)
    named = faiss().IndexIDMap(index)
    for at in range(0, count, _STEP):
        if stop():
            raise Stopped
        named.add_with_ids(vectors[at : at + _STEP], ids[at : at + _STEP])
    return named


def search(index: Any, queries: FloatMatrix, k: int, selector: Any, exact: bool) -> tuple[Any, Any]:
    """Scores float32 and positions int64, both (q, k), of the best that the selector admits (None:
    all); −1 where there are fewer. A flat index is always ``exact``."""
    kind = kind_of(index)
    if kind == "ivf":
        parameters = faiss().SearchParametersIVF(nprobe=index.nlist if exact else IVF_PROBES, sel=selector)
    elif kind == "hnsw" and not exact:
        parameters = faiss().SearchParametersHNSW(efSearch=max(HNSW_SEARCH, 2 * k), sel=selector)
    else:
        index = faiss().downcast_index(index.storage) if kind == "hnsw" else index
        parameters = faiss().SearchParameters(sel=selector)
    return index.search(queries, k, params=parameters)


def vectors_of(index: Any) -> FloatMatrix:
    """The vectors, float32 (n, dim), in the order in which they were added; a view where that is possible."""
    kind = kind_of(index)
    if kind != "ivf":
        flat = faiss().downcast_index(index.storage) if kind == "hnsw" else index
        if not flat.ntotal:
            return np.zeros((0, flat.d), dtype=np.float32)
        view: FloatMatrix = faiss().rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
        return view
    out = np.zeros((index.ntotal, index.d), dtype=np.float32)
    for number in range(index.nlist):
        positions, rows = ivf_list(index, number)
        out[positions] = rows
    return out


def some_vectors(index: Any, positions: npt.NDArray[np.int64]) -> FloatMatrix:
    """The vectors at a few positions, float32 (n, dim)."""
    if kind_of(index) != "ivf":
        return vectors_of(index)[positions]
    with _MAPPING:  # made once, 8 bytes a vector: where in which list each one lies
        if index.direct_map.type == faiss().DirectMap.NoMap:
            index.make_direct_map()
    return np.stack([index.reconstruct(int(i)) for i in positions])


def ivf_list(index: Any, number: int) -> tuple[Any, FloatMatrix]:
    """Positions int64 (m,) and vectors float32 (m, dim) of one inverted list, views."""
    lists = index.invlists
    size = lists.list_size(number)
    if not size:
        return np.zeros(0, dtype=np.int64), np.zeros((0, index.d), dtype=np.float32)
    positions = faiss().rev_swig_ptr(lists.get_ids(number), size)
    codes = faiss().rev_swig_ptr(lists.get_codes(number), size * index.code_size)
    return positions, codes.view(np.float32).reshape(size, index.d)
