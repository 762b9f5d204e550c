"""Alembic's environment: the tables of all packages, on the connection that `Database.migrate` hands in."""

from __future__ import annotations

from alembic import context

from rag.store.base import Base, load_models


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
