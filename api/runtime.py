"""What a running server holds: the store and the models, loaded in the background, and the model threads."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from api.errors import NotReady
from api.ingestion import IngestionWorker
from api.limits import ModelPool
from api.problems import describe
from rag.settings import Settings
from rag.store.kbs import get_or_create_kb

if TYPE_CHECKING:
    from rag.service import Service
    from rag.store.session import Database

log = logging.getLogger("chatgglm.api")
ServiceFactory = Callable[[Settings], "Service"]
SITES_SECONDS = 2.0


def default_service(settings: Settings) -> Service:
    """The service that the CLI uses too."""
    from rag.service import get_service

    return get_service(settings)


class Runtime:
    """Requests wait for `database` and `service`; both fail with NotReady if loading failed."""

    def __init__(self, settings: Settings, factory: ServiceFactory = default_service) -> None:
        self.settings = settings
        self.pool = ModelPool(settings.workers, settings.queue, settings.per_client, settings.queue_timeout_s)
        self._factory = factory
        self._service: Service | None = None
        self._ingestion: IngestionWorker | None = None
        self._failure: Exception | None = None
        self._store_ready = threading.Event()
        self._models_ready = threading.Event()
        self._sites: tuple[float, frozenset[str]] = (0.0, frozenset())
        self._waiters = (asyncio.Event(), asyncio.Event())
        self._preparations: list[Callable[[Service], None]] = []

    def start(self) -> None:
        """Begins to load, in a thread of its own."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop,), name="load", daemon=True).start()

    def prepare(self, task: Callable[[Service], None]) -> None:
        """Runs ``task`` in the loading thread, after the models and before the first answer."""
        self._preparations.append(task)

    @property
    def ready(self) -> bool:
        """Whether questions can be answered now."""
        return self._models_ready.is_set() and self._failure is None

    @property
    def failure(self) -> str:
        """Why loading failed; empty where it did not."""
        return describe(self._failure)[2] if self._failure else ""

    async def database(self) -> Database:
        """The store, migrated. Raises NotReady."""
        return (await self._wait(self._waiters[0])).database

    async def service(self) -> Service:
        """Everything, models loaded. Raises NotReady."""
        return await self._wait(self._waiters[1])

    async def sites(self) -> frozenset[str]:
        """Origins of the registered widget sites, at most two seconds old."""
        from api.auth import list_sites

        asked, origins = self._sites
        if time.monotonic() - asked > SITES_SECONDS:
            database = await self.database()

            def load() -> frozenset[str]:
                with database.session() as session:
                    return frozenset(site.origin for site in list_sites(session))

            origins = await run_in_threadpool(load)
            self._sites = (time.monotonic(), origins)
        return origins

    async def ingestion(self) -> IngestionWorker:
        """Who works on uploads. Raises NotReady."""
        await self.service()
        assert self._ingestion is not None
        return self._ingestion

    def close(self) -> None:
        """Stops the model threads."""
        self.pool.close()
        if self._ingestion:
            self._ingestion.close()

    async def _wait(self, event: asyncio.Event) -> Service:
        await event.wait()
        if self._service is None or (self._failure and event is self._waiters[1]):
            raise NotReady(f"The server could not start: {self.failure}", 30)
        return self._service

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        begun = time.monotonic()
        try:
            service = self._factory(self.settings)
            service.database.migrate()
            with service.database.session() as session:  # what requests without `kb` mean is always there
                get_or_create_kb(session, embedder=self.settings.embedder)
            self._service = service
            self._announce(loop, self._store_ready, self._waiters[0])
            service.warm()
            for task in self._preparations:
                task(service)
            self._ingestion = IngestionWorker(service)
            log.info("ready after %.1f s", time.monotonic() - begun)
        except Exception as error:
            self._failure = error
            _, code, message = describe(error)
            log.error("loading failed: %s", message, exc_info=code == "internal_error")
        finally:
            self._announce(loop, self._store_ready, self._waiters[0])
            self._announce(loop, self._models_ready, self._waiters[1])

    @staticmethod
    def _announce(loop: asyncio.AbstractEventLoop, flag: threading.Event, event: asyncio.Event) -> None:
        flag.set()
        if not loop.is_closed():
            loop.call_soon_threadsafe(event.set)
