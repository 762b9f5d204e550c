"""What a sync deletes: documents of a folder that is there and can be read, whose files are there no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingest.limits import Limits
from ingest.sources import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from ingest.models import Job
    from rag.settings import Settings
    from rag.store.models import Document


@dataclass(frozen=True, slots=True)
class Present:
    """What lies in the folders that could be read to the end."""

    roots: frozenset[str]
    paths: frozenset[str]
    unread: frozenset[str]
    """What is there and gave nothing: files, archives, links that lead nowhere. Documents in or beneath them stay."""

    def lacks(self, document: Document) -> bool:
        """Whether the document came from one of these folders and is gone."""
        if document.root not in self.roots or document.path in self.paths:
            return False
        return self.unread.isdisjoint(_above(document.path, len(self.roots) > 1))


def _above(path: str, several: bool) -> set[str]:
    """The path, and the folders and archives that it lies in; of ``several`` roots also as seen from each folder,
    because documents whose names clash are called by some of the folders above their root, too (`ingest.sources`)."""
    parts = path.split("/")
    starts = range(len(parts)) if several else (0,)
    names = {"/".join(parts[start:end]) for start in starts for end in range(start + 1, len(parts) + 1)}
    return names | {name.removesuffix("!") for name in names}


def still_there(options: Mapping[str, Any], settings: Settings) -> Present:
    """Walks a job's folders again, without its patterns: what is left out this time has not vanished."""
    from ingest.jobs import opened_name

    sources = expand([opened_name(path) for path in options.get("paths") or ()], limits=Limits.of(settings))
    return Present(
        frozenset(sources.complete) & frozenset(options.get("roots") or ()),
        frozenset(source.path for source in sources.files),
        frozenset(problem.path for problem in sources.problems),
    )


def vanished(session: Session, kb_id: int, there: Present) -> list[Document]:
    """The live documents that are gone, by path."""
    from sqlalchemy import select

    from rag.store.models import Document

    rows = session.scalars(
        select(Document)
        .where(Document.kb_id == kb_id, Document.deleted_at.is_(None), Document.root.in_(there.roots))
        .order_by(Document.path)
    )
    return [document for document in rows if there.lacks(document)]


def delete_vanished(session: Session, job: Job, there: Present) -> tuple[list[dict[str, str]], list[int]]:
    """Tombstones them; what was deleted, as path and id, and the ids of its chunks."""
    from rag.store.documents import delete_document
    from rag.store.kbs import lock_kb

    lock_kb(session, job.kb_id)  # what another sync is deleting is not ours to delete
    named = {item.path for item in job.items}  # what was there when the job began waits for the next sync
    removed: list[int] = []
    deleted: list[dict[str, str]] = []
    for document in vanished(session, job.kb_id, there):
        if document.path not in named:
            removed += delete_document(session, document.id)
            deleted.append({"path": document.path, "document_id": document.id})
    return deleted, removed
