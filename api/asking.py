"""One question, whichever route it came by: checked, answered in a model thread, kept in its conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool

from api import conversations as store
from api.auth import Principal
from api.limits import Slot
from api.models import Conversation
from api.runtime import Runtime
from gglm.errors import UserError
from rag.errors import Conflict
from rag.retrieve import usable_question
from rag.store.kbs import get_kb
from rag.types import Turn

if TYPE_CHECKING:
    from rag.filters import Filters
    from rag.service import Service

log = logging.getLogger("chatgglm.api")


@dataclass(slots=True)
class Exchange:
    """A question on its way. ``message_id`` is set once the exchange is stored."""

    question: str
    kb: str
    history: list[Turn]
    conversation_id: str | None = None
    message_id: str | None = None
    filters: Filters | None = None
    """Only these documents are looked at."""


Event = dict[str, Any]
"""An event of `rag.answer.Answerer.stream` (``type`` is ``passages``, ``token``, ``citation`` or ``done``),
or ``start`` once the work has begun and, in a conversation, is stored."""
Events = Generator[Event, None, None]


async def prepare(
    runtime: Runtime,
    party: Principal,
    question: str,
    kb: str | None,
    history: Sequence[Turn],
    conversation_id: str | None = None,
) -> Exchange:
    """Checks a question before it takes a place in the queue.

    Raises:
        InvalidInput: an empty or over-long question.
        NotFound: no such knowledge base or conversation.
        Forbidden: a knowledge base that is not open to this party.
    """
    question = usable_question(question, runtime.settings)
    database = await runtime.database()

    def check() -> Exchange:
        with database.session() as session:
            if conversation_id:
                conversation = store.get(session, party, conversation_id)
                exchange = Exchange(question, conversation.kb, store.history(session, conversation), conversation.id)
            else:
                exchange = Exchange(question, party.kb(kb), list(history))
            get_kb(session, exchange.kb)
            return exchange

    return await run_in_threadpool(check)


async def result(slot: Slot, service: Service, exchange: Exchange) -> dict[str, Any]:
    """The answer's document, made in the slot's thread and stored."""

    def work() -> dict[str, Any]:
        for event in events(service, exchange):
            if event["type"] == "done":
                return cast("dict[str, Any]", event["answer"])
        raise AssertionError("no answer")

    return await asyncio.wrap_future(slot.submit(work))


def events(service: Service, exchange: Exchange) -> Events:
    """The answer as it comes. What was said before an error or a disconnect is kept as interrupted."""
    said = ""
    complete = False
    try:
        _begin(service, exchange)
        yield {"type": "start"}
        answering = service.answerer.stream(
            exchange.question, kb=exchange.kb, history=exchange.history, filters=exchange.filters
        )
        for event in answering:
            if event["type"] == "token":
                said += event["text"]
            elif event["type"] == "done":
                _finish(service, exchange, event["answer"])
                complete = True
            yield event
    finally:
        if not complete and exchange.message_id:
            with service.database.session() as session:
                store.interrupt(session, exchange.message_id, said)


def _begin(service: Service, exchange: Exchange) -> None:
    if exchange.conversation_id is None:
        return
    with service.database.session(write=True) as session:
        conversation = session.get(Conversation, exchange.conversation_id)
        if conversation is None:
            raise Conflict("The conversation was deleted meanwhile.")
        exchange.message_id = store.begin(session, conversation, exchange.question)


def _finish(service: Service, exchange: Exchange, answer: dict[str, Any]) -> None:
    if exchange.message_id:
        with service.database.session(write=True) as session:
            store.finish(session, exchange.message_id, answer)


def viewer_path(citation: dict[str, Any]) -> str:
    """The page that shows a citation in its document."""
    where = {
        "document": citation["document_id"],
        "version": citation["version_id"],
        "start": citation["char_start"],
        "end": citation["char_end"],
    }
    return f"/viewer.html?{urlencode(where)}"


def shown_at(answer: dict[str, Any], citation: dict[str, Any]) -> tuple[int, int]:
    """Where a citation stands in ``display``: its marker, else the characters that it stands for."""
    display: str = answer["display"]
    marker = f"[{citation['marker']}]"
    at = display.find(marker)
    if at >= 0:
        return at, at + len(marker)
    base = max(display.find(answer["answer"]), 0)
    end = min(base + citation["answer_end"], len(display))
    return min(base + citation["answer_start"], end), end


def log_failure(error: Exception) -> None:
    """Unexpected errors go to the log with their traceback; expected ones as a line."""
    log.error("answering failed: %s", error, exc_info=not isinstance(error, UserError))
