"""The forking process and a filled installation on each database, made once a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.faults.process import Zygote
from tests.faults.scene import Scene
from tests.postgres import PostgresServer

collect_ignore = [] if hasattr(os, "fork") else ["test_kill.py", "test_damage.py", "test_disk_full.py"]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts real commands without their imports."""
    with Zygote() as process:
        yield process


@pytest.fixture(scope="session")
def other() -> Iterator[Zygote]:
    """A second one: each runs one command at a time."""
    with Zygote() as process:
        yield process


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def start(request: pytest.FixtureRequest, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An installation with documents, to be copied (`Scene.copied`), on SQLite and on PostgreSQL."""
    postgres = request.getfixturevalue("postgres") if request.param == "postgres" else None
    folder = tmp_path_factory.mktemp("faults")
    yield Scene.begun(zygote, folder / "start", postgres)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def start_postgres(
    zygote: Zygote, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """The same on PostgreSQL alone, for faults of its disk."""
    folder = tmp_path_factory.mktemp("faults")
    yield Scene.begun(zygote, folder / "start", postgres)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def start_sqlite(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same on SQLite alone, for faults of files."""
    folder = tmp_path_factory.mktemp("faults")
    yield Scene.begun(zygote, folder / "start", None)
    shutil.rmtree(folder, ignore_errors=True)
