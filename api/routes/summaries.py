"""Summaries."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api import generating
from api.deps import Asker, Client, RuntimeDep
from api.schemas import SummaryRequest

router = APIRouter(prefix="/v1/summaries", tags=["texts"])


@router.post("", response_model=None)
async def summarise(body: SummaryRequest, runtime: RuntimeDep, party: Asker, client: Client) -> Response:
    """A short version of a text or a stored document, and where its pieces were copied from."""
    text = await generating.source_text(runtime, party, body)
    return await generating.respond(
        runtime,
        client,
        body.stream,
        lambda service: service.engine,
        lambda engine: engine.summarize(text),
        lambda engine: engine.stream_summarize(text),
        "summary",
    )
