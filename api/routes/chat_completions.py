"""OpenAI-compatible chat completions: the last user message is answered from a knowledge base."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api import asking, sse
from api.deps import Asker, Client, DatabaseDep, RuntimeDep
from api.errors import BadRequest
from api.problems import describe, openai_error
from api.routes.models import kb_of
from api.schemas import Text
from api.usage import usage
from rag.types import Turn

router = APIRouter(prefix="/v1/chat/completions", tags=["openai"])


CONTEXT = (
    "answer",
    "answerable",
    "p_answerable",
    "reason",
    "run_id",
    "standalone_question",
    "citations",
)


class ContentPart(BaseModel):
    """A part of a message; only text can be read."""

    type: str
    text: Text = ""


class ChatMessage(BaseModel):
    """A message; instructions (system, developer) and tool messages are accepted and left aside."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[ContentPart] | None = None

    def text(self) -> str:
        """The message as plain text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(BaseModel):
    """What a stream carries besides the answer."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """OpenAI's request. Sampling options are accepted and change nothing: answers are read from sources."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    tools: list[dict[str, Any]] | None = None


@router.post("", response_model=None, responses={200: {"content": {"application/json": {}, "text/event-stream": {}}}})
async def complete(
    body: ChatRequest,
    request: Request,
    runtime: RuntimeDep,
    database: DatabaseDep,
    party: Asker,
    client: Client,
) -> Response:
    """An answer with its sources; `context` holds our own document, `annotations` OpenAI's citations."""
    if (body.n or 1) > 1:
        raise BadRequest("`n` must be 1: the same question has one answer here.")
    question, history = _split(body.messages)

    def kb_slug() -> str:
        with database.session() as session:
            return kb_of(session, party, body.model).slug

    kb = await run_in_threadpool(kb_slug)
    exchange = await asking.prepare(runtime, party, question, kb, history)
    service = await runtime.service()
    completion = _Completion(body, request, question, history)
    slot = await runtime.pool.slot(client)
    if body.stream:

        def work(emit: sse.Emitter) -> None:
            with closing(asking.events(service, exchange)) as events:
                completion.stream(events, emit)

        return sse.stream(slot, work)
    answer = await asking.result(slot, service, exchange)
    return JSONResponse(completion.whole(answer))


def _split(messages: list[ChatMessage]) -> tuple[str, list[Turn]]:
    """The question, which is the last user message, and the turns before it."""
    spoken = [(m.role, m.text()) for m in messages if m.role in ("user", "assistant")]
    last = max((i for i, (role, _) in enumerate(spoken) if role == "user"), default=-1)
    if last < 0:
        raise BadRequest("`messages` needs a message with the role «user»: the question.")
    history = [Turn("user" if role == "user" else "assistant", text) for role, text in spoken[:last] if text.strip()]
    return spoken[last][1], history


class _Completion:
    """One answer in OpenAI's shapes; id and time are the same in every chunk."""

    def __init__(self, body: ChatRequest, request: Request, question: str, history: list[Turn]) -> None:
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }
        self.base_url = str(request.base_url).rstrip("/")
        self.prompt = [question, *(turn.content for turn in history)]
        self.include_usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A `chat.completion`."""
        message = {
            "role": "assistant",
            "content": answer["display"],
            "refusal": None,
            "annotations": self.annotations(answer),
            "context": self.context(answer),
        }
        return {
            **self.head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": usage(self.prompt, answer["display"]),
            "system_fingerprint": f"{answer['model']}:{answer['generation']}",
        }

    def stream(self, events: asking.Events, emit: sse.Emitter) -> None:
        """`chat.completion.chunk`s, then `[DONE]`; an error after the start travels as an error object."""
        emit.send(self.chunk({"role": "assistant", "content": "", "refusal": None}))
        answer: dict[str, Any] = {}
        try:
            for event in events:
                if event["type"] == "token":
                    emit.send(self.chunk({"content": event["text"]}))
                elif event["type"] == "done":
                    answer = event["answer"]
        except sse.Gone:
            raise
        except Exception as error:
            status, code, message = describe(error)
            asking.log_failure(error)
            emit.send(sse.data_only(openai_error(status, code, message)))
            return
        extra = {"annotations": self.annotations(answer), "context": self.context(answer)}
        emit.send(self.chunk(extra, "stop"))
        if self.include_usage:
            emit.send(self.chunk(None, usage=usage(self.prompt, answer["display"])))
        emit.send(sse.data_only("[DONE]"))

    def chunk(
        self, delta: dict[str, Any] | None, finish: str | None = None, usage: dict[str, int] | None = None
    ) -> bytes:
        """One chunk; without a delta it is the one that carries the usage."""
        choices = []
        if delta is not None:
            choices = [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
        body = {**self.head, "object": "chat.completion.chunk", "choices": choices}
        if self.include_usage:
            body["usage"] = usage
        return sse.data_only(body)

    def annotations(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Citations as OpenAI's clients know them; the indexes are code points of `content`."""
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": start,
                    "end_index": end,
                    "title": citation["title"],
                    "url": self.base_url + asking.viewer_path(citation),
                },
            }
            for citation in answer["citations"]
            for start, end in [asking.shown_at(answer, citation)]
        ]

    def context(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What OpenAI's shape has no room for."""
        return {name: answer[name] for name in CONTEXT}
