"""Summaries and translations: a text or stored document in, the decoder's text out, whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api import asking, sse
from api.auth import Principal
from api.library import open_document, version_of
from api.problems import describe, problem
from api.runtime import Runtime
from api.schemas import TextRequest
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from gglm.engine import Engine
    from gglm.types import Generation, Piece
    from rag.service import Service

MAX_CHARS = 200_000
MAX_TRANSLATED = 20_000
"""Characters that are translated at once: some two minutes of one core."""


async def source_text(runtime: Runtime, party: Principal, body: TextRequest, most: int = MAX_CHARS) -> str:
    """The text to work on.

    Raises:
        InvalidInput: neither or both of ``text`` and ``document_id``, an empty or over-long text.
        NotFound: no such document.
    """
    if (body.text is None) == (body.document_id is None):
        raise InvalidInput("Give either `text` or `document_id`.")
    text = body.text
    if body.document_id is not None:
        database = await runtime.database()
        ident = body.document_id

        def load() -> str:
            with database.session() as session:
                return version_of(session, open_document(session, party, ident)).text

        text = await run_in_threadpool(load)
    if not text or not text.strip():
        raise InvalidInput("The text is empty.")
    if len(text) > most:
        raise InvalidInput(f"The text has {len(text)} characters; at most {most} fit. Send it in parts.")
    return text


async def respond(
    runtime: Runtime,
    client: str,
    stream: bool,
    pick: Callable[[Service], Engine],
    whole: Callable[[Engine], Generation],
    pieces: Callable[[Engine], Iterator[Piece]],
    key: str,
) -> Response:
    """Runs the engine that ``pick`` takes in a model thread; ``key`` names the text in the document."""
    service = await runtime.service()
    slot = await runtime.pool.slot(client)
    if not stream:

        def make() -> dict[str, Any]:
            engine = pick(service)
            return generation_to_dict(key, whole(engine), engine.id)

        return JSONResponse(await asyncio.wrap_future(slot.submit(make)))

    def work(emit: sse.Emitter) -> None:
        said = ""
        try:
            engine = pick(service)
            for piece in pieces(engine):
                said += piece.text
                emit.send(sse.event("delta", piece_to_dict(piece)))
            emit.send(sse.event("answer", {key: said, "model": engine.id}))
            emit.send(sse.event("done", {}))
        except sse.Gone:
            raise
        except Exception as error:
            asking.log_failure(error)
            emit.send(sse.event("error", problem(*describe(error))))

    return sse.stream(slot, work)


def generation_to_dict(key: str, made: Generation, model: str) -> dict[str, Any]:
    """The document of a summary or translation, the same for the CLI and the API."""
    from gglm.types import Translation

    document = {
        key: made.text,
        "pieces": [piece_to_dict(piece) for piece in made.pieces],
        "finish_reason": made.finish_reason,
        "tokens": made.tokens,
        "model": model,
    }
    if isinstance(made, Translation):
        document["sentences"] = [asdict(sentence) | {"sure": sentence.sure} for sentence in made.sentences]
    return document


def piece_to_dict(piece: Piece) -> dict[str, Any]:
    """A piece of output; ``start`` and ``end`` (code points of the given text) if copied, else null."""
    origin = piece.origin
    return {
        "text": piece.text,
        "start": origin.start if origin else None,
        "end": origin.end if origin else None,
    }
