"""Parsing, cutting and embedding on the machines of a Ray cluster, through Ray Data (extra ``[ray]``).

Each actor keeps a parsing process of its own (`ingest.runners.local`), so that limits hold and a bad file costs
nothing else there as well as here. All machines must see the files under the same path; where one
has another embedder, or none, its documents are embedded by whoever asked.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from gglm.errors import UserError
from ingest.embed import embed, index_texts
from ingest.limits import Limits
from ingest.runners import Outcome, Task
from ingest.runners.local import ParsingProcess
from ingest.runners.worker import plain, plain_chunks, restore
from rag.embedders import embedder_id, load_embedder
from rag.errors import InvalidInput

SLICE = 4096
"""Tasks that are handed to Ray at once; within a slice documents stream back as they are ready."""


class RayRunner:
    """Runs tasks over ``workers`` actors (0: as many as the cluster has processors).

    The cluster is the one that ``RAY_ADDRESS`` names; without it Ray is started on this machine and stopped afterwards.
    """

    def __init__(self, workers: int = 0, limits: Limits | None = None, embedder: str = "") -> None:
        self.workers = workers
        self.limits = limits or Limits()
        self.embedder = embedder

    def run(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        """One outcome a task, in any order.

        Raises:
            InvalidInput: Ray is not installed, or the cluster cannot be reached.
        """
        todo = iter(tasks)
        first = list(islice(todo, SLICE))
        if not first:
            return
        with _cluster(self.workers) as ray:
            workers = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            some = first
            while some:
                actors = min(workers, len(some))
                rows = ray.data.from_items(
                    [_row(task, self.limits, self.embedder) for task in some],
                    override_num_blocks=min(len(some), 8 * actors),
                ).map(
                    _Prepare,
                    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
                    num_cpus=1,
                )
                for row in rows.iter_rows():
                    yield _restored(json.loads(row["outcome"]), row["vectors"])
                some = list(islice(todo, SLICE))


def _row(task: Task, limits: Limits, embedder: str) -> dict[str, str]:
    """JSON, because Arrow takes no file name that is no UTF-8; with all settings, so that an actor can be restarted."""
    wanted = {"embedder": embedder, "embedder_id": embedder_id(embedder) if embedder else ""}
    return {"task": json.dumps(dataclasses.asdict(task)), "limits": json.dumps(dataclasses.asdict(limits)), **wanted}


class _Prepare:
    """What each actor runs: a task's row to its outcome's row."""

    def __init__(self) -> None:
        self.process: ParsingProcess | None = None

    def __call__(self, row: dict[str, str]) -> dict[str, Any]:
        if self.process is None:
            self.process = ParsingProcess(Limits(**json.loads(row["limits"])))
        outcome = self.process.run(Task(**json.loads(row["task"])))
        own = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
        own |= {"parsed": outcome.parsed and plain(outcome.parsed), "chunks": plain_chunks(outcome.chunks)}
        return {"outcome": json.dumps(own), "vectors": _vectors(outcome, row["embedder"], row["embedder_id"])}


def _vectors(outcome: Outcome, embedder: str, wanted: str) -> bytes:
    """Those of its chunks, row by row as little-endian float32; nothing where they cannot be made here."""
    if not embedder or outcome.parsed is None or not outcome.chunks:
        return b""
    try:
        model = load_embedder(embedder)
    except UserError:
        return b""
    if model.id != wanted:
        return b""
    return embed(model, index_texts(outcome.parsed, outcome.chunks), threads=1).astype("<f4").tobytes()


def _restored(answer: dict[str, Any], vectors: bytes) -> Outcome:
    parsed, chunks = restore(answer)
    given = np.frombuffer(vectors, dtype="<f4").astype(np.float32).reshape(len(chunks), -1) if vectors else None
    return Outcome(**(answer | {"parsed": parsed, "chunks": chunks, "vectors": given}))


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """The module ``ray``, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    try:
        import ray
        import ray.data
    except ImportError:
        raise InvalidInput("`--runner ray` needs Ray: pip install 'chatgglm[ray]'.") from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if not os.environ.get("RAY_ADDRESS"):
        processors = workers or os.cpu_count() or 1
        options |= {"address": "local", "num_cpus": processors, "include_dashboard": False}
        if sys.platform == "linux":  # Ray takes the outer address for 127.0.0.1, but no other loopback address
            options["_node_ip_address"] = "127.0.0.2"
    try:
        ray.init(**options)
    except Exception as error:  # Ray has no class for «did not start» and «cannot be reached»
        raise InvalidInput(f"Ray cannot be used: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        yield ray
    finally:
        ray.shutdown()
