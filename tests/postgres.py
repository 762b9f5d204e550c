"""A PostgreSQL server of our own for tests and benchmarks: a new cluster in a temporary folder, gone afterwards.

It listens on a Unix socket only and needs nothing but the server's programs (Debian: ``apt-get install postgresql``).
PostgreSQL refuses to run as root, so root starts it as the user ``postgres``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path


class NoPostgres(Exception):
    """Why there can be no server here, for `pytest.skip`."""


class PostgresServer:
    """One running server; `database` makes empty databases on it. Close it, or use it as a context manager.

    Raises:
        NoPostgres: the server's programs or psycopg are missing, or it does not start.
    """

    def __init__(self) -> None:
        self._bin = _programs()
        self._user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix="chatgglm-pg-", dir="/tmp"))  # a socket's path must be short
        try:
            if self._user:
                shutil.chown(self.folder, self._user)
            self._run("initdb", "--pgdata", self.data, "--username=chatgglm", "--auth=trust", "--no-sync", "-E", "UTF8")
            self._process = self._start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def data(self) -> str:
        """The cluster's data folder."""
        return str(self.folder / "data")

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://chatgglm@/{database}?host={self.folder}"

    def database(self, template: str = "template0", tablespace: str = "pg_default") -> str:
        """The URL of a new database, empty or a copy of ``template`` (which nobody may be connected to)."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" TABLESPACE "{tablespace}"')
        return self.url(name)

    def tablespace(self, folder: Path) -> str:
        """The name of a new tablespace in an empty folder, which is given to the server."""
        if self._user:
            shutil.chown(folder, self._user)
        name = f"space_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE TABLESPACE \"{name}\" LOCATION '{folder}'")
        return name

    def execute(self, statement: str) -> None:
        """One statement on the maintenance database, committed at once."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="chatgglm", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def close(self) -> None:
        """Stops the server and deletes its folder."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's «fast shutdown»
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True, text=True, user=self._user, cwd="/", env=self._environment(), check=False,
        )  # fmt: skip
        if done.returncode:
            raise NoPostgres(f"{program} failed: {(done.stderr.strip() or done.stdout.strip())[-300:]}")

    def _start(self) -> subprocess.Popen[bytes]:
        options = ("fsync=off", "full_page_writes=off", "listen_addresses=", f"unix_socket_directories={self.folder}")
        with open(self.folder / "log", "wb") as log:
            process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *(word for o in options for word in ("-c", o))],
                stdout=log, stderr=log, user=self._user, cwd="/", env=self._environment(), preexec_fn=_die_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(Exception):
                self.execute("SELECT 1")
                return process
            time.sleep(0.05)
        process.kill()
        raise NoPostgres(f"the server does not start: {(self.folder / 'log').read_text(errors='replace')[-300:]}")

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _die_with_parent() -> None:
    """In the child: SIGQUIT, PostgreSQL's immediate shutdown, when the process that started it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _programs() -> Path:
    """The folder with ``initdb`` and ``postgres``."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise NoPostgres("needs psycopg: pip install 'chatgglm[postgres]'") from None
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve())
    if not found:
        raise NoPostgres("needs PostgreSQL's server programs (Debian: apt-get install postgresql)")
    return found[-1].parent


def _unprivileged_user() -> str | None:
    """Whom to run as: nobody else, unless this is root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoPostgres("PostgreSQL does not run as root, and there is no other user")
