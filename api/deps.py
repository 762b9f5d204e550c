"""What routes ask FastAPI for: the runtime, the store, the party behind the request, the client's name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.auth import Principal, authenticate
from api.origins import same_origin
from api.runtime import Runtime
from api.security import is_local_peer
from rag.settings import Settings
from rag.store.session import Database

bearer = HTTPBearer(auto_error=False, description="An API key, or a widget's token")


def get_runtime(request: Request) -> Runtime:
    """The server's runtime."""
    runtime: Runtime = request.app.state.runtime
    return runtime


async def get_database(runtime: Annotated[Runtime, Depends(get_runtime)]) -> Database:
    """The store, once it is open."""
    return await runtime.database()


def get_settings(runtime: Annotated[Runtime, Depends(get_runtime)]) -> Settings:
    """The server's settings."""
    return runtime.settings


async def get_party(
    request: Request,
    database: Annotated[Database, Depends(get_database)],
    _documented: Annotated[object, Depends(bearer)],
) -> Principal:
    """Who asks. Raises Unauthorized."""
    authorization = request.headers.get("authorization", "")
    origin = request.headers.get("origin", "")
    foreign = bool(origin) and not same_origin(origin, request.headers.get("host", ""))
    local = is_local_peer(request.scope)

    def look_up() -> Principal:
        with database.session() as session:
            return authenticate(session, authorization, origin, local, foreign)

    return await run_in_threadpool(look_up)


def _scoped(scope: str) -> object:
    def check(party: Annotated[Principal, Depends(get_party)]) -> Principal:
        party.require(scope)
        return party

    return Depends(check)


def get_client(request: Request, party: Annotated[Principal, Depends(get_party)]) -> str:
    """Whom a request counts for: the key or visitor, and the address."""
    return f"{party.owner}@{request.client.host if request.client else ''}"


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
Asker = Annotated[Principal, _scoped("ask")]
Ingester = Annotated[Principal, _scoped("ingest")]
Admin = Annotated[Principal, _scoped("admin")]
Client = Annotated[str, Depends(get_client)]
