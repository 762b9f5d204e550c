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
