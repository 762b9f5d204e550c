"""Knowledge bases."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api.auth import iso
from api.deps import Asker, DatabaseDep, Ingester, RuntimeDep
from api.schemas import KnowledgeBaseRequest, Slug
from rag.errors import Conflict, NotFound
from rag.store.kbs import delete_kb, get_kb, get_or_create_kb, list_kbs
from rag.store.models import Chunk, Document, DocumentVersion, KnowledgeBase

router = APIRouter(prefix="/v1/knowledge_bases", tags=["documents"])


def _to_dict(session: Session, kb: KnowledgeBase) -> dict[str, Any]:
    live = (Document.kb_id == kb.id, Document.deleted_at.is_(None))
    documents = session.scalar(select(func.count()).select_from(Document).where(*live))
    chunks = session.scalar(
        select(func.count())
        .select_from(Chunk)
        .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
        .join(Document, Document.id == DocumentVersion.document_id)
        .where(*live, DocumentVersion.deleted_at.is_(None))
    )
    return {
        "id": kb.slug,
        "slug": kb.slug,
        "name": kb.name,
        "embedder": kb.embedder,
        "generation": kb.generation,
        "chunking": kb.chunking,
        "documents": documents or 0,
        "chunks": chunks or 0,
        "created_at": iso(kb.created_at),
    }


@router.get("")
def index(database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """The knowledge bases that you may ask."""
    with database.session() as session:
        rows = [_to_dict(session, kb) for kb in list_kbs(session) if party.sees(kb.slug)]
    return {"object": "list", "data": rows, "has_more": False}


@router.post("", status_code=201)
def create(
    body: KnowledgeBaseRequest,
    runtime: RuntimeDep,
    database: DatabaseDep,
    party: Ingester,
    response: Response,
) -> dict[str, Any]:
    """A new, empty knowledge base."""
    slug = party.kb(body.slug)
    with database.session() as session:
        try:
            get_kb(session, slug)
        except NotFound:
            kb = get_or_create_kb(session, slug, name=body.name or slug, embedder=runtime.settings.embedder)
        else:
            raise Conflict(f"There is a knowledge base «{slug}» already.")
        response.headers["Location"] = f"/v1/knowledge_bases/{slug}"
        return _to_dict(session, kb)


@router.get("/{slug}")
def show(slug: Slug, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """One knowledge base."""
    with database.session() as session:
        return _to_dict(session, get_kb(session, party.kb(slug)))


@router.delete("/{slug}", status_code=204)
async def delete(slug: Slug, runtime: RuntimeDep, party: Ingester) -> Response:
    """Deletes a knowledge base with its documents."""
    party.kb(slug)
    service = await runtime.service()

    def work() -> None:
        with service.database.session(write=True) as session:
            kb_id = delete_kb(session, slug)
        service.indexes.drop(kb_id)
        service.originals.sweep()

    await run_in_threadpool(work)
    return Response(status_code=204)
