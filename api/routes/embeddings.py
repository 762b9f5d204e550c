"""OpenAI-compatible embeddings by the server's own embedder."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import Asker, Client, RuntimeDep
from api.errors import BadRequest, ModelNotFound
from api.schemas import Text
from api.usage import count_tokens

router = APIRouter(prefix="/v1/embeddings", tags=["openai"])

MAX_INPUTS = 2048


class EmbeddingsRequest(BaseModel):
    """OpenAI's request. Lists of token ids are refused: the vocabulary is another one."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)] | list[Any]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    input_type: Literal["passage", "query"] = "passage"
    """Ours: whether the texts are questions."""


@router.post("")
async def embed(body: EmbeddingsRequest, runtime: RuntimeDep, party: Asker, client: Client) -> dict[str, Any]:
    """Unit-length vectors; `model` is the embedder's id, or `chatgglm`."""
    service = await runtime.service()
    embedder = service.embedder
    if body.model not in (embedder.id, runtime.settings.embedder, "chatgglm"):
        raise ModelNotFound(f"The model `{body.model}` does not exist. Use `{embedder.id}`.")
    if body.dimensions not in (None, embedder.dim):
        raise BadRequest(f"`{embedder.id}` makes vectors of {embedder.dim} dimensions only.")
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        raise BadRequest("`input` must be text. Token ids mean nothing here: the vocabulary is our own.")
    if not all(text.strip() for text in texts):
        raise BadRequest("`input` must not be empty.")
    encode = embedder.encode_queries if body.input_type == "query" else embedder.encode_passages
    vectors = await runtime.pool.run(client, encode, texts)
    tokens = sum(count_tokens(text) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
            for i, vector in enumerate(vectors)
        ],
        "model": embedder.id,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encoded(vector: np.ndarray, form: str) -> list[float] | str:
    """A vector as numbers, or as base64 of little-endian float32 (what OpenAI's clients ask for)."""
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values
