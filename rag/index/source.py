"""The chunks that an index must hold, read from SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from rag.index.files import member
from rag.index.text import index_text
from rag.ports import IdArray
from rag.store.models import Chunk, Document, DocumentVersion

_VERSIONS = 50
"""Versions whose texts are in memory at once."""


def live_ids(session: Session, kb_id: int) -> IdArray:
    """Ids of the live chunks of a knowledge base, ascending."""
    ids = np.fromiter(session.scalars(_live(select(Chunk.id), kb_id)), dtype=np.int64)
    return np.sort(ids)


def known_ids(session: Session, kb_id: int) -> IdArray:
    """Ids of all its chunks, tombstoned ones too, ascending."""
    rows = session.scalars(
        select(Chunk.id)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(Document.kb_id == kb_id)
    )
    return np.sort(np.fromiter(rows, dtype=np.int64))


def live_chunks(session: Session, kb_id: int, wanted: IdArray) -> Iterator[tuple[int, str]]:
    """Id and index text of each live chunk that is among ``wanted`` (ascending)."""
    versions = list(session.scalars(_live(select(Chunk.version_id).distinct(), kb_id).order_by(Chunk.version_id)))
    for at in range(0, len(versions), _VERSIONS):
        some = versions[at : at + _VERSIONS]
        chunks = session.execute(
            select(Chunk.id, Chunk.version_id, Chunk.heading, Chunk.char_start, Chunk.char_end)
            .where(Chunk.version_id.in_(some))
            .order_by(Chunk.id)
        ).all()
        keep = member(np.array([c.id for c in chunks], dtype=np.int64), wanted)
        needed = {c.version_id for c, k in zip(chunks, keep, strict=True) if k}
        texts = {
            version: (title, text)
            for version, title, text in session.execute(
                select(DocumentVersion.id, Document.title, DocumentVersion.text)
                .join(Document, Document.id == DocumentVersion.document_id)
                .where(DocumentVersion.id.in_(needed))
            )
        }
        for chunk, kept in zip(chunks, keep, strict=True):
            if kept:
                title, text = texts[chunk.version_id]
                yield chunk.id, index_text(title, chunk.heading, text[chunk.char_start : chunk.char_end])


def _live(statement: Select[Any], kb_id: int) -> Select[Any]:
    return (
        statement.join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(Document.kb_id == kb_id, Document.deleted_at.is_(None), DocumentVersion.deleted_at.is_(None))
    )
