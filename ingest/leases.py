"""Who works at what: items of jobs, claimed under a lease that is renewed while the work goes on.

Any number of workers, in any process on any machine that reaches the database and the files, take
items of the same job. A worker that dies renews nothing; when its lease has run out, or at once
where it ran on this machine and its process is gone, others take its items over.
"""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from ingest.models import FINISHED, SETTLED, Job, JobItem
from rag.store.base import now

LEASE = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item that this worker may work on now."""

    id: int
    path: str
    file: str
    root: str
    ordinal: int


def new_worker() -> str:
    """A name that no other worker has; it says on which machine, and in which process."""
    return f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def claim(session: Session, job_id: str, worker: str, limit: int) -> list[Claimed]:
    """Takes up to ``limit`` items that nobody works on and that are due; none once the job is to stop or has ended.

    One statement: on PostgreSQL the rows that another worker is just taking are passed over (SKIP LOCKED), SQLite
    lets one writer in at a time.
    """
    taken = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.not_in(FINISHED), Job.cancel_requested.is_(False))
        .values(state="running", started_at=func.coalesce(Job.started_at, now()))
        .returning(Job.id)
    ).scalar()
    if taken is None:
        return []
    due = or_(JobItem.retry_at.is_(None), JobItem.retry_at <= now())
    pick = (
        select(JobItem.id)
        .where(JobItem.job_id == job_id, JobItem.state.not_in(SETTLED), _free(), due)
        .order_by(JobItem.ordinal)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("pick")
    )
    rows = session.execute(
        update(JobItem)
        .where(JobItem.id.in_(select(pick.c.id)))
        .values(
            state="parsing",
            lease_owner=worker,
            lease_until=now() + LEASE,
            attempts=JobItem.attempts + 1,
            started_at=func.coalesce(JobItem.started_at, now()),
        )
        .returning(JobItem.id, JobItem.path, JobItem.file, JobItem.root, JobItem.ordinal)
        .execution_options(synchronize_session=False)
    ).all()
    if rows:
        session.execute(update(Job).where(Job.id == job_id).values(lease_owner=worker, lease_until=now() + LEASE))
    return sorted((Claimed(*row) for row in rows), key=lambda item: item.ordinal)


def renew(session: Session, job_id: str, worker: str) -> bool:
    """Keeps the lease of all items that the worker holds; False where the job is to stop or has ended."""
    until = now() + LEASE
    going = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.not_in(FINISHED), Job.cancel_requested.is_(False))
        .values(lease_owner=worker, lease_until=until)
        .returning(Job.id)
    ).scalar()
    session.execute(
        update(JobItem)
        .where(JobItem.job_id == job_id, JobItem.lease_owner == worker, JobItem.state.not_in(SETTLED))
        .values(lease_until=until)
    )
    return going is not None


def held(session: Session, worker: str, item_ids: Sequence[int]) -> set[int]:
    """Of these items, those that are still the worker's; locked until the transaction ends."""
    return set(
        session.scalars(
            update(JobItem)
            .where(JobItem.id.in_(item_ids), JobItem.lease_owner == worker, JobItem.state.not_in(SETTLED))
            .values(lease_until=now() + LEASE)
            .returning(JobItem.id)
            .execution_options(synchronize_session=False)
        )
    )


def release(session: Session, job_id: str, worker: str) -> None:
    """Gives back what the worker holds and has not settled, as though it had not been tried."""
    session.execute(
        update(JobItem)
        .where(JobItem.job_id == job_id, JobItem.lease_owner == worker, JobItem.state.not_in(SETTLED))
        .values(state="queued", lease_owner=None, lease_until=None, attempts=JobItem.attempts - 1)
    )
    if not in_work(session, job_id):
        session.execute(update(Job).where(Job.id == job_id).values(lease_owner=None, lease_until=None))


def in_work(session: Session, job_id: str) -> bool:
    """Whether any worker holds an item of the job."""
    return bool(session.scalar(select(_open(job_id).where(~_free()).exists())))


def claimable(session: Session) -> list[str]:
    """Jobs with documents that could be claimed now, the oldest first."""
    due = or_(JobItem.retry_at.is_(None), JobItem.retry_at <= now())
    item = select(JobItem.id).where(JobItem.job_id == Job.id, JobItem.state.not_in(SETTLED), _free(), due)
    query = select(Job.id).where(Job.state.not_in(FINISHED), item.exists())
    return list(session.scalars(query.order_by(Job.created_at, Job.id)))


def reap(session: Session, job_id: str | None = None) -> int:
    """Takes the lease from workers of this machine whose process is gone; how many items that frees."""
    mine = select(JobItem.lease_owner).where(
        JobItem.lease_owner.startswith(f"{_machine()}:"), JobItem.state.not_in(SETTLED)
    )
    if job_id is not None:
        mine = mine.where(JobItem.job_id == job_id)
    dead = [name for name in session.scalars(mine.distinct()) if name and not _alive(name)]
    if not dead:
        return 0
    freed = session.execute(
        update(JobItem)
        .where(JobItem.lease_owner.in_(dead), JobItem.state.not_in(SETTLED))
        .values(state="queued", lease_owner=None, lease_until=None)
    )
    session.execute(update(Job).where(Job.lease_owner.in_(dead)).values(lease_owner=None, lease_until=None))
    return int(freed.rowcount)  # type: ignore[attr-defined]


def abandoned(session: Session, older_than: timedelta = timedelta(0)) -> list[str]:
    """Jobs that have not ended and that nobody works on (after `kill -9`, say), the oldest first."""
    reap(session)
    free = or_(Job.lease_until.is_(None), Job.lease_until < now())
    query = select(Job.id).where(Job.state.not_in(FINISHED), free, Job.created_at <= now() - older_than)
    return list(session.scalars(query.order_by(Job.created_at, Job.id)))


def _free() -> ColumnElement[bool]:
    return or_(JobItem.lease_until.is_(None), JobItem.lease_until < now())


def _open(job_id: str) -> Select[Any]:
    return select(JobItem.id).where(JobItem.job_id == job_id, JobItem.state.not_in(SETTLED))


@lru_cache(maxsize=1)
def _machine() -> str:
    """This machine, or this container: process numbers mean the same within it."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace} {uuid.getnode()}".encode()).hexdigest()[:12]


def _alive(worker: str) -> bool:
    """Whether the process of a worker of this machine still is (its number may have gone to another: alive, then)."""
    process = worker.split(":")[1]
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"  # dead, not yet buried
    except OSError:
        return True
