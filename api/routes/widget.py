"""Widget sessions (a token instead of a key in the page) and the sites that may hold the widget."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import auth
from api.deps import Admin, DatabaseDep
from api.origins import same_origin
from api.schemas import SiteRequest, WidgetSessionRequest, listing
from api.security import is_local_peer
from rag.store.kbs import get_kb

router = APIRouter(prefix="/v1/widget", tags=["widget"])


@router.post("/sessions", status_code=201)
def open_session(body: WidgetSessionRequest, request: Request, database: DatabaseDep) -> dict[str, Any]:
    """A short-lived token for the widget, bound to the page's origin and one knowledge base."""
    origin = request.headers.get("origin", "")
    own = same_origin(origin, request.headers.get("host", ""))
    local = is_local_peer(request.scope)
    with database.session() as session:
        return auth.open_widget_session(session, origin, own, local, body.site, body.token)


@router.get("/sites")
def sites(database: DatabaseDep, party: Admin) -> dict[str, Any]:
    """The registered sites."""
    with database.session() as session:
        return listing([auth.site_to_dict(site) for site in auth.list_sites(session)])


@router.post("/sites", status_code=201)
def add_site(body: SiteRequest, database: DatabaseDep, party: Admin) -> dict[str, Any]:
    """Registers a web origin."""
    with database.session() as session:
        get_kb(session, body.kb)
        return auth.site_to_dict(auth.add_site(session, body.origin, body.kb))


@router.delete("/sites/{site_id}", status_code=204)
def remove_site(site_id: str, database: DatabaseDep, party: Admin) -> Response:
    """Takes a site off the list; its widget's tokens end with it."""
    with database.session() as session:
        auth.remove_site(session, site_id)
    return Response(status_code=204)
