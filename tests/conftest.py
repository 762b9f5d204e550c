"""The suite runs offline, on one thread and in a data directory of its own."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import NoPostgres, PostgresServer

ROOT = Path(__file__).resolve().parent.parent
_SCRATCH = tempfile.TemporaryDirectory(prefix="chatgglm-tests-")
_NETWORK_LOG = Path(_SCRATCH.name) / "network.log"
_GUARD = ROOT / "tests" / "offline"

# Before any import of torch or of our settings, and inherited by child processes.
for name in [name for name in os.environ if name.startswith("CHATGGLM_")]:
    del os.environ[name]
os.environ |= {
    "CHATGGLM_HOME": str(Path(_SCRATCH.name) / "home"),
    "CHATGGLM_TEST_NETWORK_LOG": str(_NETWORK_LOG),
    "PYTHONPATH": os.pathsep.join(filter(None, [str(_GUARD), os.environ.get("PYTHONPATH")])),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")  # a busy machine is no failure
_NETWORK_LOG.touch()
_spec = importlib.util.spec_from_file_location("chatgglm_offline_guard", _GUARD / "sitecustomize.py")
assert _spec is not None
assert _spec.loader is not None
_spec.loader.exec_module(importlib.util.module_from_spec(_spec))


@pytest.fixture(autouse=True)
def _nothing_leaves_this_machine() -> Iterator[None]:
    """Fails a test whose code, or a child process of it, tried to reach another machine."""
    before = len(_NETWORK_LOG.read_text(encoding="utf-8"))
    yield
    tried = _NETWORK_LOG.read_text(encoding="utf-8")[before:]
    if tried:
        _NETWORK_LOG.write_text("", encoding="utf-8")
        pytest.fail(f"the network was wanted:\n{tried}")


@pytest.fixture
def blocked_attempts() -> Iterator[Path]:
    """The log of refused connections; emptied afterwards, for tests that provoke them."""
    yield _NETWORK_LOG
    _NETWORK_LOG.write_text("", encoding="utf-8")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the suite's own; skips where its programs are not installed."""
    try:
        server = PostgresServer()
    except NoPostgres as reason:
        pytest.skip(f"PostgreSQL: {reason}")
    with server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """``Settings.database_url`` of an empty database: the test runs on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'chatgglm.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The training and test data beside the checkout (``../shared/data``); skips without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which lies beside the checkout of developers only")
    return folder
