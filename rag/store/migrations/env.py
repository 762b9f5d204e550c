"""Alembic's environment: the tables of all packages, on the connection that `Database.migrate` hands in."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from alembic import context

from rag.store.base import Base

FALLBACK = ("rag.store.models", "ingest.models", "api.models")
"""Where the distribution is not installed, its entry points are not known."""


def load_models() -> None:
    """Import every module that declares tables: entry-point group ``chatgglm.models``."""
    names = {point.value for point in entry_points(group="chatgglm.models")} or set(FALLBACK)
    for name in sorted(names):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise


def run() -> None:
    """Run the migrations on the given connection."""
    load_models()
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters by copying
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
