"""Jobs in SQL: made, advanced document by document, finished, cancelled, tried again. Who works on them: `leases`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from ingest.leases import in_work
from ingest.models import FINISHED, SETTLED, Job, JobItem
from ingest.sources import Source, Sources, address
from rag.errors import Conflict, NotFound
from rag.store.base import now
from rag.store.models import KnowledgeBase

ATTEMPTS = 3
"""How often a document is tried whose failure may be passing: a crashed parser, a share that did not answer …"""
BACKOFF = timedelta(seconds=2)
"""Before the second attempt; four times as long before each further one."""
CANCELLED = "the job was cancelled"


def create_job(session: Session, kb: KnowledgeBase, sources: Sources, options: dict[str, Any]) -> Job:
    """A queued job with one item a source, and one already settled for each path that gave none."""
    job = Job(kb_id=kb.id, options=options)
    rows = [
        JobItem(path=source.path, file=stored_name(address(source)), root=source.root, size_bytes=_size(source))
        for source in sources.files
    ]
    rows += [
        JobItem(path=problem.path, state=problem.status, error=problem.error, finished_at=now())
        for problem in sources.problems
    ]
    for ordinal, row in enumerate(sorted(rows, key=lambda row: row.path)):
        row.ordinal = ordinal
        job.items.append(row)
    session.add(job)
    session.flush()
    return job


def stored_name(name: str) -> str:
    """A file's name as text that every database takes: no UTF-8 as ``bytes:`` and hex digits."""
    try:
        name.encode("utf-8")
        return name
    except UnicodeEncodeError:
        return f"bytes:{os.fsencode(name).hex()}"


def opened_name(stored: str) -> str:
    """The name to open the file by."""
    return os.fsdecode(bytes.fromhex(stored[6:])) if stored.startswith("bytes:") else stored


def get_job(session: Session, job_id: str) -> Job:
    """Raises `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id}. `chatgglm jobs list` shows those there are.")
    return job


def list_jobs(session: Session, kb: KnowledgeBase | None = None, limit: int = 50) -> Sequence[Job]:
    """The latest first."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    return session.scalars(query if kb is None else query.where(Job.kb_id == kb.id)).all()


def cancel_job(session: Session, job_id: str) -> Job:
    """Asks for a stop; documents that are indexed stay.

    Raises:
        NotFound: no such job.
        Conflict: it has ended.
    """
    job = get_job(session, job_id)
    if job.state in FINISHED:
        raise Conflict(f"Job {job_id} has ended ({job.state}).")
    job.cancel_requested = True
    session.flush()
    if not in_work(session, job_id):
        finish(session, job)
    return job


def retry_job(session: Session, job_id: str) -> Job:
    """Queues again what failed, what a cancellation left out and what was never come to, in a job that has ended.

    Raises:
        NotFound: no such job.
        Conflict: it has not ended, or nothing in it failed.
    """
    job = get_job(session, job_id)
    if job.state not in FINISHED:
        raise Conflict(f"Job {job_id} has not ended ({job.state}); `chatgglm jobs cancel` stops it.")
    again = session.execute(
        update(JobItem)
        .where(
            JobItem.job_id == job_id,
            JobItem.file != "",
            or_(JobItem.state == "failed", JobItem.error == CANCELLED, JobItem.state.not_in(SETTLED)),
        )
        .values(state="queued", attempts=0, retry_at=None, lease_owner=None, lease_until=None, finished_at=None)
        .execution_options(synchronize_session="fetch")
    )
    if not again.rowcount and not job.error:  # type: ignore[attr-defined]
        raise Conflict(f"In job {job_id} nothing failed that could be tried again.")
    job.state, job.cancel_requested, job.error = "queued", False, None
    job.started_at = job.finished_at = job.lease_owner = job.lease_until = None
    session.flush()
    return job


def settle(item: JobItem, state: str, error: str | None = None) -> None:
    """Ends the work on an item."""
    item.state = state
    item.error = error
    item.retry_at = item.lease_owner = item.lease_until = None
    item.finished_at = now()
    item.started_at = item.started_at or item.finished_at


def fail(item: JobItem, error: str, passing: bool = False) -> None:
    """An attempt at an item failed; where the cause may pass and attempts are left, it is tried again later."""
    if not passing or item.attempts >= ATTEMPTS:
        tried = f" (tried {item.attempts} times)" if passing else ""
        settle(item, "failed", error + tried)
        return
    postpone(item, BACKOFF * 4 ** (item.attempts - 1))
    item.error = error


def postpone(item: JobItem, wait: timedelta) -> None:
    """Back into the queue, not to be claimed before ``wait`` is over."""
    item.state = "queued"
    item.retry_at = now() + wait
    item.lease_owner = item.lease_until = None


def mark(session: Session, item_ids: Iterable[int], worker: str, state: str) -> None:
    """Says how far the worker's items are, for whoever looks on."""
    session.execute(
        update(JobItem)
        .where(JobItem.id.in_(list(item_ids)), JobItem.lease_owner == worker, JobItem.state.not_in(SETTLED))
        .values(state=state)
        .execution_options(synchronize_session=False)
    )


def all_settled(session: Session, job_id: str) -> bool:
    """Whether no document of the job is left to be worked on."""
    rest = select(JobItem.id).where(JobItem.job_id == job_id, JobItem.state.not_in(SETTLED))
    return not session.scalar(select(rest.exists()))


def finish(session: Session, job: Job, error: str | None = None) -> None:
    """Counts the job's outcome and ends it. With an ``error`` what is not settled stays queued, for `retry_job`."""
    session.flush()
    if job.cancel_requested:
        left = select(JobItem).where(JobItem.job_id == job.id, JobItem.state.not_in(SETTLED))
        for item in session.scalars(left):
            settle(item, "skipped", CANCELLED)
        session.flush()
    job.finished_at = now()
    job.totals = totals(session, job)
    job.error = error
    if job.cancel_requested:
        job.state = "cancelled"
    else:
        job.state = "failed" if error or job.totals["failed"] else "succeeded"
    job.lease_owner = job.lease_until = None


def totals(session: Session, job: Job) -> dict[str, Any]:
    """Counts over the job's items; characters and bytes are those of the documents indexed now. ``seconds``, once it
    has ended, from the first claim on: whole ones."""
    rows = session.execute(
        select(
            JobItem.state,
            func.count(),
            func.sum(JobItem.chunks),
            func.sum(JobItem.characters),
            func.sum(JobItem.size_bytes),
        )
        .where(JobItem.job_id == job.id)
        .group_by(JobItem.state)
    ).all()
    counts = {state: int(count) for state, count, *_ in rows}
    sums = next(((int(a), int(b), int(c)) for state, _, a, b, c in rows if state == "indexed"), (0, 0, 0))
    found: dict[str, Any] = {
        "documents": sum(counts.values()),
        "indexed": counts.get("indexed", 0),
        "skipped": counts.get("skipped", 0),
        "failed": counts.get("failed", 0),
        "pending": sum(count for state, count in counts.items() if state not in SETTLED),
        "chunks": sums[0],
        "characters": sums[1],
        "bytes": sums[2],
        "deleted": len(job.deleted or ()),
    }
    if job.started_at and job.finished_at:
        found["seconds"] = (job.finished_at - job.started_at).total_seconds()
    return found


def _size(source: Source) -> int:
    """Bytes, for the forecast of a job's end; 0 where they are not known beforehand."""
    try:
        return 0 if source.member else source.file.stat().st_size
    except OSError:
        return 0
