"""The database of one installation: engine, sessions, migrations. SQLite in WAL mode, or PostgreSQL."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from rag.errors import InvalidInput, StoreUnavailable
from rag.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a writer waits for another one on SQLite."""
_MIGRATION_LOCK = 0x6C6D6767  # PostgreSQL advisory lock, any constant of our own


class Database:
    """All access to SQL. Cheap to make: the engine connects on first use. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._migrated = False

    @cached_property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, with SQLite's WAL, foreign keys and busy timeout switched on.

        Raises:
            InvalidInput: ``CHATGGLM_DATABASE_URL`` is no URL, or its driver is not installed.
        """
        try:
            url = make_url(self.settings.url)
            if url.get_backend_name() == "sqlite":
                self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
                engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, max_overflow=-1)
                event.listen(engine, "connect", _configure_sqlite)
                return engine
            return create_engine(url, pool_pre_ping=True, max_overflow=40)
        except (ArgumentError, NoSuchModuleError) as error:
            raise InvalidInput(f"CHATGGLM_DATABASE_URL cannot be used: {error}") from None
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"The database driver {error.name} is missing: pip install 'chatgglm[postgres]'."
            ) from None

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @cached_property
    def _sessions(self) -> sessionmaker[Session]:
        return sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self, write: bool = False) -> Iterator[Session]:
        """A session that commits at the end and rolls back on an exception.

        Objects stay readable after the commit. ``write`` takes SQLite's write lock at once
        (``BEGIN IMMEDIATE``), for work that reads and then writes what it read.

        Raises:
            StoreUnavailable: the database cannot be opened, is locked, or is full.
        """
        with _understandable(), self._sessions() as session:
            try:
                if write and self.is_sqlite:
                    session.execute(text("BEGIN IMMEDIATE"))
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session that only reads, and sees the database as it was at its first query.

        Raises:
            StoreUnavailable: the database cannot be opened.
        """
        with _understandable(), self._sessions() as session:
            if self.is_sqlite:
                session.execute(text("BEGIN"))
            else:
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session
            session.rollback()

    def migrate(self) -> None:
        """Bring the schema to the newest revision; costs one small query where it is there already.

        Processes that start at the same time wait for one another.

        Raises:
            StoreUnavailable: the database cannot be opened, or a newer version of ChatGGLM made it.
        """
        with self._lock:
            if self._migrated:
                return
            with _understandable():
                known, heads = _revisions()
                if self._revision() not in heads:
                    self._upgrade(known)
            self._migrated = True

    def made(self) -> bool:
        """Whether there is a database, for those who only look; makes nothing.

        Raises:
            StoreUnavailable: it cannot be opened, or its schema is of another version.
        """
        url = make_url(self.settings.url)
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
            return False
        with _understandable():
            revision = self._revision()
            known, heads = _revisions()
        if revision is not None and revision not in heads:
            advice = "run `chatgglm kb list` once to bring it up to date" if revision in known else "upgrade ChatGGLM"
            raise StoreUnavailable(f"The database is of another version ({revision}); {advice}.")
        return revision is not None

    def analyze(self) -> None:
        """Tell SQLite's planner what the tables hold: milliseconds, and filters become many times faster.
        PostgreSQL sees to that by itself."""
        if self.is_sqlite:
            with self.session() as session:
                session.execute(text("PRAGMA analysis_limit = 400"))
                session.execute(text("ANALYZE"))

    def close(self) -> None:
        """Close all connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def _revision(self) -> str | None:
        """The revision that the database is at; None: not made yet."""
        if self.is_sqlite and self.engine.url.database not in (None, "", ":memory:"):
            path = Path(str(self.engine.url.database))
            if not path.exists():
                return None
        with self.engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.scalar(text("SELECT version_num FROM alembic_version"))

    def _upgrade(self, known: set[str]) -> None:
        from alembic import command
        from filelock import FileLock

        self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(self.settings.home / "migrate.lock"), self.engine.connect() as connection:
            if not self.is_sqlite:  # several machines may share one PostgreSQL
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATION_LOCK})
                connection.commit()
            try:
                revision = self._revision()
                if revision is not None and revision not in known:
                    raise StoreUnavailable(
                        f"The database is at revision {revision}, which this version of ChatGGLM does not "
                        "know: a newer version made it. Upgrade ChatGGLM, or set CHATGGLM_HOME to "
                        "another folder."
                    )
                command.upgrade(alembic_config(connection), "head")
                connection.commit()
            finally:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})
                    connection.commit()


def alembic_config(connection: Any = None) -> Any:
    """Alembic's configuration for our history, on an open connection if given."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _revisions() -> tuple[set[str], set[str]]:
    """All revisions and the newest, read from the files: importing Alembic costs 0.7 s a command."""
    pattern = re.compile(r'^(revision|down_revision)\b[^=\n]*=\s*["\'](\w+)["\']', re.MULTILINE)
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for path in (MIGRATIONS / "versions").glob("*.py"):
        for name, value in pattern.findall(path.read_text(encoding="utf-8")):
            found[name].add(value)
    return found["revision"], found["revision"] - found["down_revision"]


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # FULL: what a commit acknowledged outlives a power cut too; it costs a few milliseconds a commit.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _understandable() -> Iterator[None]:
    """Turns the driver's «cannot open», «locked», «full» into one message that says what to do."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StoreUnavailable(f"The database cannot be used now: {error.orig}. {_advice(error)}") from error
    except DBAPIError as error:
        if "file is not a database" in str(error.orig) or "malformed" in str(error.orig):
            raise StoreUnavailable(
                f"The database file is damaged ({error.orig}). Restore chatgglm.db from a backup, or set "
                "CHATGGLM_HOME to another folder and ingest again."
            ) from error
        raise


def _advice(error: DBAPIError) -> str:
    message = str(error.orig).lower()
    if "locked" in message:
        return "Another process holds it; try again in a moment."
    if "full" in message:
        return "Free some disk space and try again."
    if "unable to open" in message or "readonly" in message or "read-only" in message:
        return "Check that CHATGGLM_HOME is a folder that you may write to."
    if "connect" in message or "refused" in message or "password" in message:
        return "Check CHATGGLM_DATABASE_URL and that the server runs."
    return "Try again; if it stays, run `chatgglm kb verify` and look at the disk."
