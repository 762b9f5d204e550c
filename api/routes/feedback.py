"""Thumbs on answers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select
from starlette.responses import Response

from api import conversations as store
from api.deps import Admin, Asker, DatabaseDep
from api.models import Feedback
from api.schemas import FeedbackRequest, Limit, listing
from rag.errors import NotFound

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])


@router.post("", status_code=201)
def rate(body: FeedbackRequest, database: DatabaseDep, party: Asker) -> dict[str, Any] | None:
    """A thumb on an answer; a second one replaces the first."""
    with database.session() as session:
        message = store.message_of(session, party, body.message_id)
        return store.feedback_to_dict(store.rate(session, message, body.rating, body.comment))


@router.get("")
def index(database: DatabaseDep, party: Admin, limit: Limit = 50, after: int | None = None) -> dict[str, Any]:
    """All feedback, the latest first, with the answer that it is about (admin keys only)."""
    with database.session() as session:
        statement = select(Feedback).order_by(Feedback.id.desc()).limit(limit + 1)
        if after:
            statement = statement.where(Feedback.id < after)
        rows = list(session.scalars(statement))
        data = [
            {"id": row.id, **(store.feedback_to_dict(row) or {}), "answer": row.message.content} for row in rows[:limit]
        ]
        return listing(data, len(rows) > limit)


@router.delete("/{message_id}", status_code=204)
def take_back(message_id: str, database: DatabaseDep, party: Asker) -> Response:
    """Takes a thumb back."""
    with database.session() as session:
        message = store.message_of(session, party, message_id)
        if message.feedback is None:
            raise NotFound("There is no feedback on this answer.")
        session.delete(message.feedback)
    return Response(status_code=204)
