"""Conversations in SQL: questions, answers with their citations, feedback, export."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.orm import Session, selectinload

from api.auth import Principal, iso
from api.models import Conversation, Feedback, Message, MessageCitation
from rag.errors import NotFound
from rag.store.base import now
from rag.store.models import new_id
from rag.types import Turn

HISTORY_TURNS = 12
"""Messages of a conversation that a new question is read with."""
TITLE_CHARS = 40
# fmt: off
_FIGURES = ("answer", "standalone_question", "answerable", "p_answerable", "reason", "model", "generation",
            "run_id", "timings_ms", "generated")
_CITATION = ("marker", "document_id", "version_id", "title", "path", "page", "char_start", "char_end",
             "quote", "answer_start", "answer_end", "kind", "score")
# fmt: on


def create(session: Session, owner: str, kb: str, title: str = "") -> Conversation:
    """A new, empty conversation."""
    conversation = Conversation(id=new_id(), owner=owner, kb=kb, title=title)
    session.add(conversation)
    session.flush()
    return conversation


def get(session: Session, party: Principal, ident: str) -> Conversation:
    """A conversation of this party (of anyone, for an admin). Raises NotFound."""
    conversation = session.get(Conversation, ident)
    if conversation is None or not (party.admin or conversation.owner == party.owner):
        raise NotFound(f"There is no conversation «{ident}».")
    return conversation


def page(
    session: Session, party: Principal, limit: int, after: str | None = None, query: str = "", kb: str = ""
) -> tuple[list[Conversation], bool]:
    """Conversations, the latest first, and whether there are more. ``query`` searches titles and messages.

    Raises:
        NotFound: ``after`` is no conversation of this party.
    """
    statement = select(Conversation)
    if not party.admin:
        statement = statement.where(Conversation.owner == party.owner)
    if kb:
        statement = statement.where(Conversation.kb == kb)
    if query:
        said = select(Message.id).where(
            Message.conversation_id == Conversation.id, Message.content.contains(query, autoescape=True)
        )
        statement = statement.where(or_(Conversation.title.contains(query, autoescape=True), said.exists()))
    if after:
        last = get(session, party, after)
        statement = statement.where(tuple_(Conversation.updated_at, Conversation.id) < tuple_(last.updated_at, last.id))
    statement = statement.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(limit + 1)
    rows = list(session.scalars(statement))
    return rows[:limit], len(rows) > limit


def messages(
    session: Session, conversation: Conversation, limit: int, after: str | None = None
) -> tuple[list[Message], bool]:
    """Messages in order, with citations and feedback, and whether there are more."""
    statement = (
        select(Message)
        .where(Message.conversation_id == conversation.id)
        .options(selectinload(Message.citations), selectinload(Message.feedback))
        .order_by(Message.ordinal)
        .limit(limit + 1)
    )
    if after:
        last = session.get(Message, after)
        if last is None or last.conversation_id != conversation.id:
            raise NotFound(f"There is no message «{after}» in this conversation.")
        statement = statement.where(Message.ordinal > last.ordinal)
    rows = list(session.scalars(statement))
    return rows[:limit], len(rows) > limit


def history(session: Session, conversation: Conversation) -> list[Turn]:
    """The last complete exchanges, oldest first; interrupted answers are left out with their questions."""
    rows = list(
        session.scalars(
            select(Message)
            .where(Message.conversation_id == conversation.id)
            .order_by(Message.ordinal.desc())
            .limit(2 * HISTORY_TURNS)
        )
    )[::-1]
    turns: list[Turn] = []
    for question, answer in pairwise(rows):
        if question.role != "user" or answer.role != "assistant" or answer.status != "complete":
            continue
        turns += [Turn("user", question.content), Turn("assistant", _spoken(answer))]
    return turns[-HISTORY_TURNS:]


def begin(session: Session, conversation: Conversation, question: str) -> str:
    """Stores a question and an answer that is interrupted until `finish`; gives the answer's id."""
    last = session.scalar(select(func.max(Message.ordinal)).where(Message.conversation_id == conversation.id))
    ordinal = (last or 0) + 1
    session.add(Message(id=new_id(), conversation_id=conversation.id, ordinal=ordinal, role="user", content=question))
    answer = Message(
        id=new_id(),
        conversation_id=conversation.id,
        ordinal=ordinal + 1,
        role="assistant",
        status="interrupted",
        content="",
    )
    session.add(answer)
    if not conversation.title:
        conversation.title = " ".join(question.split())[:TITLE_CHARS]
    conversation.updated_at = now()
    session.flush()
    return answer.id


def finish(session: Session, message_id: str, document: Mapping[str, Any]) -> None:
    """Completes an answer (the document of `rag.wire`), with its citations.

    Nothing happens if the conversation has gone meanwhile.
    """
    message = session.get(Message, message_id)
    if message is None:
        return
    message.status = "complete"
    message.content = document["display"] or document["answer"]
    message.answer = {name: document[name] for name in _FIGURES}
    message.citations = [
        MessageCitation(**{name: citation[name] for name in _CITATION}) for citation in document["citations"]
    ]


def interrupt(session: Session, message_id: str, partial: str) -> None:
    """Keeps what an interrupted answer had said."""
    message = session.get(Message, message_id)
    if message is not None and message.status == "interrupted":
        message.content = partial


def rename(session: Session, conversation: Conversation, title: str) -> None:
    """Gives a conversation another title."""
    conversation.title = title
    session.flush()


def message_of(session: Session, party: Principal, ident: str) -> Message:
    """An answer in a conversation of this party. Raises NotFound."""
    message = session.get(Message, ident)
    if message is None or message.role != "assistant":
        raise NotFound(f"There is no answer «{ident}».")
    get(session, party, message.conversation_id)
    return message


def rate(session: Session, message: Message, rating: str, comment: str) -> Feedback:
    """Stores a thumb; a second one replaces the first."""
    if message.feedback is None:
        message.feedback = Feedback(rating=rating, comment=comment)
    else:
        message.feedback.rating = rating
        message.feedback.comment = comment
        message.feedback.created_at = now()
    session.flush()
    return message.feedback


def conversation_to_dict(session: Session, conversation: Conversation) -> dict[str, Any]:
    """A conversation without its messages."""
    count = session.scalar(select(func.count()).select_from(Message).where(Message.conversation_id == conversation.id))
    return {
        "id": conversation.id,
        "kb": conversation.kb,
        "title": conversation.title,
        "created_at": iso(conversation.created_at),
        "updated_at": iso(conversation.updated_at),
        "messages": count or 0,
    }


def message_to_dict(message: Message) -> dict[str, Any]:
    """A message with its citations and feedback."""
    figures = message.answer or {}
    return {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "role": message.role,
        "status": message.status,
        "content": message.content,
        "answer": figures.get("answer"),
        "answerable": figures.get("answerable"),
        "p_answerable": figures.get("p_answerable"),
        "reason": figures.get("reason"),
        "model": figures.get("model"),
        "run_id": figures.get("run_id"),
        "generated": figures.get("generated") or [],
        "citations": [citation_to_dict(c) for c in message.citations],
        "feedback": feedback_to_dict(message.feedback),
        "created_at": iso(message.created_at),
    }


def citation_to_dict(citation: MessageCitation) -> dict[str, Any]:
    """A stored citation, in the shape of a fresh one."""
    return {name: getattr(citation, name) for name in _CITATION}


def feedback_to_dict(feedback: Feedback | None) -> dict[str, Any] | None:
    """A thumb."""
    if feedback is None:
        return None
    return {
        "message_id": feedback.message_id,
        "rating": feedback.rating,
        "comment": feedback.comment,
        "created_at": iso(feedback.created_at),
    }


def to_markdown(conversation: Conversation, rows: list[Message]) -> str:
    """A conversation to read or to keep, sources as footnotes to each answer."""
    lines = [f"# {conversation.title or '对话'}", ""]
    for message in rows:
        if message.role == "user":
            lines += ["## 问：" + " ".join(message.content.split()), ""]
            continue
        lines += [message.content or "（没有回答）", ""]
        if message.status == "interrupted":
            lines += ["*（回答被中断）*", ""]
        for c in message.citations:
            page_note = f"，第 {c.page} 页" if c.page else ""
            quote = " ".join(c.quote.split())
            lines.append(f"- [{c.marker}] {c.title}（{c.path}{page_note}）：「{quote}」")
        if message.citations:
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _spoken(message: Message) -> str:
    """An answer as history: the bare answer, not the quote around it."""
    return str((message.answer or {}).get("answer") or message.content)
