"""What an ingestion tells: progress while it runs, and how each document ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import Job, JobItem
    from rag.store.duplicates import Twin

WINDOW = timedelta(seconds=60)
"""Rates are those of the documents settled within this time."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: documents settled of all, whoever worked on them, and what happens here now."""

    stage: str
    done: int
    total: int
    chunks: int
    path: str = ""
    documents_per_s: float = 0.0
    chunks_per_s: float = 0.0
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """How one path ended; ``error`` says why it failed or was skipped.

    ``action``, in a dry run only: ``index``, ``replace``, ``skip`` or ``fail``.
    """

    path: str
    document_id: str | None
    status: str
    chunks: int
    error: str | None
    fidelity: dict[str, Any] = field(default_factory=dict)
    near_duplicates: tuple[Twin, ...] = ()
    action: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in the CLI contract."""
        return {
            "path": self.path,
            "document_id": self.document_id,
            "status": self.status,
            "chunks": self.chunks,
            "error": self.error,
            "fidelity": self.fidelity,
            "near_duplicates": [twin_to_dict(twin) for twin in self.near_duplicates],
        } | ({"action": self.action} if self.action else {})


@dataclass(frozen=True, slots=True)
class JobReport:
    """The outcome of a job, document by document; ``deleted`` is what a sync deleted, as path and id."""

    job_id: str | None
    kb: str
    state: str
    documents: tuple[DocumentReport, ...]
    totals: dict[str, Any]
    error: str | None = None
    deleted: tuple[dict[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing failed, nothing was left out."""
        return (
            self.error is None
            and self.state != "cancelled"
            and not any(document.status == "failed" for document in self.documents)
        )

    def to_dict(self) -> dict[str, Any]:
        """The CLI contract's document."""
        return {
            "job_id": self.job_id,
            "kb": self.kb,
            "state": self.state,
            "documents": [document.to_dict() for document in self.documents],
            "deleted": list(self.deleted),
            "totals": self.totals,
            "error": self.error,
        }


ProgressCallback = Callable[[Progress], None]


def report_of(session: Session, job: Job, kb: str) -> JobReport:
    """A job's report as its rows stand."""
    twins = _twins(session, job.items)
    documents = tuple(
        DocumentReport(
            item.path,
            item.document_id,
            item.state,
            item.chunks,
            item.error,
            item.fidelity or {},
            twins.get(item.version_id or 0, ()),
        )
        for item in job.items
    )
    return JobReport(job.id, kb, job.state, documents, dict(job.totals), job.error, tuple(job.deleted or ()))


def job_to_dict(session: Session, job: Job, kb: str, with_documents: bool = True) -> dict[str, Any]:
    """A job for API and command line: state, progress with rates, and unless told otherwise each document."""
    from ingest.jobs import totals
    from ingest.models import FINISHED

    found = totals(session, job) | {name: value for name, value in (job.totals or {}).items() if name == "seconds"}
    done = found["documents"] - found["pending"]
    progress: dict[str, Any] = {"done": done, "total": found["documents"]}
    if job.state not in FINISHED:
        progress |= rates(session, job)
    shown: dict[str, Any] = {
        "id": job.id,
        "kb": kb,
        "state": job.state,
        "progress": progress,
        "totals": found,
        "error": job.error,
        "created_at": _iso(job.created_at),
        "started_at": _iso(job.started_at),
        "finished_at": _iso(job.finished_at),
    }
    if with_documents:
        twins = _twins(session, job.items)
        shown["documents"] = [_item_to_dict(item, twins.get(item.version_id or 0, ())) for item in job.items]
        shown["deleted"] = list(job.deleted or ())
    return shown


def rates(session: Session, job: Job) -> dict[str, Any]:
    """Documents, chunks and bytes a second of late, and the seconds left at that rate (None: not known yet)."""
    from sqlalchemy import func, select

    from ingest.models import SETTLED, JobItem
    from rag.store.base import now

    moment = now()
    since = max(job.started_at or moment, moment - WINDOW)
    seconds = max(1.0, (moment - since).total_seconds())
    documents, chunks, size = session.execute(
        select(func.count(), func.coalesce(func.sum(JobItem.chunks), 0), func.coalesce(func.sum(JobItem.size_bytes), 0))
        .where(JobItem.job_id == job.id, JobItem.state.in_(SETTLED), JobItem.finished_at >= since)
        .where(JobItem.started_at.is_not(None))
    ).one()
    left, rest = session.execute(
        select(func.count(), func.coalesce(func.sum(JobItem.size_bytes), 0)).where(
            JobItem.job_id == job.id, JobItem.state.not_in(SETTLED)
        )
    ).one()
    ahead: float | None = None
    if left == 0:
        ahead = 0.0
    elif documents:  # by bytes and by documents, whichever is more careful: sizes in archives are not known
        ahead = max(left / documents, rest / size if size else 0.0) * seconds
    return {
        "documents_per_s": round(documents / seconds, 2),
        "chunks_per_s": round(int(chunks) / seconds, 1),
        "bytes_per_s": round(int(size) / seconds),
        "seconds_left": None if ahead is None else round(ahead, 1),
    }


def twin_to_dict(twin: Twin) -> dict[str, Any]:
    """A near-duplicate, as everything that prints JSON shows it."""
    return {"document_id": twin.document_id, "path": twin.path, "similarity": twin.similarity}


def _item_to_dict(item: JobItem, twins: Iterable[Twin]) -> dict[str, Any]:
    """``file`` stays inside."""
    return {
        "path": item.path,
        "document_id": item.document_id,
        "status": item.state,
        "chunks": item.chunks,
        "error": item.error,
        "attempts": item.attempts,
        "retry_at": _iso(item.retry_at),
        "fidelity": item.fidelity or {},
        "near_duplicates": [twin_to_dict(twin) for twin in twins],
    }


def _twins(session: Session, items: Iterable[JobItem]) -> dict[int, tuple[Twin, ...]]:
    from rag.store.duplicates import near_duplicates

    found = near_duplicates(session, [item.version_id for item in items if item.version_id])
    return {version: tuple(twins) for version, twins in found.items()}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat() + "Z"
