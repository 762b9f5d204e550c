"""The files of one generation: opening, writing to a passing name, sweeping up."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from rag.errors import IndexUnavailable
from rag.index import files
from rag.index.lexical import Bm25Index
from rag.index.stores import VectorStores

if TYPE_CHECKING:
    from rag.index.milvus import MilvusStore
    from rag.index.vectors import FaissStore

MANIFEST = "generation.json"
FORMAT = 2
"""Of the files, and of the terms in them (rag/index/terms.py)."""
GRACE_SECONDS = 300.0
"""A generation that is no longer current stays this long for those who have just looked up its number."""


@dataclass(frozen=True)
class KbIndex:
    """One open generation. Search as you like from any thread; never change it."""

    kb_id: int
    generation: int
    embedder: str
    vectors: FaissStore | MilvusStore = field(repr=False)
    lexical: Bm25Index = field(repr=False)
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.lexical)


def empty(kb_id: int, number: int, embedder: str, stores: VectorStores) -> KbIndex:
    """An index of nothing, to which that embedder's vectors may be added."""
    return KbIndex(kb_id, number, embedder, stores.new(kb_id), Bm25Index())


def load(root: Path, kb_id: int, number: int, stores: VectorStores) -> KbIndex:
    """Memory-map the generation in ``root/kb_id/number``.

    Raises:
        IndexUnavailable: its files are missing, cut short or damaged.
    """
    folder = root / str(kb_id) / str(number)
    manifest = files.read_json(folder / MANIFEST)
    try:
        if manifest["format"] != FORMAT:
            raise IndexUnavailable(
                "Another version of ChatGGLM made this index, with other search terms. "
                "`chatgglm kb rebuild` makes it again from the database."
            )
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise files.damaged(path, "it is missing or cut short")
        vectors, lexical = stores.open(folder / "vectors", kb_id), Bm25Index.open(folder / "lexical")
        return KbIndex(kb_id, number, manifest["embedder"], vectors, lexical, folder)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # JSON with a flipped bit
        raise files.damaged(folder, error) from error


@contextmanager
def passing(root: Path, kb_id: int) -> Iterator[Path]:
    """A new folder under a passing name; gone afterwards unless it was renamed. A lock beside it tells
    other processes that somebody still works on it."""
    parent = root / str(kb_id)
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"new-{uuid.uuid4().hex[:12]}"
    lock = folder.with_suffix(".lock")
    with ExitStack() as stack:
        stack.callback(lock.unlink, missing_ok=True)
        stack.enter_context(FileLock(lock))
        stack.callback(files.remove_folder, folder)
        folder.mkdir()
        yield folder


@contextmanager
def written(root: Path, index: KbIndex, known: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """The index's files in a new folder under a passing name, on the disk; gone afterwards unless it
    was renamed. ``known`` are checksums of files that are linked, beyond those of its generation."""
    with passing(root, index.kb_id) as folder:
        manifest = root / str(index.kb_id) / str(index.generation) / MANIFEST
        before = files.read_json_or_none(manifest) or {"files": {}}
        index.vectors.save(folder / "vectors")
        index.lexical.save(folder / "lexical")
        content = {
            "format": FORMAT,
            "kb": index.kb_id,
            "embedder": index.embedder,
            "dim": index.vectors.dim,
            "chunks": len(index),
            "files": checksums(folder, {**before["files"], **(known or {})}),
        }
        files.write_json(folder / MANIFEST, content)
        files.sync_folder(folder)
        yield folder


def sweep(parent: Path, current: int) -> list[int]:
    """Delete generations that nobody can be about to open any more, and what crashes left.

    Returns the numbers of the generations that are still there.
    """
    for stem in {path.stem for path in parent.glob("new-*")}:
        lock = parent / f"{stem}.lock"
        with suppress(Timeout), FileLock(lock, timeout=0):  # held: somebody writes it
            files.remove_folder(parent / stem)
            lock.unlink(missing_ok=True)
    for folder in list(parent.iterdir()):
        if folder.name.isdecimal() and int(folder.name) < current:
            superseded = parent / str(int(folder.name) + 1) / MANIFEST
            since = (superseded if superseded.exists() else folder).stat().st_mtime
            if time.time() - since > GRACE_SECONDS:
                files.remove_folder(folder)
    return [int(folder.name) for folder in parent.iterdir() if folder.name.isdecimal()]


def checksums(folder: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    """SHA-256 and size of each file by its path; linked ones that were there before are taken as known."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            size = path.stat().st_size
            entry = known.get(name)
            if entry and entry["bytes"] == size and path.stat().st_nlink > 1:
                found[name] = entry
            else:
                found[name] = {"bytes": size, "sha256": files.digest(path)}
    return found
