"""Whether the server lives and whether it can answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.deps import RuntimeDep

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not yet, or not at all"}})
async def readyz(runtime: RuntimeDep) -> Response:
    """200 once questions can be answered; 503 while the models load or if that failed."""
    body: dict[str, Any] = {"status": "ready", "waiting": runtime.pool.waiting}
    if runtime.ready:
        return JSONResponse(body)
    body["status"] = "failed" if runtime.failure else "loading"
    return JSONResponse(body | {"detail": runtime.failure}, 503, {"Retry-After": "2"})
