"""The one declarative base; every package declares its own tables on it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

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


def now() -> datetime:
    """The present in UTC, without a zone (SQLite keeps none)."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
