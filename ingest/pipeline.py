"""The ingestion itself: parse in processes, embed in batches, write versions, publish the index.

SQL and index never part: the rows of a batch of documents, their states and the index generation
that holds them become visible in one commit. A process that dies loses at most its batch, and the
next run takes up where it stopped: the same bytes at the same path are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ingest import jobs
from ingest.limits import Limits
from ingest.report import DocumentReport, JobReport, ProgressCallback
from ingest.runners import Task
from ingest.runners.local import LocalRunner
from ingest.sources import address, expand
from ingest.work import Run

if TYPE_CHECKING:
    from rag.service import Service


def ingest(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float | None = None,
    progress: ProgressCallback | None = None,
) -> JobReport:
    """Files and folders into a knowledge base, which is made if there is none of that name.

    Args:
        service: the open installation.
        paths: files and folders; a document's path is relative to the one it came from.
        sync: afterwards delete the documents that came from the same folders and are gone there.
        include, exclude: shell patterns over relative paths or file names.
        workers: parsing processes; 0: as many as there are processors, 4 at most.
        timeout: seconds that parsing one document may take, before those that its size adds; None: the setting.
        progress: called as documents settle.

    Raises:
        rag.errors.ChatGGLMError: the store cannot be used. A bad document raises nothing: it is
            listed in the report and the rest goes on.
    """
    job_id = submit(service, paths, kb, sync=sync, include=include, exclude=exclude)
    return run_job(service, job_id, workers=workers, timeout=timeout, progress=progress)


def submit(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> str:
    """Writes the job down without working on it; its id."""
    from rag.store.kbs import get_or_create_kb

    sources = expand(paths, include, exclude, Limits.of(service.settings))
    options = {"sync": sync, "roots": sources.complete}
    with service.database.session(write=True) as session:
        base = get_or_create_kb(session, kb, embedder=service.settings.embedder)
        return jobs.create_job(session, base, sources, options).id


def dry_run(
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float | None = None,
) -> JobReport:
    """What an ingestion would index (status ``parsed``), without touching any store."""
    from rag.settings import get_settings

    limits = Limits.of(get_settings(), timeout)
    sources = expand(paths, include, exclude, limits)
    found = [DocumentReport(p.path, None, p.status, 0, p.error) for p in sources.problems]
    characters = size = 0
    tasks = [Task(i, address(source), source.path) for i, source in enumerate(sources.files)]
    for outcome in LocalRunner(workers, limits).run(tasks):
        path = sources.files[outcome.key].path
        fidelity = outcome.parsed.fidelity if outcome.parsed else {}
        found.append(DocumentReport(path, None, outcome.status, len(outcome.chunks), outcome.error or None, fidelity))
        characters += len(outcome.parsed.text) if outcome.parsed else 0
        size += outcome.size_bytes
    documents = tuple(sorted(found, key=lambda document: document.path))
    counts = {state: sum(d.status == state for d in documents) for state in ("parsed", "skipped", "failed")}
    totals = {
        "documents": len(documents),
        **counts,
        "chunks": sum(document.chunks for document in documents),
        "characters": characters,
        "bytes": size,
    }
    return JobReport(None, kb, "dry-run", documents, totals)


def run_job(
    service: Service,
    job_id: str,
    *,
    workers: int = 0,
    timeout: float | None = None,
    progress: ProgressCallback | None = None,
) -> JobReport:
    """Works on a job to its end. A job whose worker died is taken up where it stopped.

    Raises:
        rag.errors.NotFound: no such job.
        rag.errors.Conflict: another worker is at it, or it has ended.
    """
    from rag.errors import Conflict

    worker = jobs.owner()
    with service.database.session(write=True) as session:
        job = jobs.get_job(session, job_id)
        if not jobs.claim(session, job_id, worker):
            raise Conflict(f"Job {job_id} is being worked on, or has ended ({job.state}).")
    run = Run(service, job_id, worker, progress)
    error: str | None = None
    try:
        run.work(LocalRunner(workers, Limits.of(service.settings, timeout)))
    except BaseException as caught:
        error = str(caught) or "interrupted"
        raise
    finally:
        report = run.finish(error)
    return report


def resume(service: Service, progress: ProgressCallback | None = None) -> list[JobReport]:
    """Takes up every job that nobody works on any more (its process was killed, say)."""
    with service.database.session() as session:
        waiting = jobs.abandoned(session)
    return [run_job(service, job_id, progress=progress) for job_id in waiting]
