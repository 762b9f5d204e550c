"""The seams: what an embedder, a reader and the indexes must offer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag.types import Passage, ReaderOutput, Turn

FloatMatrix = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]


@runtime_checkable
class Embedder(Protocol):
    """Texts to unit-length vectors, float32 (n, dim)."""

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix: ...

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix: ...


class VectorStore(Protocol):
    """Vectors by chunk id. ``search`` gives ids (q, k) and cosines (q, k), −1 where fewer match; ``cosines``
    those of one query float32 (dim,) with known chunks, (n,), NaN where there is no such vector."""

    def add(self, ids: IdArray, vectors: FloatMatrix) -> None: ...

    def delete(self, ids: IdArray) -> None: ...

    def search(
        self, queries: FloatMatrix, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]: ...

    def cosines(self, query: FloatMatrix, ids: IdArray) -> FloatMatrix: ...

    def ids(self) -> IdArray: ...

    def save(self, path: Path) -> None: ...


class LexicalIndex(Protocol):
    """BM25 over postings by chunk id; same ``search`` contract as `VectorStore`, for one query. ``worth``
    gives the terms of a query that occur, ascending, and what each is worth."""

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None: ...

    def delete(self, ids: Sequence[int]) -> None: ...

    def search(
        self, query: str, k: int, allowed: IdArray | None = None, excluded: IdArray | None = None
    ) -> tuple[IdArray, FloatMatrix]: ...

    def worth(self, query: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]: ...

    def ids(self) -> IdArray: ...

    def save(self, path: Path) -> None: ...


class Reader(Protocol):
    """Question and passages to an answer. Never raises on odd text; passages may be of any length."""

    @property
    def id(self) -> str: ...

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput: ...

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]: ...
