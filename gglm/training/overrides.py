"""Settings of a run from a TOML file.

The commands have options for the common ones; this reaches every field of the dataclasses.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gglm.errors import DataError

Settings = TypeVar("Settings")


def read(file: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        DataError: there is none, or it is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{file} cannot be read as TOML: {error}") from None


def override(settings: Settings, values: dict[str, Any], path: str = "") -> Settings:
    """A copy of a settings dataclass with other values; a table changes the fields of a nested one.

    Raises:
        DataError: an unknown name or a value of another type, named with its table.
    """
    hints = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{path}{name}"
        if name not in hints:
            raise DataError(f"settings: there is no {where}; known here: {', '.join(hints)}")
        old = getattr(settings, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            changes[name] = override(old, value, f"{where}.")
            continue
        try:
            # JSON's strictness: no number from a text or a truth value, but paths and lists as they are written
            changes[name] = TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            raise DataError(f"settings: {where} = {value!r}: {error.errors()[0]['msg']}") from None
    try:
        return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise DataError(f"settings: {path}{'/'.join(changes)}: {error}") from None
