"""Knowledge bases: create, find, list, delete."""

from __future__ import annotations

import re

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from rag.errors import InvalidInput, NotFound
from rag.store.base import insert_if_absent, now
from rag.store.models import Chunk, Document, DocumentVersion, KnowledgeBase

DEFAULT_SLUG = "default"
_SLUG = re.compile(r"[a-z0-9_-]{1,64}")


def check_slug(slug: str) -> str:
    """The slug itself, if it is one.

    Raises:
        InvalidInput: it has other characters than a-z, 0-9, ``_`` and ``-``, or more than 64.
    """
    if not _SLUG.fullmatch(slug):
        raise InvalidInput(
            f"«{slug}» cannot name a knowledge base: use 1 to 64 of the characters a-z, 0-9, _ and -. "
            "A display name in any script goes with --name."
        )
    return slug


_LIVE = select(KnowledgeBase).where(KnowledgeBase.slug == bindparam("slug"), KnowledgeBase.deleted_at.is_(None))


def get_kb(session: Session, slug: str) -> KnowledgeBase:
    """The knowledge base of that slug.

    Raises:
        NotFound: there is none.
    """
    kb = session.scalar(_LIVE, {"slug": slug})
    if kb is None:
        raise NotFound(
            f"There is no knowledge base «{slug}». `chatgglm kb list` shows those there are; "
            f"`chatgglm kb create {slug if _SLUG.fullmatch(slug) else 'NAME'}` makes one."
        )
    return kb


def get_or_create_kb(
    session: Session, slug: str = DEFAULT_SLUG, name: str | None = None, embedder: str = "gglm-embed-zh"
) -> KnowledgeBase:
    """The knowledge base of that slug, made now if there is none; safe against another process doing so.

    ``name`` and ``embedder`` matter only where it is made.

    Raises:
        InvalidInput: the slug cannot be one.
    """
    try:
        return get_kb(session, slug)
    except NotFound:
        pass
    insert_if_absent(session, KnowledgeBase, slug=check_slug(slug), name=(name or slug)[:200], embedder=embedder)
    return get_kb(session, slug)


def lock_kb(session: Session, kb_id: int) -> None:
    """Has writers of a knowledge base wait for one another until the transaction ends, so that none deadlocks.

    SQLite lets one writer in anyway (``session(write=True)``).
    """
    session.execute(select(KnowledgeBase.id).where(KnowledgeBase.id == kb_id).with_for_update())


def list_kbs(session: Session) -> list[KnowledgeBase]:
    """All knowledge bases by slug."""
    return list(
        session.scalars(select(KnowledgeBase).where(KnowledgeBase.deleted_at.is_(None)).order_by(KnowledgeBase.slug))
    )


def count_contents(session: Session, kb: KnowledgeBase) -> tuple[int, int]:
    """How many live documents and chunks it holds."""
    live = (Document.kb_id == kb.id, Document.deleted_at.is_(None), DocumentVersion.deleted_at.is_(None))
    documents = select(func.count(Document.id)).join(DocumentVersion, DocumentVersion.document_id == Document.id)
    chunks = (
        select(func.count(Chunk.id))
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
    )
    return session.scalar(documents.where(*live)) or 0, session.scalar(chunks.where(*live)) or 0


def delete_kb(session: Session, slug: str) -> int:
    """Delete a knowledge base with its documents; its slug is free again at once. Returns its id.

    Once that is committed, `IndexManager.drop` deletes the index files.

    Raises:
        NotFound: there is none.
    """
    kb = get_kb(session, slug)
    kb.deleted_at = now()
    kb.slug = f"{slug[:40]}~{kb.id}"  # «~» is in no slug
    session.execute(
        update(Document).where(Document.kb_id == kb.id, Document.deleted_at.is_(None)).values(deleted_at=kb.deleted_at)
    )
    session.flush()
    return kb.id
