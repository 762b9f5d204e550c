"""Documents and their versions: list, find, delete, and the one way in, `replace_version`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from rag.errors import InvalidInput, NotFound
from rag.store.base import insert_if_absent, now, storable
from rag.store.duplicates import flag_duplicates, forget_duplicates
from rag.store.kbs import get_kb, lock_kb
from rag.store.labels import write_labels
from rag.store.models import Chunk, Document, DocumentVersion, KnowledgeBase


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The content of a document; see `DocumentVersion`. ``sha256`` is that of the original bytes."""

    sha256: str
    media_type: str
    size_bytes: int
    text: str
    pages: Sequence[int] = ()
    fidelity: dict[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    root: str = ""
    sidecar_sha256: str | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class NewChunk:
    """Code points ``char_start:char_end`` of the version's text."""

    char_start: int
    char_end: int
    heading: str = ""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A live document with its live version, without the text."""

    id: str
    path: str
    title: str
    version_id: int
    sha256: str
    media_type: str
    size_bytes: int
    chars: int
    chunks: int
    tags: list[Any]
    fidelity: dict[str, Any]
    created_at: Any
    updated_at: Any
    dated: Any


def list_documents(session: Session, kb: KnowledgeBase) -> list[DocumentRow]:
    """The live documents of a knowledge base by path; texts are not loaded."""
    chunks = select(func.count()).where(Chunk.version_id == DocumentVersion.id).scalar_subquery()
    rows = session.execute(
        select(
            Document.id,
            Document.path,
            Document.title,
            DocumentVersion.id,
            DocumentVersion.sha256,
            DocumentVersion.media_type,
            DocumentVersion.size_bytes,
            func.length(DocumentVersion.text),
            chunks,
            Document.tags,
            DocumentVersion.fidelity,
            Document.created_at,
            Document.updated_at,
            Document.dated,
        )
        .join(DocumentVersion, DocumentVersion.document_id == Document.id)
        .where(Document.kb_id == kb.id, Document.deleted_at.is_(None), DocumentVersion.deleted_at.is_(None))
        .order_by(Document.path)
    )
    return [DocumentRow(*row) for row in rows]


def get_document(session: Session, document_id: str, kb: KnowledgeBase | None = None) -> Document:
    """A live document by its id, or by its path where a knowledge base is given.

    Raises:
        NotFound: there is none (any more).
    """
    live = select(Document).where(Document.deleted_at.is_(None))
    found = session.scalar(live.where(Document.id == document_id))
    if found is None and kb is not None:
        found = session.scalar(live.where(Document.kb_id == kb.id, Document.path == document_id))
    if found is None or found.kb.deleted_at is not None or (kb is not None and found.kb_id != kb.id):
        raise NotFound(f"There is no document «{document_id}». `chatgglm documents list` shows those there are.")
    return found


def find_document(session: Session, name: str, kb_slug: str) -> Document:
    """A live document by its id in any knowledge base, or by its path in the one of that slug.

    Raises:
        NotFound: there is none.
    """
    try:
        return get_document(session, name)
    except NotFound:
        return get_document(session, name, get_kb(session, kb_slug))


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version in a document's history, without its text. ``number`` counts from 1."""

    number: int
    id: int
    title: str
    sha256: str
    media_type: str
    size_bytes: int
    chars: int
    chunks: int
    created_at: Any
    replaced_at: Any
    """When another took its place, or the document was deleted; None: it is the present one."""


def list_versions(session: Session, document: Document) -> list[VersionRow]:
    """All versions of a document, the first one first; texts are not loaded."""
    chunks = select(func.count()).where(Chunk.version_id == DocumentVersion.id).scalar_subquery()
    rows = session.execute(
        select(
            DocumentVersion.id,
            DocumentVersion.title,
            DocumentVersion.sha256,
            DocumentVersion.media_type,
            DocumentVersion.size_bytes,
            func.length(DocumentVersion.text),
            chunks,
            DocumentVersion.created_at,
            DocumentVersion.deleted_at,
        )
        .where(DocumentVersion.document_id == document.id)
        .order_by(DocumentVersion.id)
    )
    return [VersionRow(number, *row) for number, row in enumerate(rows, start=1)]


def live_version(session: Session, kb: KnowledgeBase, path: str) -> DocumentVersion | None:
    """The live version of the document at that path; None: no such document."""
    return session.scalar(
        select(DocumentVersion)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(
            Document.kb_id == kb.id,
            Document.path == path,
            Document.deleted_at.is_(None),
            DocumentVersion.deleted_at.is_(None),
        )
    )


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """What tells whether a file is still the one that was stored."""

    id: int
    document_id: str
    sha256: str
    sidecar_sha256: str | None
    size_bytes: int


def live_versions(session: Session, kb_id: int, paths: Sequence[str]) -> dict[str, LiveVersion]:
    """Path → live version, for those of the paths that have one."""
    found: dict[str, LiveVersion] = {}
    for at in range(0, len(paths), 500):
        rows = session.execute(
            select(
                Document.path,
                DocumentVersion.id,
                Document.id,
                DocumentVersion.sha256,
                DocumentVersion.sidecar_sha256,
                DocumentVersion.size_bytes,
            )
            .join(DocumentVersion, DocumentVersion.document_id == Document.id)
            .where(
                Document.kb_id == kb_id,
                Document.path.in_(paths[at : at + 500]),
                Document.deleted_at.is_(None),
                DocumentVersion.deleted_at.is_(None),
            )
        )
        found |= {row[0]: LiveVersion(*row[1:]) for row in rows}
    return found


def delete_document(session: Session, document_id: str, kb: KnowledgeBase | None = None) -> list[int]:
    """Tombstone a document; from the commit on, search cannot return it. Returns its chunks' ids,
    for `IndexManager.publish(remove=…)`.

    Raises:
        NotFound: there is none (any more).
    """
    lock_kb(session, get_document(session, document_id, kb).kb_id)
    document = get_document(session, document_id, kb)  # unless another process was faster
    removed = _bury(session, document)
    document.deleted_at = now()
    session.flush()
    return removed


def replace_version(
    session: Session, kb: KnowledgeBase, path: str, title: str, new: NewVersion, chunks: Sequence[NewChunk]
) -> tuple[Document, DocumentVersion, list[int]]:
    """Store a document's new content and tombstone the old one, in the caller's transaction.

    A document that was deleted lives again under its old id. Returns the document, the version and
    the ids of its chunks in order. Characters that no database stores are replaced one for one.

    Raises:
        InvalidInput: the path is too long, or a chunk lies outside the text.
    """
    path = storable(path)
    if not path or len(path) > 1024:
        raise InvalidInput(f"The path «{path[:60]}…» is empty or longer than 1024 characters; use a shorter one.")
    for chunk in chunks:
        if not 0 <= chunk.char_start < chunk.char_end <= len(new.text):
            raise InvalidInput(f"Chunk {chunk.char_start}:{chunk.char_end} lies outside the text of «{path}».")
    insert_if_absent(session, Document, kb_id=kb.id, path=path, title="")
    document = session.scalars(
        select(Document).where(Document.kb_id == kb.id, Document.path == path).with_for_update()
    ).one()
    _bury(session, document)
    document.title = _clipped(title or path.rpartition("/")[2])
    document.root = new.root
    document.deleted_at = None
    document.updated_at = now()
    write_labels(session, document, new.tags, new.meta)
    version = DocumentVersion(
        document_id=document.id,
        title=document.title,
        sha256=new.sha256,
        sidecar_sha256=new.sidecar_sha256,
        media_type=new.media_type[:100],
        size_bytes=new.size_bytes,
        text=storable(new.text),
        pages=list(new.pages),
        fidelity=dict(new.fidelity),
        signature=new.signature,
    )
    session.add(version)
    session.flush()
    flag_duplicates(session, kb.id, version)
    rows = [
        {
            "version_id": version.id,
            "ordinal": ordinal,
            "char_start": chunk.char_start,
            "char_end": chunk.char_end,
            "heading": _clipped(chunk.heading),
            "page": chunk.page,
        }
        for ordinal, chunk in enumerate(chunks)
    ]
    if rows:
        session.execute(insert(Chunk), rows)
    ids = list(session.scalars(select(Chunk.id).where(Chunk.version_id == version.id).order_by(Chunk.ordinal)))
    return document, version, ids


def version_chunk_ids(session: Session, document: Document, live: bool = True) -> list[int]:
    """Ids of the chunks of a document's live version, or of all that were ever tombstoned."""
    dead = DocumentVersion.deleted_at
    return list(
        session.scalars(
            select(Chunk.id)
            .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
            .where(DocumentVersion.document_id == document.id, dead.is_(None) if live else dead.is_not(None))
            .order_by(Chunk.id)
        )
    )


def _bury(session: Session, document: Document) -> list[int]:
    """Tombstone the live version; its chunks' ids."""
    removed = version_chunk_ids(session, document)
    live = (DocumentVersion.document_id == document.id, DocumentVersion.deleted_at.is_(None))
    if versions := session.scalars(select(DocumentVersion.id).where(*live)).all():
        forget_duplicates(session, versions)
        session.execute(update(DocumentVersion).where(*live).values(deleted_at=now()))
    return removed


def _clipped(text: str, limit: int = 500) -> str:
    text = storable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
