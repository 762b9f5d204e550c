"""What an ingestion tells: progress while it runs, and how each document ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.models import Job


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress callback gets: documents settled of all, chunks indexed so far, what happens now."""

    stage: str
    done: int
    total: int
    chunks: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """How one path ended; ``error`` says why it failed or was skipped."""

    path: str
    document_id: str | None
    status: str
    chunks: int
    error: str | None
    fidelity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobReport:
    """The outcome of a job, document by document."""

    job_id: str | None
    kb: str
    state: str
    documents: tuple[DocumentReport, ...]
    totals: dict[str, Any]
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return self.error is None and not any(document.status == "failed" for document in self.documents)

    def to_dict(self) -> dict[str, Any]:
        """The CLI contract's document."""
        return {
            "job_id": self.job_id,
            "kb": self.kb,
            "state": self.state,
            "documents": [
                {
                    "path": document.path,
                    "document_id": document.document_id,
                    "status": document.status,
                    "chunks": document.chunks,
                    "error": document.error,
                    "fidelity": document.fidelity,
                }
                for document in self.documents
            ],
            "totals": self.totals,
            "error": self.error,
        }


ProgressCallback = Callable[[Progress], None]


def report_of(job: Job, kb: str) -> JobReport:
    """A job's report as its rows stand."""
    documents = tuple(
        DocumentReport(item.path, item.document_id, item.state, item.chunks, item.error, item.fidelity or {})
        for item in job.items
    )
    return JobReport(job.id, kb, job.state, documents, dict(job.totals), job.error)
