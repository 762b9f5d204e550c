"""Conversations and their messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from api import conversations as store
from api.deps import Asker, DatabaseDep
from api.schemas import ConversationPatch, ConversationRequest, Limit, Slug, listing
from rag.store.kbs import get_kb

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])


@router.post("", status_code=201)
def create(body: ConversationRequest, database: DatabaseDep, party: Asker, response: Response) -> dict[str, Any]:
    """A new conversation over one knowledge base."""
    kb = party.kb(body.kb)
    with database.session() as session:
        get_kb(session, kb)
        conversation = store.create(session, party.owner, kb, body.title)
        response.headers["Location"] = f"/v1/conversations/{conversation.id}"
        return store.conversation_to_dict(session, conversation)


@router.get("")
def index(
    database: DatabaseDep,
    party: Asker,
    limit: Limit = 20,
    after: str | None = None,
    q: Annotated[str, Query(max_length=200, description="Words in the title or a message")] = "",
    kb: Slug | None = None,
) -> dict[str, Any]:
    """Your conversations, the latest first."""
    with database.session() as session:
        rows, more = store.page(session, party, limit, after, q, kb or "")
        return listing([store.conversation_to_dict(session, row) for row in rows], more)


@router.get("/{conversation_id}")
def show(conversation_id: str, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """One conversation."""
    with database.session() as session:
        return store.conversation_to_dict(session, store.get(session, party, conversation_id))


@router.patch("/{conversation_id}")
def rename(conversation_id: str, body: ConversationPatch, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """Another title."""
    with database.session() as session:
        conversation = store.get(session, party, conversation_id)
        store.rename(session, conversation, body.title)
        return store.conversation_to_dict(session, conversation)


@router.delete("/{conversation_id}", status_code=204)
def delete(conversation_id: str, database: DatabaseDep, party: Asker) -> Response:
    """Deletes a conversation with its messages, citations and feedback."""
    with database.session() as session:
        session.delete(store.get(session, party, conversation_id))
    return Response(status_code=204)


@router.get("/{conversation_id}/messages")
def messages(
    conversation_id: str, database: DatabaseDep, party: Asker, limit: Limit = 50, after: str | None = None
) -> dict[str, Any]:
    """The messages in order, answers with their citations."""
    with database.session() as session:
        conversation = store.get(session, party, conversation_id)
        rows, more = store.messages(session, conversation, limit, after)
        return listing([store.message_to_dict(row) for row in rows], more)


@router.get(
    "/{conversation_id}/export",
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/markdown": {}}}},
)
def export(
    conversation_id: str,
    database: DatabaseDep,
    party: Asker,
    format: Literal["json", "markdown"] = "json",
) -> Response:
    """The whole conversation as a file."""
    with database.session() as session:
        conversation = store.get(session, party, conversation_id)
        rows, _ = store.messages(session, conversation, limit=1_000_000)
        name = f"conversation-{conversation.id}"
        if format == "markdown":
            return Response(
                store.to_markdown(conversation, rows),
                media_type="text/markdown; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}.md"'},
            )
        document = store.conversation_to_dict(session, conversation)
        document["messages"] = [store.message_to_dict(row) for row in rows]
        return JSONResponse(document, headers={"Content-Disposition": f'attachment; filename="{name}.json"'})
