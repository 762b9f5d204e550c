"""What a document says of itself beside its text: front matter, HTML meta elements, side-car files.

A side-car lies beside the document and is called like it with ``.meta.yaml``, ``.meta.yml`` or ``.meta.json`` after
the whole name (``x.pdf.meta.yaml``). It holds a mapping: ``title``, ``tags``, and any other metadata. What it says
comes before what the document says.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingest.errors import SourceError
from ingest.types import Parsed

SUFFIXES = (".meta.yaml", ".meta.yml", ".meta.json")
MAX_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TAG_NAMES = ("tags", "tag", "keywords", "标签", "关键词")
_TITLE_NAMES = ("title", "标题")


class BadSidecar(SourceError):
    """A side-car that cannot be used. The document fails: filters may count on what it says."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Title (may be empty), tags and metadata; values are as JSON has them, dates in ISO form."""

    title: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


def labels(fields: Mapping[Any, Any]) -> Labels:
    """Sorts the fields of a mapping into title, tags and metadata."""
    rest = {str(name): plain(value) for name, value in fields.items()}
    titles = [rest.pop(name) for name in _TITLE_NAMES if name in rest]
    given = [rest.pop(name) for name in _TAG_NAMES if name in rest]
    return Labels(str(titles[0] or "") if titles else "", tuple(dict.fromkeys(_tags(given))), rest)


def front_matter(text: str) -> tuple[Labels, str]:
    """Labels of the YAML between ``---`` lines that a text begins with, and the text after it."""
    import yaml

    match = _FRONT_MATTER.match(text)
    if match is None:
        return Labels(), text
    try:
        fields = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return Labels(), text[match.end() :]
    return labels(fields) if isinstance(fields, dict) else Labels(), text[match.end() :]


def is_sidecar(name: str) -> bool:
    """Whether a file of this name says something of another."""
    return name.lower().endswith(SUFFIXES)


def described(name: str) -> str:
    """The name of the document that a side-car belongs to."""
    return name[: -next(len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix))]


def sidecar_of(file: str) -> Path | None:
    """The side-car that lies beside a file; None: there is none."""
    return next((Path(file + suffix) for suffix in SUFFIXES if os.path.isfile(file + suffix)), None)


def sidecar_sha256(file: str) -> str | None:
    """Hash of the side-car of a file; None: there is none, or it cannot be read."""
    path = sidecar_of(file)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else None
    except OSError:
        return None


def described_by_sidecar(parsed: Parsed, file: str) -> tuple[Parsed, str | None]:
    """The document with what its side-car says, and the side-car's hash; unchanged and None without one.

    Raises:
        BadSidecar: it is no mapping in YAML or JSON, or cannot be read.
    """
    path = sidecar_of(file)
    if path is None:
        return parsed, None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadSidecar(f"its side-car {path.name} cannot be read: {error.strerror or error}") from None
    found = _parse(path.name, data)
    title = " ".join(found.title.split())[:200]
    tags = tuple(dict.fromkeys((*parsed.tags, *found.tags)))
    known = replace(parsed, title=title or parsed.title, tags=tags, meta=parsed.meta | found.meta)
    return known, hashlib.sha256(data).hexdigest()


def plain(value: Any) -> Any:
    """A value of YAML as JSON has it; dates in ISO form, what JSON does not know as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _parse(name: str, data: bytes) -> Labels:
    import yaml

    if len(data) > MAX_BYTES:
        raise BadSidecar(f"its side-car {name} is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
        fields = json.loads(text) if name.lower().endswith(".json") else yaml.safe_load(text)
    except UnicodeDecodeError:
        raise BadSidecar(f"its side-car {name} is not in UTF-8; save it as UTF-8") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:150]
        raise BadSidecar(f"its side-car {name} cannot be read ({reason}); correct or remove it") from None
    if fields is None:
        return Labels()
    if not isinstance(fields, dict):
        raise BadSidecar(f"its side-car {name} must hold a mapping, as «tags: [人事, 2024]» on a line")
    return labels(fields)


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        return [tag for part in re.split("[,，、;；\n]", value) if (tag := part.strip())]
    if isinstance(value, list):
        return [tag for inner in value for tag in (_tags(inner) if isinstance(inner, (list, str)) else [str(inner)])]
    return [] if value is None or isinstance(value, dict) else [str(value)]
