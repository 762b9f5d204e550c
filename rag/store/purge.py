"""Purging: nothing that a document said stays in the database. Deleting alone keeps what old answers cite."""

from __future__ import annotations

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from rag.errors import NotFound
from rag.store.base import Base, load_models
from rag.store.duplicates import forget_duplicates
from rag.store.kbs import get_kb
from rag.store.models import Chunk, Document, DocumentField, DocumentTag, DocumentVersion
from rag.store.session import Database


def find_any_document(session: Session, name: str, kb_slug: str) -> Document:
    """A document by its id in any knowledge base, or by its path in the one of that slug, deleted or not.

    Raises:
        NotFound: there never was one.
    """
    found = session.get(Document, name)
    if found is None:
        kb = get_kb(session, kb_slug)
        found = session.scalar(select(Document).where(Document.kb_id == kb.id, Document.path == name))
    if found is None or found.kb.deleted_at is not None:
        raise NotFound(f"There is no document «{name}». `chatgglm documents list` shows those there are.")
    return found


def purge_document(session: Session, document: Document) -> None:
    """Blank the text of all versions of a deleted document, its labels, and what other tables took from it.

    What stays: that there was a document of this path, when, and how large. A table that keeps words of documents
    has a class method ``purge_document(session, document_id)``.

    Raises:
        ValueError: it is not deleted.
    """
    if document.deleted_at is None:
        raise ValueError("delete it first")
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA secure_delete = ON"))  # overwrites what is freed
    versions = list(session.scalars(select(DocumentVersion.id).where(DocumentVersion.document_id == document.id)))
    forget_duplicates(session, versions)
    session.execute(update(Chunk).where(Chunk.version_id.in_(versions)).values(heading=""))
    session.execute(
        update(DocumentVersion)
        .where(DocumentVersion.document_id == document.id)
        .values(text="", title="", pages=[], fidelity={}, signature=None, sidecar_sha256=None)
    )
    session.execute(delete(DocumentTag).where(DocumentTag.document_id == document.id))
    session.execute(delete(DocumentField).where(DocumentField.document_id == document.id))
    document.title, document.tags, document.meta, document.dated = "", [], {}, None
    session.flush()
    load_models()
    for mapper in list(Base.registry.mappers):
        if purge := getattr(mapper.class_, "purge_document", None):
            purge(session, document.id)


def scrub(database: Database) -> None:
    """After the commit of a purge: on SQLite, empties the write-ahead log, which still holds the old pages."""
    if database.is_sqlite:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
