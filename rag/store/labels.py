"""Tags and metadata of documents as rows that a search can filter by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from rag.store.base import storable
from rag.store.models import Document, DocumentField, DocumentTag

MAX_TAGS = 100
MAX_FIELDS = 200
DATE_NAMES = ("date", "日期", "发布日期", "成文日期", "发文日期", "印发日期", "published", "created", "updated")
"""Metadata that give a document its date, the first that is there and is a date."""
_DATE = re.compile(r"\s*(\d{4})\s*(?:[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})\s*日?|(\d\d)(\d\d))(?!\d)")


def write_labels(session: Session, document: Document, tags: Sequence[Any], meta: Mapping[str, Any]) -> None:
    """Set a document's tags, metadata and date, in JSON as given and in rows to filter by."""
    names = list(dict.fromkeys(name for tag in tags if (name := storable(str(tag)).strip()[:100])))[:MAX_TAGS]
    document.tags = names
    document.meta = {storable(str(name)): _plain(value) for name, value in meta.items()}
    document.dated = document_date(meta)
    session.flush()
    session.execute(delete(DocumentTag).where(DocumentTag.document_id == document.id))
    session.execute(delete(DocumentField).where(DocumentField.document_id == document.id))
    if names:
        session.execute(insert(DocumentTag), [{"document_id": document.id, "tag": name} for name in names])
    fields = {(name, value): number for name, value, number in _rows(document.meta)}
    if fields:
        session.execute(
            insert(DocumentField),
            [
                {"document_id": document.id, "name": name, "value": value, "number": number}
                for (name, value), number in list(fields.items())[:MAX_FIELDS]
            ],
        )


def document_date(meta: Mapping[str, Any]) -> date | None:
    """The date that the metadata give the document; None: none, or none that is a date."""
    lower = {str(name).lower(): value for name, value in meta.items()}
    for name in DATE_NAMES:
        if (found := parse_date(lower.get(name))) is not None:
            return found
    return None


def parse_date(value: Any) -> date | None:
    """``2024-03-01``, ``2024/3/1``, ``2024年3月1日`` or ``20240301``, also with a time after it."""
    match = _DATE.match(value if isinstance(value, str) else str(value or ""))
    if match is None:
        return None
    year, *parts = match.groups()
    month, day = (part for part in parts if part is not None)
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _rows(value: Any, name: str = "") -> Iterator[tuple[str, str, float | None]]:
    """(name, value as text, as number) of each single value; ``a.b`` names the ``b`` within an ``a``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _rows(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _rows(inner, name)
    elif value is not None:
        text = value if isinstance(value, str) else json.dumps(value)
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        yield name[:100], text[:500], number


def _plain(value: Any) -> Any:
    """As JSON has it and every database stores it; dates in ISO form."""
    if isinstance(value, Mapping):
        return {storable(str(name)): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    return storable(value.isoformat() if hasattr(value, "isoformat") else str(value))
