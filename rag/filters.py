"""Restrictions of a search, turned into the exact set of chunks that it may return.

The set is worked out in SQL before the search and handed to both indexes, which look at nothing else:
no result is lost because better ones outside the filter took its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from rag.errors import InvalidInput
from rag.ports import IdArray
from rag.store.labels import parse_date
from rag.store.models import Chunk, Document, DocumentField, DocumentTag, DocumentVersion, KnowledgeBase


@dataclass(frozen=True, slots=True)
class Filters:
    """Restrict a search to documents; empty fields do not restrict. All given fields must hold."""

    documents: tuple[str, ...] = ()
    """Ids or paths; one of them."""
    path_prefix: str = ""
    tags: tuple[str, ...] = ()
    """A document must carry all of them."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Values that its metadata must have; of a list, one element."""
    since: date | None = None
    """First day of a document's own date; of one without, of the day (UTC) on which its content was stored."""
    until: date | None = None
    """Last day, included."""

    def __post_init__(self) -> None:
        if self.since and self.until and self.since > self.until:
            raise InvalidInput(f"起始日期 {self.since} 晚于截止日期 {self.until}，请对调。")

    def __bool__(self) -> bool:
        return bool(self.documents or self.path_prefix or self.tags or self.meta or self.since or self.until)


def day(text: str | None) -> date | None:
    """A day as people write it (2024-03-01, 2024/3/1, 2024年3月1日, 20240301); None for nothing.

    Raises:
        InvalidInput: it is none.
    """
    if not text:
        return None
    if (found := parse_date(text)) is None:
        raise InvalidInput(f"「{text}」不是日期，请写成 2024-03-01 这样。")
    return found


def allowed_chunks(session: Session, kb: KnowledgeBase, filters: Filters) -> IdArray:
    """Ids of the live chunks that the filters admit, ascending."""
    versions = (
        select(Chunk.version_id, func.min(Chunk.id), func.max(Chunk.id), func.count())
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(Document.kb_id == kb.id, Document.deleted_at.is_(None), DocumentVersion.deleted_at.is_(None))
        .where(*_conditions(filters))
        .group_by(Chunk.version_id)
    )
    ids = [np.zeros(0, dtype=np.int64)]
    scattered: list[int] = []
    for version, first, last, count in session.execute(versions):  # a row a version, not one a chunk
        if last - first + 1 == count:
            ids.append(np.arange(first, last + 1))
        else:
            scattered.append(version)
    for at in range(0, len(scattered), 500):
        rows = session.scalars(select(Chunk.id).where(Chunk.version_id.in_(scattered[at : at + 500])))
        ids.append(np.fromiter(rows, dtype=np.int64))
    return np.sort(np.concatenate(ids))


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.documents:
        found.append(or_(Document.id.in_(filters.documents), Document.path.in_(filters.documents)))
    if filters.path_prefix:
        found.append(Document.path.startswith(filters.path_prefix, autoescape=True))
    for tag in filters.tags:
        found.append(Document.id.in_(select(DocumentTag.document_id).where(DocumentTag.tag == tag)))
    for name, value in filters.meta.items():
        held = select(DocumentField.document_id).where(DocumentField.name == name, _is(value))
        found.append(Document.id.in_(held))
    if filters.since:
        start = datetime(filters.since.year, filters.since.month, filters.since.day)
        found.append(
            or_(Document.dated >= filters.since, and_(Document.dated.is_(None), DocumentVersion.created_at >= start))
        )
    if filters.until:
        end = datetime(filters.until.year, filters.until.month, filters.until.day) + timedelta(days=1)
        found.append(
            or_(Document.dated <= filters.until, and_(Document.dated.is_(None), DocumentVersion.created_at < end))
        )
    return found


def _is(value: Any) -> ColumnElement[bool]:
    """A field has that value, as `rag.store.labels` writes it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return DocumentField.number == value
    if isinstance(value, (date, datetime)):
        return DocumentField.value == value.isoformat()
    return DocumentField.value == (value if isinstance(value, str) else json.dumps(value))[:500]
