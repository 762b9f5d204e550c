"""From a parsed document to rows: its new version, its report, and the end of its item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import archives, jobs
from ingest.errors import SourceError
from ingest.formats import read
from ingest.leases import Claimed
from ingest.runners import Outcome
from ingest.sidecars import sidecar_sha256
from ingest.types import Parsed

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import JobItem
    from rag.store.documents import LiveVersion
    from rag.store.models import DocumentVersion, KnowledgeBase


@dataclass(slots=True)
class Ready:
    """A parsed document that waits for its batch."""

    item: Claimed
    before: int
    """The version that was live when the file was about to be read; 0: none."""
    outcome: Outcome
    parsed: Parsed


def write_document(
    session: Session,
    kb: KnowledgeBase,
    item: JobItem,
    ready: Ready,
    removed: list[int],
    keep: Callable[[DocumentVersion], None],
    force: bool = False,
) -> list[int]:
    """Stores a document's new version and settles its item.

    Returns the ids of its chunks, none where another worker was faster; appends those of the replaced version to
    ``removed``. ``keep`` is called with the version, to keep the file that it was made from. With ``force``
    it replaces a version of the same bytes, too.
    """
    from rag.store.documents import NewChunk, NewVersion, live_version, replace_version, version_chunk_ids

    parsed, outcome = ready.parsed, ready.outcome
    item.sha256, item.size_bytes = outcome.sha256, outcome.size_bytes
    old = live_version(session, kb, ready.item.path)
    same = old is not None and (old.sha256, old.sidecar_sha256) == (outcome.sha256, outcome.sidecar_sha256)
    if old is not None and same and not force:
        settle_unchanged(session, item, old)
        return []
    if (old.id if old else 0) != ready.before:  # another job wrote it since: which bytes are the newer?
        jobs.postpone(item, timedelta(0))
        item.attempts -= 1
        return []
    if old is not None:
        removed += version_chunk_ids(session, old.document)
    new = NewVersion(
        sha256=outcome.sha256,
        media_type=parsed.media_type,
        size_bytes=outcome.size_bytes,
        text=parsed.text,
        pages=parsed.pages,
        fidelity=_fidelity(ready),
        tags=parsed.tags,
        meta=parsed.meta,
        root=ready.item.root,
        sidecar_sha256=outcome.sidecar_sha256,
        signature=bytes.fromhex(outcome.signature) or None,
    )
    chunks = [NewChunk(c.char_start, c.char_end, c.heading, c.page) for c in outcome.chunks]
    document, version, ids = replace_version(session, kb, ready.item.path, parsed.title, new, chunks)
    keep(version)
    item.document_id, item.version_id = document.id, version.id
    item.chunks, item.characters = len(ids), len(parsed.text)
    item.fidelity = new.fidelity
    jobs.settle(item, "indexed")
    return ids


def settle_unchanged(session: Session, item: JobItem, version: DocumentVersion) -> None:
    """The version is what the file holds. The document belongs to the folder that it was last found in."""
    from rag.store.documents import version_chunk_ids

    version.document.root = item.root or version.document.root
    item.document_id, item.version_id = version.document_id, version.id
    item.chunks = len(version_chunk_ids(session, version.document))
    item.sha256, item.size_bytes, item.fidelity = version.sha256, version.size_bytes, version.fidelity
    jobs.settle(item, "skipped", "unchanged: the same bytes are indexed already")


def original(item: Claimed) -> bytes:
    """Raises SourceError where the file cannot be read any more."""
    return read(Path(jobs.opened_name(item.file)))


def same_file(file: str, version: LiveVersion) -> bool:
    """Whether the file and its side-car are the version's; False where they cannot be read (the parser says why)."""
    digest = hashlib.sha256()
    try:
        if archives.SEPARATOR in file and not Path(file).exists():
            digest.update(read(Path(file)))
        elif Path(file).stat().st_size != version.size_bytes:
            return False
        else:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except (OSError, SourceError):
        return False
    return digest.hexdigest() == version.sha256 and sidecar_sha256(file) == version.sidecar_sha256


def _fidelity(ready: Ready) -> dict[str, Any]:
    """The report on how faithful the extraction is, with the characters that chunks hold."""
    covered = end = 0
    for chunk in ready.outcome.chunks:  # ascending; they may overlap
        covered += max(0, chunk.char_end - max(end, chunk.char_start))
        end = max(end, chunk.char_end)
    return {
        "garbage_ratio": 0.0,
        "pages_without_text": [],
        **ready.parsed.fidelity,
        "characters": len(ready.parsed.text),
        "characters_indexed": covered,
        "bytes": ready.outcome.size_bytes,
        "seconds": ready.outcome.seconds,
    }
