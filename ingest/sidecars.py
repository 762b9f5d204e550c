"""Files that describe the document beside them.

A side-car is called like its document with ``.meta.yaml``, ``.meta.yml`` or ``.meta.json`` after the whole name
(``x.pdf.meta.yaml``), in a folder or in the same archive. It holds a mapping: ``title``, ``tags``, and any other
metadata. What it says comes before what the document says.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

from ingest import archives
from ingest.errors import SourceError
from ingest.formats import read
from ingest.metadata import Labels, labels
from ingest.types import Parsed

SUFFIXES = (".meta.yaml", ".meta.yml", ".meta.json")
MAX_BYTES = 1 << 20


class BadSidecar(SourceError):
    """A side-car that cannot be used. The document fails: filters may count on what it says."""


def is_sidecar(name: str) -> bool:
    """Whether a file of this name says something of another."""
    return name.lower().endswith(SUFFIXES)


def described(name: str) -> str:
    """The name of the document that a side-car belongs to."""
    return name[: -next(len(suffix) for suffix in SUFFIXES if name.lower().endswith(suffix))]


def sidecar_of(file: str) -> str | None:
    """The side-car beside a file, or beside a member of an archive (``a.zip!/b.txt``); None: there is none."""
    if archives.SEPARATOR in file and not os.path.exists(file):
        archive, key = archives.split(file)
        if key:
            return next((file + suffix for suffix in SUFFIXES if archives.holds(archive, key + suffix)), None)
    return next((file + suffix for suffix in SUFFIXES if os.path.isfile(file + suffix)), None)


def sidecar_sha256(file: str) -> str | None:
    """Hash of the side-car of a file; None: there is none, or it cannot be read."""
    path = sidecar_of(file)
    try:
        return hashlib.sha256(read(Path(path))).hexdigest() if path else None
    except SourceError:
        return None


def described_by_sidecar(parsed: Parsed, file: str) -> tuple[Parsed, str | None]:
    """The document with what its side-car says, and the side-car's hash; unchanged and None without one.

    Raises:
        BadSidecar: it is no mapping in YAML or JSON, or cannot be read.
    """
    path = sidecar_of(file)
    if path is None:
        return parsed, None
    name = path.replace(archives.SEPARATOR, "/").rpartition("/")[2]
    try:
        data = read(Path(path))
    except SourceError as error:
        raise BadSidecar(f"its side-car {name}: {error}") from None
    found = _parse(name, data)
    title = " ".join(found.title.split())[:200]
    tags = tuple(dict.fromkeys((*parsed.tags, *found.tags)))
    known = replace(parsed, title=title or parsed.title, tags=tags, meta=parsed.meta | found.meta)
    return known, hashlib.sha256(data).hexdigest()


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
