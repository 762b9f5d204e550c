"""The HTTP application: `create_app(settings)`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from api import pages, problems
from api.limits import BodyLimit
from api.routes import (
    ask,
    chat_completions,
    chunks,
    conversations,
    documents,
    embeddings,
    feedback,
    health,
    jobs,
    keys,
    knowledge_bases,
    models,
    originals,
    search,
    summaries,
    translations,
    widget,
)
from api.runtime import Runtime, ServiceFactory, default_service
from api.security import Door, HostPolicy
from rag.settings import Settings, get_settings

if TYPE_CHECKING:
    from rag.service import Service

ROUTES = (
    ask,
    chat_completions,
    models,
    embeddings,
    search,
    summaries,
    translations,
    knowledge_bases,
    documents,
    originals,
    chunks,
    jobs,
    conversations,
    feedback,
    widget,
    keys,
    health,
)
MULTIPART_OVERHEAD = 1 << 20


def create_app(
    settings: Settings | None = None,
    service: ServiceFactory = default_service,
    prepare: Callable[[Service], None] | None = None,
) -> FastAPI:
    """The application. Models load in the background once it starts; requests wait for them.

    Args:
        settings: those of the process by default.
        service: makes the service; tests give their own.
        prepare: runs in the background after loading, before the first question is answered.
    """
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime = Runtime(settings, service)
        if prepare:
            runtime.prepare(prepare)
        app.state.runtime = runtime
        runtime.start()
        try:
            yield
        finally:
            runtime.close()

    app = FastAPIOffline(  # Swagger UI from the package: FastAPI's own page loads it from a CDN
        redoc_url=None,
        title="ChatGGLM",
        summary="Questions answered from your own documents, with citations",
        version=_version(),
        lifespan=lifespan,
        favicon_url="/static-offline-docs/favicon.png",
    )

    async def sites() -> frozenset[str]:
        runtime: Runtime = app.state.runtime
        return await runtime.sites()

    app.add_middleware(
        BodyLimit,
        json_bytes=settings.max_body_kb * 1024,
        upload_bytes=settings.max_upload_mb * 1024 * 1024 + MULTIPART_OVERHEAD,
    )
    app.add_middleware(Door, hosts=HostPolicy(settings.host, settings.allowed_hosts), sites=sites)
    problems.install(app)
    for route in ROUTES:
        for operation in route.router.routes:
            if isinstance(operation, APIRoute):  # its first sentence says more than its function's name
                operation.summary = operation.description.split("\n")[0].rstrip(".")
        app.include_router(route.router, responses=problems.documented(route.router.prefix))
    pages.mount(app)
    return app


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("chatgglm")
    except PackageNotFoundError:
        return "0.0.0"
