"""Tables of knowledge bases, documents, versions, chunks and index generations.

A document is (knowledge base, path as ingested); its content lives in versions, one a content
hash. Deleting or replacing sets ``deleted_at`` on a version first (the tombstone): retrieval joins
SQL on it, so a deleted chunk cannot surface whatever an index file still holds.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from rag.store.base import Base, now

NEVER_REUSED = {"sqlite_autoincrement": True}
"""SQLite would give the ids of deleted rows to new ones; index files and citations may still hold them."""


def new_id() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())


class KnowledgeBase(Base):
    """A named set of documents with an index of its own."""

    __tablename__ = "knowledge_bases"
    __table_args__ = NEVER_REUSED

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    embedder: Mapped[str] = mapped_column(String(200))
    generation: Mapped[int] = mapped_column(default=0)
    """Number of the visible `IndexGeneration`; 0: none yet."""
    chunking: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Sizes of chunks that were asked for, for this and later ingestions; None: the settings'."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None] = mapped_column(default=None)

    documents: Mapped[list[Document]] = relationship(back_populates="kb", cascade="all, delete-orphan")


class Document(Base):
    """A source path within a knowledge base."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("kb_id", "path"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    kb_id: Mapped[int] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(String(1024))
    """Relative to what was ingested, ``/`` between parts, ``a.zip!/b.txt`` inside archives."""
    title: Mapped[str] = mapped_column(String(500))
    tags: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """In the order given. `DocumentTag` holds the same, to filter by."""
    meta: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """From front matter or a side-car file. `DocumentField` holds the same, to filter by."""
    dated: Mapped[date | None] = mapped_column(default=None, index=True)
    """The document's own date, where its metadata give one."""
    root: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """Opaque name of the folder that it was ingested from; empty for single files and uploads."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    deleted_at: Mapped[datetime | None] = mapped_column(default=None, index=True)

    kb: Mapped[KnowledgeBase] = relationship(back_populates="documents")
    versions: Mapped[list[DocumentVersion]] = relationship(
        back_populates="document", cascade="all, delete-orphan", order_by="DocumentVersion.id"
    )


class DocumentTag(Base):
    """A tag of a document, as a row that a search can filter by."""

    __tablename__ = "document_tags"

    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(100), primary_key=True, index=True)


class DocumentField(Base):
    """A metadata value of a document, as a row that a search can filter by; a list gives several rows."""

    __tablename__ = "document_fields"
    __table_args__ = (
        Index("ix_document_fields_name_value", "name", "value"),
        Index("ix_document_fields_name_number", "name", "number"),
    )

    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(String(500), primary_key=True)
    """As text: dates in ISO form (they sort), ``true``/``false``, numbers as JSON writes them."""
    number: Mapped[float | None] = mapped_column(default=None)
    """The same as a number, where it is one."""


class DocumentVersion(Base):
    """One content of a document; the live one has no ``deleted_at``."""

    __tablename__ = "document_versions"
    __table_args__ = NEVER_REUSED

    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), index=True)
    title: Mapped[str] = mapped_column(String(500), default="", server_default="")
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    """Hash of the original bytes."""
    sidecar_sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    """Hash of the side-car file with metadata; None: there was none."""
    media_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column()
    original: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the original bytes are kept (`rag.store.originals`)."""
    text: Mapped[str] = mapped_column(Text)
    """The canonical text that all offsets point into."""
    pages: Mapped[list[Any]] = mapped_column(JSON, default=list)
    """Start offset of each page, ascending; empty where the format has no pages."""
    fidelity: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """How faithful the extraction is: encoding, confidence, pages without text, garbage ratio."""
    signature: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)
    """MinHash of the text (`rag.store.duplicates`); None: too short to compare."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None] = mapped_column(default=None, index=True)

    document: Mapped[Document] = relationship(back_populates="versions")
    chunks: Mapped[list[Chunk]] = relationship(
        back_populates="version", cascade="all, delete-orphan", order_by="Chunk.ordinal"
    )


class SignatureBand(Base):
    """A part of a live version's signature. Texts that are much alike share at least one, nearly always."""

    __tablename__ = "signature_bands"

    kb_id: Mapped[int] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"), primary_key=True)
    band: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version_id: Mapped[int] = mapped_column(
        ForeignKey("document_versions.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class NearDuplicate(Base):
    """Two versions of different documents of a knowledge base that say nearly the same; a flag, no more."""

    __tablename__ = "near_duplicates"

    version_id: Mapped[int] = mapped_column(ForeignKey("document_versions.id", ondelete="CASCADE"), primary_key=True)
    """The later one."""
    other_id: Mapped[int] = mapped_column(
        ForeignKey("document_versions.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    similarity: Mapped[float] = mapped_column()
    """Share of common shingles (Jaccard), estimated, 0…1."""


class Chunk(Base):
    """A retrievable piece, ``version.text[char_start:char_end]``; its id is its id in the indexes too."""

    __tablename__ = "chunks"
    __table_args__ = (
        Index("ix_chunks_version_ordinal", "version_id", "ordinal", unique=True),
        NEVER_REUSED,
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("document_versions.id", ondelete="CASCADE"))
    ordinal: Mapped[int] = mapped_column()
    char_start: Mapped[int] = mapped_column()
    char_end: Mapped[int] = mapped_column()
    heading: Mapped[str] = mapped_column(String(500), default="")
    """Heading path, outermost first, parts joined by ' › '."""
    page: Mapped[int | None] = mapped_column(default=None)
    """Page of ``char_start``, from 1."""

    version: Mapped[DocumentVersion] = relationship(back_populates="chunks")


class IndexGeneration(Base):
    """A set of index files, immutable once visible; ``kb.generation`` points at the one in use."""

    __tablename__ = "index_generations"
    __table_args__ = (UniqueConstraint("kb_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kb_id: Mapped[int] = mapped_column(ForeignKey("knowledge_bases.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column()
    folder: Mapped[str] = mapped_column(String(200))
    embedder: Mapped[str] = mapped_column(String(200))
    dim: Mapped[int] = mapped_column()
    chunks: Mapped[int] = mapped_column()
    checksums: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)
