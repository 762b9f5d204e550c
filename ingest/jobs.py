"""Jobs in SQL: made, claimed under a lease, advanced document by document, finished, cancelled."""

from __future__ import annotations

import os
import socket
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from ingest.models import Job, JobItem
from ingest.sources import Source, Sources, address
from rag.errors import Conflict, NotFound
from rag.store.base import now
from rag.store.models import KnowledgeBase

LEASE = timedelta(seconds=90)
FINISHED = ("succeeded", "failed", "cancelled")
SETTLED = ("indexed", "failed", "skipped")


def owner() -> str:
    """A name for this worker that no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def create_job(session: Session, kb: KnowledgeBase, sources: Sources, options: dict[str, Any]) -> Job:
    """A queued job with one item a source, and one already settled for each path that gave none."""
    job = Job(kb_id=kb.id, options=options)
    rows = [JobItem(path=source.path, file=stored_name(source), root=source.root) for source in sources.files]
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


def stored_name(source: Source) -> str:
    """Where its bytes lie, as text that every database takes: no UTF-8 as ``bytes:`` and hex digits."""
    name = address(source)
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
        raise NotFound(f"There is no job {job_id}.")
    return job


def list_jobs(session: Session, kb: KnowledgeBase | None = None, limit: int = 50) -> Sequence[Job]:
    """The latest first."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    return session.scalars(query if kb is None else query.where(Job.kb_id == kb.id)).all()


def claim(session: Session, job_id: str, worker: str) -> bool:
    """Takes the lease of a job that nobody works on; False if someone does or it is finished."""
    free = or_(Job.lease_until.is_(None), Job.lease_until < now())
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.not_in(FINISHED), free)
        .values(
            state="running",
            lease_owner=worker,
            lease_until=now() + LEASE,
            attempts=Job.attempts + 1,
            started_at=func.coalesce(Job.started_at, now()),
        )
    )
    return bool(taken.rowcount)  # type: ignore[attr-defined]


def renew(session: Session, job_id: str, worker: str) -> bool:
    """Keeps the lease; False where it was lost or the job is to be cancelled."""
    kept = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.lease_owner == worker, Job.cancel_requested.is_(False))
        .values(lease_until=now() + LEASE)
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


def abandoned(session: Session) -> list[str]:
    """Jobs that were begun or queued and that nobody works on any more (after `kill -9`, say)."""
    free = or_(Job.lease_until.is_(None), Job.lease_until < now())
    query = select(Job.id).where(Job.state.in_(("queued", "running")), free).order_by(Job.created_at)
    return list(session.scalars(query))


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
    if job.lease_until is None or job.lease_until < now():
        finish(session, job)
    return job


def settle(item: JobItem, state: str, error: str | None = None) -> None:
    """Moves an item on, with the times that go with it."""
    moment = now()
    item.state = state
    item.error = error
    if item.started_at is None:
        item.started_at = moment
    if state in SETTLED:
        item.finished_at = moment


def finish(session: Session, job: Job, error: str | None = None) -> None:
    """Counts the job's outcome and releases its lease."""
    session.flush()
    job.totals = totals(job)
    job.error = error
    if job.cancel_requested:
        job.state = "cancelled"
        for item in job.items:
            if item.state not in SETTLED:
                settle(item, "skipped", "the job was cancelled")
        job.totals = totals(job)
    else:
        job.state = "failed" if error or job.totals["failed"] else "succeeded"
    job.finished_at = now()
    job.lease_owner = job.lease_until = None


def totals(job: Job) -> dict[str, Any]:
    """Counts over the job's items; characters and bytes are those of the documents indexed now."""
    states = Counter(item.state for item in job.items)
    indexed = [item for item in job.items if item.state == "indexed"]
    return {
        "documents": len(job.items),
        "indexed": states["indexed"],
        "skipped": states["skipped"],
        "failed": states["failed"],
        "pending": sum(states.values()) - sum(states[state] for state in SETTLED),
        "chunks": sum(item.chunks for item in indexed),
        "characters": sum(item.characters for item in indexed),
        "bytes": sum(item.size_bytes for item in indexed),
    }


def item_to_dict(item: JobItem) -> dict[str, Any]:
    """As in the CLI contract; ``file`` stays inside."""
    return {
        "path": item.path,
        "document_id": item.document_id,
        "status": item.state,
        "chunks": item.chunks,
        "error": item.error,
        "fidelity": item.fidelity or {},
    }


def job_to_dict(job: Job, kb: str) -> dict[str, Any]:
    """A job for the API: state, progress, and each document."""
    found = totals(job)
    return {
        "id": job.id,
        "kb": kb,
        "state": job.state,
        "progress": {"done": found["documents"] - found["pending"], "total": found["documents"]},
        "totals": found,
        "error": job.error,
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "finished_at": _iso(job.finished_at),
        "documents": [item_to_dict(item) for item in job.items],
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat() + "Z"
