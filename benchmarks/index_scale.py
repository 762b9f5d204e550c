"""Build and search the indexes at N chunks of synthetic Chinese text: times, sizes, memory.

    python benchmarks/index_scale.py 10000 100000 [--dim 256] [--chars 300] [--queries 200]

Characters follow Zipf's law with a memory of one (so that bigrams repeat as they do in language);
vectors are random unit vectors around 200 topics. Stop whatever else runs on the machine first.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from rag.index.lexical import Bm25Index
from rag.index.vectors import FaissStore
from rag.ports import FloatMatrix

BATCH = 1024
"""Chunks that an ingestion publishes at once."""


class Language:
    """Draws texts: after each character, mostly one of its 40 usual successors."""

    def __init__(self, size: int = 3500, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.characters = np.array([chr(0x4E00 + i) for i in range(size)])
        weights = 1 / np.arange(1, size + 1)
        self.weights = weights / weights.sum()
        self.successors = self.rng.choice(size, size=(size, 40), p=self.weights)

    def texts(self, count: int, chars: int) -> list[str]:
        """``count`` texts of ``chars`` characters, a clause mark every dozen or so, a number here and there."""
        current = self.rng.choice(len(self.characters), size=count, p=self.weights)
        columns = []
        for _ in range(chars):
            usual = self.successors[current, self.rng.integers(0, 40, size=count)]
            fresh = self.rng.choice(len(self.characters), size=count, p=self.weights)
            current = np.where(self.rng.random(count) < 0.8, usual, fresh)
            columns.append(self.characters[current])
        table = np.stack(columns, axis=1)
        table[:, 11::13] = "，"
        return ["".join(row) + f" 第{i % 997}条 {2000 + i % 30}年" for i, row in enumerate(table)]

    def vectors(self, count: int, dim: int) -> FloatMatrix:
        """Unit vectors float32 (count, dim)."""
        topics = self.rng.standard_normal((200, dim))
        rows = topics[self.rng.integers(0, 200, size=count)] + self.rng.standard_normal((count, dim))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def percentiles(times: list[float]) -> str:
    """p50 / p95 in milliseconds."""
    return f"{np.percentile(times, 50) * 1e3:.1f} / {np.percentile(times, 95) * 1e3:.1f}"


def size(folder: Path) -> float:
    """Size of the files in MB."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


def measure(count: int, dim: int, chars: int, queries: int, k: int) -> list[str]:
    """One row of the table."""
    language = Language()
    lexical, store = Bm25Index(), FaissStore()
    lexical_time = vector_time = 0.0
    sources: list[str] = []
    for at in range(0, count, BATCH):
        some = min(BATCH, count - at)
        texts, vectors = language.texts(some, chars), language.vectors(some, dim)
        sources += texts[:: max(1, count // queries // 4)]
        began = time.perf_counter()
        lexical.add(range(at, at + some), texts)
        lexical_time += time.perf_counter() - began
        began = time.perf_counter()
        store.add(range(at, at + some), vectors)
        vector_time += time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        lexical.save(Path(folder, "lexical"))
        store.save(Path(folder, "vectors"))
        save_time = time.perf_counter() - began
        sizes = size(Path(folder, "lexical")), size(Path(folder, "vectors"))
        began = time.perf_counter()
        lexical, store = Bm25Index.open(Path(folder, "lexical")), FaissStore.open(Path(folder, "vectors"))
        open_time = time.perf_counter() - began
        asked = [sources[i % len(sources)][i % 40 : i % 40 + 18] for i in range(queries)]
        points = language.vectors(queries, dim)
        lexical_times, vector_times, both = [], [], []
        for query, point in zip(asked, points, strict=True):
            a = time.perf_counter()
            lexical.search(query, k)
            b = time.perf_counter()
            store.search(point[None], k)
            c = time.perf_counter()
            lexical_times.append(b - a)
            vector_times.append(c - b)
            both.append(c - a)
    return [
        f"{count:,}",
        f"{count / lexical_time:,.0f}",
        f"{count / vector_time:,.0f}",
        f"{save_time:.2f}",
        f"{open_time * 1e3:.0f}",
        f"{sizes[0]:.0f}",
        f"{sizes[1]:.0f}",
        percentiles(lexical_times),
        percentiles(vector_times),
        percentiles(both),
        f"{len(lexical.segments)} / {len(store.segments)}",
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}",
    ]


HEADINGS = (
    "chunks",
    "BM25 add, chunks/s",
    "vectors add, chunks/s",
    "save, s",
    "open, ms",
    "BM25, MB",
    "vectors, MB",
    "BM25 p50 / p95, ms",
    "vectors p50 / p95, ms",
    "both p50 / p95, ms",
    "segments",
    "peak memory, MB",
)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--chars", type=int, default=300)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("-k", type=int, default=30)
    args = parser.parse_args()
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + " --- |" * len(HEADINGS))
    for count in args.counts:
        print("| " + " | ".join(measure(count, args.dim, args.chars, args.queries, args.k)) + " |", flush=True)


if __name__ == "__main__":
    main()
