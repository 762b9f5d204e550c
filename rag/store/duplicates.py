"""Near-duplicates: documents of a knowledge base that say nearly the same. They are flagged, never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from rag import minhash
from rag.store.models import Document, DocumentVersion, NearDuplicate, SignatureBand

SIMILAR = 0.8
"""From this share of common shingles on, two documents are near-duplicates."""
CANDIDATES = 50
FLAGS = 10
"""Of a new version: how many others it is compared with and how many flags it gets, at most; a thousand copies of
one form would make a million."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A document that is nearly the same as another."""

    document_id: str
    path: str
    similarity: float


def flag_duplicates(session: Session, kb_id: int, version: DocumentVersion) -> None:
    """Compare a new version with the live ones of its knowledge base and note those that are nearly the same."""
    if version.signature is None:
        return
    values = minhash.bands(version.signature)
    shared = func.count().label("shared")
    candidates = session.execute(
        select(SignatureBand.version_id, shared)
        .where(
            SignatureBand.kb_id == kb_id,
            or_(*(and_(SignatureBand.band == i, SignatureBand.value == value) for i, value in enumerate(values))),
        )
        .group_by(SignatureBand.version_id)
        .order_by(shared.desc(), SignatureBand.version_id)
        .limit(CANDIDATES)
    ).all()
    others = session.execute(
        select(DocumentVersion.id, DocumentVersion.signature)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(
            DocumentVersion.id.in_([row.version_id for row in candidates]),
            DocumentVersion.document_id != version.document_id,
            DocumentVersion.deleted_at.is_(None),
            Document.deleted_at.is_(None),
        )
    ).all()
    found = [(minhash.similarity(version.signature, row.signature), row.id) for row in others if row.signature]
    rows = [
        {"version_id": version.id, "other_id": other, "similarity": share}
        for share, other in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:FLAGS]
        if share >= SIMILAR
    ]
    if rows:
        session.execute(insert(NearDuplicate), rows)
    session.execute(
        insert(SignatureBand),
        [{"kb_id": kb_id, "band": i, "value": v, "version_id": version.id} for i, v in enumerate(values)],
    )


def forget_duplicates(session: Session, version_ids: Sequence[int]) -> None:
    """Versions that live no more are like nothing."""
    session.execute(delete(SignatureBand).where(SignatureBand.version_id.in_(version_ids)))
    session.execute(
        delete(NearDuplicate).where(
            or_(NearDuplicate.version_id.in_(version_ids), NearDuplicate.other_id.in_(version_ids))
        )
    )


def near_duplicates(session: Session, version_ids: Iterable[int]) -> dict[int, list[Twin]]:
    """For each of these versions the live documents that are nearly the same, the most similar first."""
    wanted = list(version_ids)
    found: dict[int, list[Twin]] = {}
    for at in range(0, len(wanted), 500):
        some = wanted[at : at + 500]
        for mine, theirs in (
            (NearDuplicate.version_id, NearDuplicate.other_id),
            (NearDuplicate.other_id, NearDuplicate.version_id),
        ):
            rows = session.execute(
                select(mine, Document.id, Document.path, NearDuplicate.similarity)
                .join(DocumentVersion, DocumentVersion.id == theirs)
                .join(Document, Document.id == DocumentVersion.document_id)
                .where(mine.in_(some), DocumentVersion.deleted_at.is_(None), Document.deleted_at.is_(None))
            )
            for version_id, document_id, path, share in rows:
                found.setdefault(version_id, []).append(Twin(document_id, path, round(share, 3)))
    for twins in found.values():
        twins.sort(key=lambda twin: (-twin.similarity, twin.path))
    return found
