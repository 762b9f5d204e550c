"""An application on a real database; what needs the index and the models has fixtures of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from rag.settings import Settings
from rag.store.session import Database

BASE = "http://127.0.0.1:8000"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    database.migrate()
    yield database
    database.close()


@dataclass
class StoreOnly:
    """A service whose models are never asked."""

    settings: Settings
    database: Database
    warmed: list[str] = field(default_factory=list)

    def warm(self) -> None:
        self.warmed.append("yes")


@asynccontextmanager
async def running(
    settings: Settings, service: Any, peer: str = "127.0.0.1", base: str = BASE, **headers: str
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has started."""
    app = create_app(settings, lambda _: service)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, client=(peer, 40_000))
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


@pytest.fixture
async def client(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings, StoreOnly(settings, database)) as client:
        yield client


@dataclass
class TestService:
    """A real store, index, retriever and answerer; only the models are small ones made for tests."""

    __test__ = False

    settings: Settings
    database: Database

    def __post_init__(self) -> None:
        from rag.answer import Answerer
        from rag.index.generations import IndexManager
        from rag.retrieve import Retriever
        from tests.rag.world import BigramEmbedder, SentenceReader

        self.embedder = BigramEmbedder()
        self.reader = SentenceReader()
        self.indexes = IndexManager(self.database, self.settings, self.embedder)
        self.retriever = Retriever(self.database, self.indexes, self.embedder, self.reader, self.settings)
        self.answerer = Answerer(self.retriever, self.reader, self.settings)

    def warm(self) -> None:
        pass


HANDBOOK = """员工手册

年假：工作满一年的员工每年有十五天年假。

病假：病假需要在当天上午九点之前告知主管。

加班费按照基本工资的百分之一百五十计算。
"""


@pytest.fixture
def service(settings: Settings, database: Database, tmp_path: Path) -> TestService:
    """A service whose default knowledge base holds a small handbook."""
    from ingest.pipeline import ingest

    service = TestService(settings, database)
    file = tmp_path / "员工手册.txt"
    file.write_text(HANDBOOK, encoding="utf-8")
    report = ingest(service, [file], workers=1)  # type: ignore[arg-type]
    assert report.ok, report
    return service


@pytest.fixture
async def asked(settings: Settings, service: TestService) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings, service) as client:
        yield client


@pytest.fixture
def server(settings: Settings, service: TestService) -> Iterator[str]:
    """The same on a real server on loopback; its address."""
    import socket
    import threading
    import time

    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings, lambda _: service), log_level="warning")  # type: ignore[arg-type, return-value]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()
