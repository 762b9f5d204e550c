"""The files that documents were made from: kept while a version needs them, gone with the last one.

SQL says which versions have their original kept (`DocumentVersion.original`). A file is stored before
the transaction that names it commits, and deleted after the one that drops it, so a crash leaves at
most a file too many. Both look at SQL under a lock, or one could delete what the other just reused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from rag.errors import Conflict, NotFound
from rag.settings import Settings
from rag.store.files import FileStore, file_store
from rag.store.models import Document, DocumentVersion, KnowledgeBase

if TYPE_CHECKING:
    from rag.store.session import Database

Read = Callable[[], bytes]
_LOCK = 0x6C6D676F  # PostgreSQL advisory lock, any constant of our own
_MOST = 500
"""Hashes in one query."""
_NEEDING = (
    DocumentVersion.original,
    DocumentVersion.document_id == Document.id,
    Document.deleted_at.is_(None),
    Document.kb_id == KnowledgeBase.id,
    KnowledgeBase.deleted_at.is_(None),
)
"""Versions that need their original: the present and the replaced ones of every document that is not deleted."""


class Originals:
    """Originals of one installation. Cheap to make; safe to share between threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings

    @cached_property
    def store(self) -> FileStore | None:
        """Where they lie; None: they are not kept.

        Raises:
            InvalidInput: the setting names no place.
        """
        return file_store(self.settings.originals, self.settings.home)

    def keep(self, sha256: str, read: Read) -> bool:
        """Store a file unless it is there; False where originals are not kept.

        Raises:
            Conflict: what ``read`` gives has another hash: the file has changed meanwhile.
            StoreUnavailable: the store cannot be used.
        """
        if self.store is None:
            return False
        if not self.store.has(sha256):
            data = read()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise Conflict("The file changed while it was being read; ingest it again.")
            self.store.put(sha256, data)
        return True

    def keep_for(self, session: Session, version: DocumentVersion, read: Read) -> None:
        """`keep` for a version that the session's transaction writes, safe against a sweep at the same time."""
        if self.store is not None:
            self._lock(session, shared=True)
            version.original = self.keep(version.sha256, read)

    def open(self, version: DocumentVersion) -> BinaryIO:
        """The bytes of a version's original.

        Raises:
            NotFound: it was not kept, or is gone.
        """
        if not version.original or self.store is None:
            raise NotFound("The original of this document is not kept here; ingest it again to keep it.")
        return self.store.open(version.sha256)

    def sweep(self) -> int:
        """Delete the files that no version of a document needs any more; how many."""
        store = self.store
        if store is None:
            return 0
        there = set(store.names())
        with self.database.session() as session:
            candidates = sorted(there - self._needed(session, there))
        count = 0
        for at in range(0, len(candidates), _MOST):
            some = candidates[at : at + _MOST]
            with self.database.session(write=True) as session:
                self._lock(session, shared=False)
                gone = sorted(set(some) - self._needed(session, some))
                session.execute(update(DocumentVersion).where(DocumentVersion.sha256.in_(gone)).values(original=False))
                for sha256 in gone:
                    store.delete(sha256)
                count += len(gone)
        return count

    def missing(self, session: Session, kb_id: int) -> list[str]:
        """Paths of the documents whose original should be there and is not; none where they are not kept."""
        if self.store is None:
            return []
        rows = session.execute(
            select(Document.path, DocumentVersion.sha256)
            .where(*_NEEDING, Document.kb_id == kb_id)
            .distinct()
            .order_by(Document.path)
        ).all()
        there = set(self.store.names()) if rows else set()
        return [row.path for row in rows if row.sha256 not in there]

    def _needed(self, session: Session, among: Iterable[str]) -> set[str]:
        wanted = sorted(among)
        found: set[str] = set()
        for at in range(0, len(wanted), _MOST):
            some = wanted[at : at + _MOST]
            query = select(DocumentVersion.sha256).where(*_NEEDING, DocumentVersion.sha256.in_(some))
            found |= set(session.scalars(query))
        return found

    @staticmethod
    def _lock(session: Session, shared: bool) -> None:
        """Until the commit. SQLite has one writer at a time anyway."""
        if session.get_bind().dialect.name == "postgresql":
            function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
            session.execute(text(f"SELECT {function}(:key)"), {"key": _LOCK})
