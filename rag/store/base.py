"""The one declarative base; every package declares its own tables on it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Names constraints the same on SQLite and PostgreSQL, so that migrations can drop them."""

    metadata = MetaData(naming_convention=NAMING)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for what PostgreSQL (NUL) or UTF-8 (lone surrogates) does not take."""
    return _UNSTORABLE.sub("\ufffd", text)


def now() -> datetime:
    """The present in UTC, without a zone (SQLite keeps none)."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


_MODELS = ("rag.store.models", "ingest.models", "api.models")
"""Where the distribution is not installed, its entry points are not known."""


def load_models() -> None:
    """Import every module that declares tables: entry-point group ``chatgglm.models``."""
    names = {point.value for point in entry_points(group="chatgglm.models")} or set(_MODELS)
    for name in sorted(names):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise


def insert_if_absent(session: Session, model: type[Base], **values: Any) -> None:
    """Insert a row unless its unique key is there already, also where another process is faster."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite.insert(model).values(**values).on_conflict_do_nothing())
    else:
        session.execute(postgresql.insert(model).values(**values).on_conflict_do_nothing())
