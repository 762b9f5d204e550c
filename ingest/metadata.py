"""What a document says of itself beside its text: front matter, HTML meta elements; of side-cars: `ingest.sidecars`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TAG_NAMES = ("tags", "tag", "keywords", "标签", "关键词")
_TITLE_NAMES = ("title", "标题")


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


def plain(value: Any) -> Any:
    """A value of YAML as JSON has it; dates in ISO form, what JSON does not know as text."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        return [tag for part in re.split("[,，、;；\n]", value) if (tag := part.strip())]
    if isinstance(value, list):
        return [tag for inner in value for tag in (_tags(inner) if isinstance(inner, (list, str)) else [str(inner)])]
    return [] if value is None or isinstance(value, dict) else [str(value)]
