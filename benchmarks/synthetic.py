"""Chinese-like text and vectors for benchmarks of any size, the same from run to run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rag.ports import FloatMatrix


class Language:
    """Draws texts: after each character, mostly one of its 40 usual successors, so that characters
    follow Zipf's law and bigrams repeat as they do in language."""

    def __init__(self, size: int = 3500, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.characters = np.array([chr(0x4E00 + i) for i in range(size)])
        weights = 1 / np.arange(1, size + 1)
        self.cumulative = np.cumsum(weights / weights.sum())
        self.successors = self._drawn((size, 40))

    def _drawn(self, shape: int | tuple[int, ...]) -> np.ndarray:
        return np.searchsorted(self.cumulative, self.rng.random(shape)).clip(max=len(self.characters) - 1)

    def texts(self, count: int, chars: int = 300) -> list[str]:
        """``count`` texts of ``chars`` characters, a clause mark every dozen or so, a number here and there."""
        current = self._drawn(count)
        columns = []
        for _ in range(chars):
            usual = self.successors[current, self.rng.integers(0, 40, size=count)]
            current = np.where(self.rng.random(count) < 0.8, usual, self._drawn(count))
            columns.append(self.characters[current])
        table = np.stack(columns, axis=1)
        table[:, 11::13] = "，"
        rows = np.ascontiguousarray(table).view(f"<U{chars}").ravel().tolist()
        return [f"{row} 第{i % 997}条 {2000 + i % 30}年" for i, row in enumerate(rows)]

    def batches(self, count: int, batch: int, chars: int = 300) -> Iterator[tuple[range, list[str]]]:
        """``count`` texts with their numbers, ``batch`` at a time."""
        for at in range(0, count, batch):
            some = range(at, min(at + batch, count))
            yield some, self.texts(len(some), chars)


def vectors(count: int, dim: int, seed: int = 0, base: FloatMatrix | None = None) -> FloatMatrix:
    """Unit vectors float32 (count, dim).

    With a ``base`` of real embeddings (n, dim): each is a point on the way between two of them, with a
    little noise; that keeps their directions and clusters. Without: topics of Zipf-like sizes around
    which vectors lie.
    """
    rng = np.random.default_rng(seed)
    if base is not None:
        share = rng.random((count, 1), dtype=np.float32) * 0.5
        rows = base[rng.integers(0, len(base), count)] * (1 - share) + base[rng.integers(0, len(base), count)] * share
        rows += rng.standard_normal((count, dim), dtype=np.float32) * (0.2 / dim**0.5)
    else:
        topics = np.random.default_rng(1).standard_normal((2000, dim), dtype=np.float32)
        chosen = (2000 * rng.random(count) ** 2).astype(int)
        rows = topics[chosen] + 0.8 * rng.standard_normal((count, dim), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
