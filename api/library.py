"""Documents as the API shows them: a list by pages, one with its version, a stretch of text with chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.auth import Principal, iso
from ingest.report import twin_to_dict
from rag.errors import InvalidInput, NotFound
from rag.store.documents import get_document, list_versions, live_version
from rag.store.duplicates import near_duplicates
from rag.store.models import Chunk, Document, DocumentTag, DocumentVersion, KnowledgeBase

MAX_TEXT = 100_000
"""Characters of text that one request gets."""


def open_document(session: Session, party: Principal, ident: str) -> Document:
    """A live document in a knowledge base that is open to this party. Raises NotFound."""
    document = get_document(session, ident)
    if not party.sees(document.kb.slug):
        raise NotFound(f"There is no document «{ident}».")
    return document


def find_any(session: Session, party: Principal, ident: str) -> Document:
    """A document in a knowledge base that is open to this party, deleted or not. Raises NotFound."""
    document = session.get(Document, ident)
    if document is None or document.kb.deleted_at is not None or not party.sees(document.kb.slug):
        raise NotFound(f"There is no document «{ident}».")
    return document


def versions_to_list(session: Session, document: Document) -> list[dict[str, Any]]:
    """The versions of a document, the first one first."""
    return [
        {
            "id": row.id,
            "number": row.number,
            "title": row.title,
            "sha256": row.sha256,
            "media_type": row.media_type,
            "size_bytes": row.size_bytes,
            "chars": row.chars,
            "chunks": row.chunks,
            "created_at": iso(row.created_at),
            "replaced_at": iso(row.replaced_at),
        }
        for row in list_versions(session, document)
    ]


def version_of(session: Session, document: Document, number: int | None = None) -> DocumentVersion:
    """The present version, or the one that a citation names (replaced text stays readable).

    Raises:
        NotFound: no such version of this document.
    """
    if number is None:
        version = live_version(session, document.kb, document.path)
    else:
        version = session.get(DocumentVersion, number)
    if version is None or version.document_id != document.id:
        raise NotFound(f"The document «{document.id}» has no such version.")
    return version


def page(
    session: Session, kb: KnowledgeBase, limit: int, after: str | None, query: str = "", tags: Sequence[str] = ()
) -> tuple[list[Document], bool]:
    """Documents by path, those with all of the tags, and whether there are more."""
    statement = select(Document).where(Document.kb_id == kb.id, Document.deleted_at.is_(None))
    for tag in tags:
        statement = statement.where(Document.id.in_(select(DocumentTag.document_id).where(DocumentTag.tag == tag)))
    if query:
        statement = statement.where(
            Document.path.contains(query, autoescape=True) | Document.title.contains(query, autoescape=True)
        )
    if after:
        last = session.get(Document, after)
        if last is None or last.kb_id != kb.id:
            raise NotFound(f"There is no document «{after}» in this knowledge base.")
        statement = statement.where(Document.path > last.path)
    rows = list(session.scalars(statement.order_by(Document.path).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def document_to_dict(session: Session, document: Document) -> dict[str, Any]:
    """A document with the figures of its present version, without its text."""
    live = (DocumentVersion.document_id == document.id, DocumentVersion.deleted_at.is_(None))
    row = session.execute(
        select(
            DocumentVersion.id,
            DocumentVersion.media_type,
            DocumentVersion.size_bytes,
            DocumentVersion.sha256,
            DocumentVersion.fidelity,
            DocumentVersion.pages,
            func.length(DocumentVersion.text),
            select(func.count()).where(Chunk.version_id == DocumentVersion.id).scalar_subquery(),
        )
        .where(*live)
        .order_by(DocumentVersion.id.desc())
        .limit(1)
    ).first()
    version, media_type, size, sha256, fidelity, pages, chars, chunks = row or (None,) * 8
    return {
        "id": document.id,
        "kb": document.kb.slug,
        "path": document.path,
        "title": document.title,
        "tags": document.tags,
        "date": document.dated.isoformat() if document.dated else None,
        "meta": document.meta,
        "version_id": version,
        "media_type": media_type,
        "size_bytes": size,
        "sha256": sha256,
        "chars": chars,
        "chunks": chunks,
        "pages": len(pages or ()),
        "fidelity": fidelity,
        "near_duplicates": [twin_to_dict(t) for t in near_duplicates(session, [version]).get(version, ())]
        if version
        else [],
        "created_at": iso(document.created_at),
        "updated_at": iso(document.updated_at),
    }


def text_to_dict(
    session: Session, document: Document, version: DocumentVersion, start: int, end: int | None
) -> dict[str, Any]:
    """A stretch of the canonical text, and the chunks that lie in it.

    Raises:
        InvalidInput: the range is not within the text, or longer than MAX_TEXT.
    """
    total = len(version.text)
    stop = min(total, start + MAX_TEXT) if end is None else min(end, total)
    if start > stop or (start == stop and total):
        raise InvalidInput(f"The range {start}:{end} holds no text; the document has {total} characters.")
    if stop - start > MAX_TEXT:
        raise InvalidInput(f"At most {MAX_TEXT} characters at once.")
    chunks = session.scalars(
        select(Chunk)
        .where(Chunk.version_id == version.id, Chunk.char_end > start, Chunk.char_start < stop)
        .order_by(Chunk.ordinal)
    )
    return {
        "document_id": document.id,
        "version_id": version.id,
        "current": version.deleted_at is None,
        "title": document.title,
        "path": document.path,
        "start": start,
        "end": stop,
        "total_chars": total,
        "text": version.text[start:stop],
        "pages": [
            {"page": number, "start": offset}
            for number, offset in enumerate(version.pages, start=1)
            if start <= offset < stop
        ],
        "passages": [
            {
                "chunk_id": chunk.id,
                "char_start": chunk.char_start,
                "char_end": chunk.char_end,
                "heading": chunk.heading,
                "page": chunk.page,
            }
            for chunk in chunks
        ],
    }
