"""How much faster a job is done by two workers than by one, on PostgreSQL: `chatgglm jobs work` twice on the same job.

    python benchmarks/scale_out.py [--megabytes 2] [--cores 0 1] [--rounds 2]

Each worker and its parsing process are bound to one core, as though it were a machine of its own; the PostgreSQL server
may use all. Models are loaded beforehand. Documents are those of ingest_rate.py, made anew for each run's database.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from ingest_rate import documents  # noqa: E402

from tests.faults.process import Command, Zygote  # noqa: E402
from tests.postgres import PostgresServer  # noqa: E402


def on_core(core: int) -> Zygote:
    """A forking process that may use that core only, as its children may."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return Zygote()
    finally:
        os.sched_setaffinity(0, before)


def once(server: PostgresServer, workers: list[Zygote], folder: Path, scratch: Path) -> tuple[float, int]:
    """Seconds until the job is done by these workers, and its chunks."""
    from ingest import pipeline
    from rag.service import Service
    from rag.settings import Settings

    settings = Settings(home=scratch / "home", database_url=server.database())
    service = Service(settings)
    service.database.migrate()
    pipeline.submit(service, [folder])
    environment = {"CHATGGLM_HOME": str(settings.home), "CHATGGLM_DATABASE_URL": settings.database_url}
    began = time.perf_counter()
    for number, worker in enumerate(workers):
        argv = ("jobs", "work", "--workers", "1")
        worker.start(Command(argv, environment | {"OMP_NUM_THREADS": "1"}, scratch / str(number), batch=16))
    for ended in [worker.wait() for worker in workers]:
        assert ended.code == 0, ended.stderr
    seconds = time.perf_counter() - began
    report = service.indexes.verify("default")
    assert report.ok, report.problems
    service.database.close()
    return seconds, report.counts["chunks"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=2.0)
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="nothing but the report, as always, on stdout")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="chatgglm-scale-"))
    folder = scratch / "documents"
    folder.mkdir()
    documents(folder, options.megabytes)
    files = len(list(folder.iterdir()))
    zygotes = [on_core(core) for core in options.cores]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    chunks = 0
    with PostgresServer() as server:
        for number in range(options.rounds):
            order = (1, 2) if number % 2 == 0 else (2, 1)
            for count in order:
                took, chunks = once(server, zygotes[-count:], folder, scratch / f"{number}-{count}")
                seconds[count].append(took)
                print(f"{count} workers: {took:.1f} s, {chunks / took:.0f} chunks/s", file=sys.stderr)
    for zygote in zygotes:
        zygote.close()
    shutil.rmtree(scratch)
    best = {count: statistics.median(taken) for count, taken in seconds.items()}
    report: dict[str, Any] = {
        "documents": files,
        "chunks": chunks,
        "chunks_per_s_1": round(chunks / best[1], 1),
        "chunks_per_s_2": round(chunks / best[2], 1),
        "speed_up": round(best[1] / best[2], 2),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
