"""Texts to vectors, many at once: batches of like lengths, side by side on the processors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ingest.types import ChunkSpan, Parsed
from rag.index.text import index_text
from rag.ports import Embedder, FloatMatrix

BATCH = 64
MOST_THREADS = 4


def index_texts(parsed: Parsed, chunks: Sequence[ChunkSpan]) -> list[str]:
    """What is embedded and indexed of each chunk."""
    return [index_text(parsed.title, c.heading, parsed.text[c.char_start : c.char_end]) for c in chunks]


def embed(embedder: Embedder, texts: Sequence[str], threads: int = 0) -> FloatMatrix:
    """Vectors float32 (n, dim) in the order of ``texts``.

    Args:
        embedder: safe to use from several threads, as all of ours are.
        texts: what is indexed, in any order of lengths; sorted here, so that little is padded.
        threads: batches under way at once; 0: as many as there are processors, 4 at most.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)

    def fill(rows: list[int]) -> None:
        vectors[rows] = embedder.encode_passages([texts[i] for i in rows])

    count = min(threads or min(MOST_THREADS, processors()), len(batches))
    if count < 2:
        for rows in batches:
            fill(rows)
        return vectors
    with ThreadPoolExecutor(count, "embed", _one_thread_each) as pool:
        for _ in pool.map(fill, reversed(batches)):  # the longest first: the last to end are short
            pass
    return vectors


def processors() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _one_thread_each() -> None:
    """One thread a batch is faster than several on one, which wait for each other whenever anything else runs."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
