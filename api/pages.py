"""The web pages: home with the widget, the document viewer, and the widget's own files."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.web import EMBEDDABLE, STATIC


class Pages(StaticFiles):
    """Static files at the root; what other origins may embed says so."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.setdefault("Cache-Control", "no-cache")  # by ETag: an update shows at once
        if path in EMBEDDABLE:
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            response.headers["Access-Control-Allow-Origin"] = "*"
        return response


class _Root(Mount):
    """The root, but for the API's paths: there a wrong method is a 405, which a match here would hide."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            return Match.NONE, {}
        return super().matches(scope)


def mount(app: FastAPI) -> None:
    """Adds the pages; call it last, since it answers every path that no route has."""

    @app.get("/view/{document_id}", include_in_schema=False)
    async def view(document_id: str, request: Request) -> RedirectResponse:
        where = {"document": document_id, **request.query_params}
        return RedirectResponse(f"/viewer.html?{urlencode(where)}")

    app.router.routes.append(_Root("/", app=Pages(directory=STATIC, html=True), name="pages"))
