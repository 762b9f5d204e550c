"""OpenAI's model list: one id per knowledge base, so that any client can pick one from its menu."""

from __future__ import annotations

import calendar
from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.auth import Principal
from api.deps import Asker, DatabaseDep
from api.errors import ModelNotFound
from rag.errors import NotFound
from rag.store.kbs import get_kb, list_kbs
from rag.store.models import KnowledgeBase

router = APIRouter(prefix="/v1/models", tags=["openai"])

OWNER = "chatgglm"


def kb_of(session: Session, party: Principal, model: str) -> KnowledgeBase:
    """The knowledge base of a model id. Raises ModelNotFound."""
    name, slash, slug = model.partition("/")
    if name == OWNER and bool(slash) == bool(slug):
        slug = slug or party.kb(None)
        if party.sees(slug):
            try:
                return get_kb(session, slug)
            except NotFound:
                if not slash:
                    raise
    raise ModelNotFound(f"The model `{model}` does not exist. GET /v1/models lists those that do.")


def _model(ident: str, kb: KnowledgeBase) -> dict[str, Any]:
    return {
        "id": ident,
        "object": "model",
        "created": calendar.timegm(kb.created_at.timetuple()),
        "owned_by": OWNER,
    }


@router.get("")
def index(database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """`chatgglm` (the default knowledge base) and `chatgglm/<kb>` for each one."""
    with database.session() as session:
        kbs = [kb for kb in list_kbs(session) if party.sees(kb.slug)]
        first = [_model(OWNER, kb) for kb in kbs if kb.slug == party.kb(None)]
        return {"object": "list", "data": first + [_model(f"{OWNER}/{kb.slug}", kb) for kb in kbs]}


@router.get("/{model_id:path}")
def show(model_id: str, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """One model."""
    with database.session() as session:
        return _model(model_id, kb_of(session, party, model_id))
