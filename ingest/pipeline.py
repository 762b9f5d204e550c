"""The ingestion itself: parse in processes, embed in batches, write versions, publish the index.

SQL and index never part: the rows of a batch of documents, their states and the index generation
that holds them become visible in one commit. A process that dies loses at most the batches in its hands, and the
next run takes up where it stopped: the same bytes at the same path are skipped (a forced job that was interrupted goes
on by `jobs retry`, with what it had not come to).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import jobs, leases
from ingest.limits import Limits
from ingest.report import JobReport, ProgressCallback
from ingest.runners import RunnerName, make_runner
from ingest.sources import Sources, expand
from ingest.work import Run

if TYPE_CHECKING:
    from rag.service import Service

LOOK = 2.0
"""Seconds between two looks for jobs."""


def ingest(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    force: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float | None = None,
    runner: RunnerName = RunnerName.LOCAL,
    sizes: Mapping[str, int | None] | None = None,
    progress: ProgressCallback | None = None,
) -> JobReport:
    """Files and folders into a knowledge base, which is made if there is none of that name.

    Args:
        service: the open installation.
        paths: files and folders; a document's path is relative to the one it came from.
        sync: afterwards delete the documents that came from the same folders and are gone there.
        force: also parse and index what is unchanged (OCR was installed since, say); it replaces the present version.
        include, exclude: shell patterns over relative paths, file names or folders.
        workers: parsing processes; 0: as many as there are processors, 4 at most.
        timeout: seconds that parsing one document may take, before those that its size adds; None: the setting.
        runner: where parsing runs, on this machine or on a Ray cluster.
        sizes: of chunks (`ingest.sizes`); the knowledge base keeps to them from now on.
        progress: called as documents settle.

    Raises:
        rag.errors.InvalidInput: sizes that make no sense.
        rag.errors.ChatGGLMError: the store cannot be used. A bad document raises nothing: it is
            listed in the report and the rest goes on.
    """
    job_id = submit(service, paths, kb, sync=sync, force=force, include=include, exclude=exclude, sizes=sizes)
    return run_job(service, job_id, workers=workers, timeout=timeout, runner=runner, progress=progress)


def submit(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    force: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    sizes: Mapping[str, int | None] | None = None,
    only: Collection[Path] | None = None,
) -> str:
    """Writes the job down without working on it; its id.

    ``sizes`` are stored with the knowledge base. ``only``: of what is found, just these files and what lies in
    these folders.

    Raises:
        rag.errors.InvalidInput: sizes that make no sense.
    """
    from ingest.sizes import chunk_sizes
    from rag.store.kbs import get_or_create_kb

    given = list(paths)
    sources = expand(given, include, exclude, Limits.of(service.settings))
    options: dict[str, Any] = {"sync": sync, "force": force, "roots": sources.complete}
    if sync:
        options["paths"] = [jobs.stored_name(str(Path(path).absolute())) for path in given]
    if only is not None:
        _restrict(sources, only)
    with service.database.session(write=True) as session:
        base = get_or_create_kb(session, kb, embedder=service.settings.embedder)
        wanted = chunk_sizes(service.settings, base.chunking, sizes)
        if any(size is not None for size in (sizes or {}).values()):
            base.chunking = wanted.to_dict()
        return jobs.create_job(session, base, sources, options).id


def run_job(
    service: Service,
    job_id: str,
    *,
    workers: int = 0,
    timeout: float | None = None,
    runner: RunnerName = RunnerName.LOCAL,
    progress: ProgressCallback | None = None,
    wait: bool = True,
) -> JobReport:
    """Works on a job to its end, together with whoever else does. What a dead worker left is taken over.

    Without ``wait`` it returns as soon as no document is left to be claimed, though others may still be at theirs.

    Raises:
        rag.errors.NotFound: no such job.
        rag.errors.Conflict: it has ended.
    """
    from ingest.sizes import chunk_sizes
    from rag.errors import Conflict
    from rag.store.models import KnowledgeBase

    with service.database.session(write=True) as session:
        job = jobs.get_job(session, job_id)
        state = job.state
        sizes = chunk_sizes(service.settings, session.get_one(KnowledgeBase, job.kb_id).chunking).to_dict()
        leases.reap(session, job_id)
    if state in jobs.FINISHED:
        raise Conflict(f"Job {job_id} has ended ({state}); `chatgglm jobs retry {job_id}` tries again what failed.")
    run = Run(service, job_id, progress)
    error: str | None = None
    try:
        run.work(make_runner(runner, workers, Limits.of(service.settings, timeout, sizes), _embedder(service)), wait)
    except BaseException as caught:
        error = str(caught) or "interrupted"
        raise
    finally:
        report = run.stop(error)
    service.indexes.settle(run.kb)  # all is found already; but this process may end now
    return report


def resume(service: Service, progress: ProgressCallback | None = None) -> list[JobReport]:
    """Takes up every job that nobody works on any more (its process was killed, say)."""
    with service.database.session(write=True) as session:
        waiting = leases.abandoned(session)
    return [run_job(service, job_id, progress=progress) for job_id in waiting]


def serve_jobs(
    service: Service,
    stop: Callable[[], bool],
    *,
    workers: int = 0,
    runner: RunnerName = RunnerName.LOCAL,
    told: Callable[[JobReport], None] = lambda _: None,
) -> None:
    """Works on whatever jobs there are, beside other workers, until ``stop()``; asked whenever none is left."""
    from rag.errors import Conflict, NotFound

    while True:
        with service.database.session(write=True) as session:
            left = leases.abandoned(session)
            shared = [job_id for job_id in leases.claimable(session) if job_id not in left]
        for job_id in left + shared:
            try:
                report = run_job(service, job_id, workers=workers, runner=runner, wait=job_id in left)
            except (Conflict, NotFound):  # it ended, or its knowledge base was deleted, just now
                continue
            told(report)
        if not left and not shared:
            if stop():
                return
            time.sleep(LOOK)


def _embedder(service: Service) -> str:
    """The name by which other machines load the same embedder; empty: they cannot."""
    from rag.embedders import embedder_id

    name = service.settings.embedder
    return name if embedder_id(name) == service.indexes.embedder_id else ""


def _restrict(sources: Sources, only: Collection[Path]) -> None:
    """Of what was found, what is, or lies in, one of these files and folders."""
    wanted = {Path(os.path.abspath(path)) for path in only}
    names = {path.name for path in wanted}
    files = {source: Path(os.path.abspath(source.file)) for source in sources.files}
    sources.files = [source for source, file in files.items() if not wanted.isdisjoint((file, *file.parents))]
    sources.problems = [problem for problem in sources.problems if not names.isdisjoint(Path(problem.path).parts)]
