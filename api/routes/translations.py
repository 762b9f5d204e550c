"""Translations."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from api import generating
from api.deps import Asker, Client, RuntimeDep
from api.schemas import TranslationRequest

router = APIRouter(prefix="/v1/translations", tags=["texts"])


@router.post("", response_model=None)
async def translate(body: TranslationRequest, runtime: RuntimeDep, party: Asker, client: Client) -> Response:
    """Chinese to English (English to Chinese only with weights of your own). Experimental: the shipped model is small.

    Each of `sentences` says how certain the model was of it; where it was not `sure`, the wording is often wrong.
    """
    text = await generating.source_text(runtime, party, body, generating.MAX_TRANSLATED)
    return await generating.respond(
        runtime,
        client,
        body.stream,
        lambda service: service.translator(body.direction),
        lambda engine: engine.translate(text, direction=body.direction),
        lambda engine: engine.stream_translate(text, direction=body.direction),
        "translation",
    )
