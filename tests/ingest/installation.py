"""An installation for tests: the real store and indexes, and an embedder that needs no weights.

Run as a script it ingests a folder, for tests that kill the process:
``python -m tests.ingest.installation HOME FOLDER [DELAY]``; it prints a line at each step. Instead of a folder it
takes the id of a job, and works on that.
"""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from rag.ports import FloatMatrix
from rag.service import Service
from rag.settings import Settings


class HashEmbedder:
    """Character bigrams hashed to 64 dimensions: real vectors, cheap and the same in every process."""

    id = "test-hash-64"
    dim = 64

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        time.sleep(self.delay)
        vectors = np.full((len(texts), self.dim), 0.01, dtype=np.float32)
        for row, text in enumerate(texts):
            for pair in pairwise(text):
                vectors[row, zlib.crc32("".join(pair).encode("utf-8", "replace")) % self.dim] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_passages


def installation(home: Path, delay: float = 0.0, database_url: str = "") -> Service:
    url = database_url or os.environ.get("CHATGGLM_DATABASE_URL", "")
    service = Service(Settings(home=home, database_url=url), embedder=HashEmbedder(delay))
    service.database.migrate()
    return service


if __name__ == "__main__":
    from ingest import pipeline, work

    work.FLUSH_DOCUMENTS = work.CLAIM = 2
    service = installation(Path(sys.argv[1]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
    job_id = pipeline.submit(service, [sys.argv[2]]) if Path(sys.argv[2]).exists() else sys.argv[2]
    pipeline.run_job(service, job_id, workers=1, progress=lambda step: print(step, flush=True))
