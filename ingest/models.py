"""Tables of ingestion jobs: one row a job, one a document in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, update
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from rag.store.base import Base, now
from rag.store.models import new_id

JOB_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
"""``failed``: at least one document failed, or the job itself did; the others are indexed all the same."""

FINISHED = ("succeeded", "failed", "cancelled")
ITEM_STATES = ("queued", "parsing", "chunking", "embedding", "indexed", "failed", "skipped")
SETTLED = ("indexed", "failed", "skipped")


class Job(Base):
    """One call of an ingestion. Its lease is that of the worker who last renewed one of its items."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    kb_id: Mapped[int] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(20), default="ingest")
    state: Mapped[str] = mapped_column(String(12), default="queued", index=True)
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    totals: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    deleted: Mapped[list[Any]] = mapped_column(JSON, default=list, server_default="[]")
    """What a sync deleted: ``{"path", "document_id"}`` each."""
    error: Mapped[str | None] = mapped_column(Text, default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(100), default=None)
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    items: Mapped[list[JobItem]] = relationship(
        back_populates="job", cascade="all, delete-orphan", order_by="JobItem.ordinal"
    )


class JobItem(Base):
    """One document of a job and how far it has come."""

    __tablename__ = "job_items"
    __table_args__ = (
        Index("ix_job_items_job_ordinal", "job_id", "ordinal", unique=True),
        Index("ix_job_items_job_state", "job_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    ordinal: Mapped[int] = mapped_column()
    path: Mapped[str] = mapped_column(String(1024))
    """As the document is called; relative to what was ingested."""
    file: Mapped[str] = mapped_column(Text, default="")
    """Where the bytes lie on this machine; never shown to a client."""
    root: Mapped[str] = mapped_column(String(16), default="")
    """Opaque name of the folder that was ingested (`ingest.sources.root_id`)."""
    state: Mapped[str] = mapped_column(String(12), default="queued")
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text, default=None)
    """Why it failed or was skipped, in plain words; while it waits for another attempt, why the last one failed."""
    retry_at: Mapped[datetime | None] = mapped_column(default=None)
    """Not to be tried again before that."""
    document_id: Mapped[str | None] = mapped_column(
        ForeignKey("documents.id", ondelete="SET NULL"), default=None, index=True
    )
    version_id: Mapped[int | None] = mapped_column(
        ForeignKey("document_versions.id", ondelete="SET NULL"), default=None, index=True
    )
    chunks: Mapped[int] = mapped_column(default=0)
    characters: Mapped[int] = mapped_column(default=0)
    size_bytes: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    fidelity: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    lease_owner: Mapped[str | None] = mapped_column(String(100), default=None)
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    @classmethod
    def purge_document(cls, session: Session, document_id: str) -> None:
        """What a report says of a purged document's text goes."""
        session.execute(update(cls).where(cls.document_id == document_id).values(fidelity={}))

    job: Mapped[Job] = relationship(back_populates="items")
