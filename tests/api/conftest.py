"""An application on a real database; what needs the index and the models has fixtures of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from ingest.pipeline import ingest
from rag.service import Service
from rag.settings import Settings
from rag.store.session import Database
from tests.rag.world import BigramEmbedder, SentenceReader

BASE = "http://127.0.0.1:8000"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an empty database; tests copy it, which is faster than to migrate."""
    home = tmp_path_factory.mktemp("migrated") / "home"
    database = Database(Settings(home=home))
    database.migrate()
    database.close()
    return home


@pytest.fixture(scope="session")
def handbook(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose default knowledge base holds a small handbook."""
    folder = tmp_path_factory.mktemp("handbook")
    home = folder / "home"
    shutil.copytree(migrated, home)
    service = Service(Settings(home=home), BigramEmbedder(), SentenceReader())
    file = folder / "员工手册.txt"
    file.write_text(HANDBOOK, encoding="utf-8")
    report = ingest(service, [file], workers=1)
    assert report.ok, report
    service.database.close()
    return home


@pytest.fixture
def database(settings: Settings, migrated: Path) -> Iterator[Database]:
    shutil.copytree(migrated, settings.home)
    database = Database(settings)
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


HANDBOOK = """员工手册

年假：工作满一年的员工每年有十五天年假。

病假：病假需要在当天上午九点之前告知主管。

加班费按照基本工资的百分之一百五十计算。
"""


@pytest.fixture
def service(settings: Settings, handbook: Path) -> Iterator[Service]:
    """A real store, index, retriever and answerer; only the models are small ones made for tests."""
    shutil.copytree(handbook, settings.home)
    service = Service(settings, BigramEmbedder(), SentenceReader())
    yield service
    service.database.close()


@pytest.fixture
async def asked(settings: Settings, service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings, service) as client:
        yield client


@pytest.fixture
def server(settings: Settings, service: Service) -> Iterator[str]:
    """The same on a real server on loopback; its address."""
    import socket
    import threading
    import time

    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings, lambda _: service), log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()
