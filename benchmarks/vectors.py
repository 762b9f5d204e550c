"""FAISS flat, HNSW and IVF side by side over the same vectors: what each costs, and what it misses.

    python benchmarks/vectors.py [10000 30000 100000] [--embeddings FILE.npy] [--json]

Recall@10 is measured against the flat index. Without ``--embeddings`` (float32, unit rows, made by
`chatgglm embed`), vectors lie around 2,000 topics, which is easier than language. Times are CPU times of
one thread. These figures are behind `Settings.hnsw_from` and `Settings.ivf_from`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import vectors

from rag.index import kinds
from rag.index.kinds import Kind
from rag.index.vectors import Segment
from rag.ports import FloatMatrix

Figures = dict[str, Any]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf")


def measure(rows: FloatMatrix, queries: FloatMatrix, k: int = 30) -> Figures:
    """Build, size, latency and recall of each kind."""
    report: Figures = {}
    exact: list[set[int]] = []
    everything = np.ones(len(rows), dtype=bool)
    few = np.random.default_rng(5).random(len(rows)) < 0.01
    for kind in KINDS:
        began = time.process_time()
        segment = Segment.build(np.arange(len(rows)), rows, kind)
        built = time.process_time() - began
        size = kinds.faiss().serialize_index(segment.index).nbytes / 1e6
        found = []
        times = []
        for query in queries:
            began = time.process_time()
            ids, _ = segment.nearest(query[None], k, everything, exact=False)
            times.append(1000 * (time.process_time() - began))
            found.append(set(ids[0, :10].tolist()))
        began = time.process_time()
        for query in queries:
            segment.nearest(query[None], k, few, exact=True)
        filtered = 1000 * (time.process_time() - began) / len(queries)
        exact = exact or found
        report[kind] = {
            "build_s": built,
            "mb": size,
            "p50_ms": float(np.percentile(times, 50)),
            "p95_ms": float(np.percentile(times, 95)),
            "filtered_ms": filtered,
            "recall_at_10": float(np.mean([len(a & b) / 10 for a, b in zip(found, exact, strict=True)])),
        }
    return report


def main() -> None:
    """Print the table, as Markdown or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=[10_000, 30_000, 100_000])
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--queries", type=Path, help="embedded queries; else passages a little off")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    kinds.faiss().omp_set_num_threads(1)
    base = np.load(arguments.embeddings) if arguments.embeddings else None
    report: Figures = {}
    for count in arguments.counts:
        if base is not None and count <= len(base):
            rows = np.ascontiguousarray(base[:count])
        else:
            rows = vectors(count, base.shape[1] if base is not None else arguments.dim, base=base)
        if arguments.queries:
            asked = np.load(arguments.queries)[:200]
        else:
            asked = vectors(200, rows.shape[1], seed=7, base=rows)
        report[str(count)] = measure(rows, asked)
    if arguments.json:
        print(json.dumps(report))
        return
    print("| vectors | kind | build, s | MB | p50 / p95, ms | 1 % allowed, ms | recall@10 |")
    print("|---" * 7 + "|")
    for count, by_kind in report.items():
        for kind, f in by_kind.items():
            latency = f"{f['p50_ms']:.2f} / {f['p95_ms']:.2f} | {f['filtered_ms']:.2f}"
            start = f"| {int(count):,} | {kind} | {f['build_s']:.1f} | {f['mb']:.0f}"
            print(f"{start} | {latency} | {f['recall_at_10']:.3f} |")


if __name__ == "__main__":
    main()
