"""Questions, answered at once or as a stream."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api import asking, sse
from api.deps import Asker, Client, RuntimeDep
from api.problems import describe, problem
from api.schemas import AskRequest, turns

router = APIRouter(prefix="/v1/ask", tags=["asking"])


@router.post("", response_model=None, responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}})
async def ask(body: AskRequest, runtime: RuntimeDep, party: Asker, client: Client) -> Response:
    """The document of `chatgglm ask --json`; with `stream`, server-sent events that end with it."""
    exchange = await asking.prepare(runtime, party, body.question, body.kb, turns(body.history), body.conversation_id)
    exchange.filters = body.filters()
    service = await runtime.service()
    slot = await runtime.pool.slot(client)
    if body.stream:

        def work(emit: sse.Emitter) -> None:
            with closing(asking.events(service, exchange)) as events:
                _stream(events, exchange, emit)

        return sse.stream(slot, work)
    answer = await asking.result(slot, service, exchange)
    return JSONResponse(_document(answer, exchange))


def _document(document: dict[str, Any], exchange: asking.Exchange) -> dict[str, Any]:
    document["kb"] = exchange.kb
    if exchange.conversation_id:
        document["conversation_id"] = exchange.conversation_id
        document["message_id"] = exchange.message_id
    return document


def _stream(events: asking.Events, exchange: asking.Exchange, emit: sse.Emitter) -> None:
    count = 0

    def send(name: str, data: Any) -> None:
        nonlocal count
        count += 1
        emit.send(sse.event(name, data, str(count)))

    try:
        for event in events:
            match event["type"]:
                case "start":
                    ids = {"conversation_id": exchange.conversation_id, "message_id": exchange.message_id}
                    send("start", {**ids, "kb": exchange.kb})
                case "token":
                    send("delta", {"text": event["text"]})
                case "done":
                    send("answer", _document(event["answer"], exchange))
                case name:
                    send(name, {key: value for key, value in event.items() if key != "type"})
        send("done", {})
    except sse.Gone:
        raise
    except Exception as error:
        asking.log_failure(error)
        send("error", problem(*describe(error), instance="/v1/ask"))
