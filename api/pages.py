"""The web pages: home with the widget, the document viewer, and the widget's own files."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
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


def mount(app: FastAPI) -> None:
    """Adds the pages; call it last, since it answers every path that no route has."""

    @app.get("/view/{document_id}", include_in_schema=False)
    async def view(document_id: str) -> FileResponse:
        return FileResponse(STATIC / "viewer.html", headers={"Cache-Control": "no-cache"})

    app.mount("/", Pages(directory=STATIC, html=True), name="pages")
