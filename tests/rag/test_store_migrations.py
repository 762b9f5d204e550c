"""The schema: one Alembic history for the tables of all packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from rag.errors import StoreUnavailable
from rag.settings import Settings
from rag.store.base import Base
from rag.store.session import Database, _revisions, alembic_config


@pytest.fixture
def database(tmp_path: Path, database_url: str) -> Iterator[Database]:
    """An empty one, on SQLite and on PostgreSQL."""
    database = Database(Settings(home=tmp_path, database_url=database_url))
    yield database
    database.close()


def test_the_history_makes_what_the_models_say(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        command.check(alembic_config(connection))  # raises where a table or column differs
        tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert tables == set(Base.metadata.tables)
    assert {"knowledge_bases", "jobs", "conversations"} <= tables, "all three packages' tables are in it"


def test_the_history_has_one_head_and_we_know_it_without_alembic() -> None:
    script = ScriptDirectory.from_config(alembic_config())
    known, heads = _revisions()
    assert set(script.get_heads()) == heads
    assert len(heads) == 1
    assert known == {revision.revision for revision in script.walk_revisions()}


def test_every_step_can_be_taken_back(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        command.downgrade(alembic_config(connection), "base")
        connection.commit()
        assert inspect(connection).get_table_names() == ["alembic_version"]
        command.upgrade(alembic_config(connection), "head")
        command.check(alembic_config(connection))


def test_migrating_again_does_not_import_alembic(database: Database) -> None:
    database.migrate()
    code = (
        "import sys; from rag.settings import Settings; from rag.store.session import Database; "
        f"Database(Settings(home={str(database.settings.home)!r}, database_url={database.settings.url!r})).migrate(); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_processes_that_start_together_migrate_once(tmp_path: Path, database_url: str) -> None:
    code = (
        "from rag.settings import Settings; from rag.store.session import Database; "
        f"Database(Settings(home={str(tmp_path)!r}, database_url={database_url!r})).migrate()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors


def test_a_newer_schema_is_refused_not_damaged(database: Database) -> None:
    database.migrate()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    with pytest.raises(StoreUnavailable, match="newer version"):
        Database(database.settings).migrate()
