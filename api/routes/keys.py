"""API keys, for admin keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api import auth
from api.deps import Admin, DatabaseDep
from api.schemas import KeyRequest, listing

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201)
def create(body: KeyRequest, database: DatabaseDep, party: Admin) -> dict[str, Any]:
    """A new key; `key` is shown this once."""
    with database.session() as session:
        row, secret = auth.create_key(session, body.name, body.scopes, body.kbs, body.expires_days)
        return {**auth.key_to_dict(row), "key": secret}


@router.get("")
def index(database: DatabaseDep, party: Admin) -> dict[str, Any]:
    """All keys, without their secrets."""
    with database.session() as session:
        return listing([auth.key_to_dict(row) for row in auth.list_keys(session)])


@router.delete("/{key_id}", status_code=204)
def revoke(key_id: str, database: DatabaseDep, party: Admin) -> Response:
    """Ends a key at once."""
    with database.session() as session:
        auth.revoke_key(session, key_id)
    return Response(status_code=204)
