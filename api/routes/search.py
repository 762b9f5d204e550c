"""Search without an answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.deps import Asker, Client, RuntimeDep
from api.schemas import SearchRequest

router = APIRouter(prefix="/v1/search", tags=["asking"])


@router.post("")
async def search(body: SearchRequest, runtime: RuntimeDep, party: Asker, client: Client) -> dict[str, Any]:
    """The best passages for a question: the document of `chatgglm search --json`."""
    from rag.retrieve import usable_question
    from rag.wire import passage_to_dict

    kb = party.kb(body.kb)
    question = usable_question(body.question, runtime.settings)
    service = await runtime.service()
    filters = body.filters()
    found = await runtime.pool.run(client, service.retriever.search, question, kb=kb, k=body.k, filters=filters)
    return {"question": body.question, "kb": kb, "results": [passage_to_dict(p) for p in found]}
