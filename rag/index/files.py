"""Files that survive a crash: written whole, fsynced, named by ASCII, never pickled."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.errors import IndexUnavailable
from rag.ports import IdArray


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """A new file, on the disk when this returns."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """A new ``.npy`` file, on the disk when this returns."""
    with open(path, "xb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    """A new JSON file, on the disk when this returns."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8"))


def read_array(path: Path) -> npt.NDArray[Any]:
    """A ``.npy`` file, memory-mapped.

    Raises:
        IndexUnavailable: it is missing or damaged.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # plain views slice faster
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, error) from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        IndexUnavailable: it is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def read_json_or_none(path: Path) -> Any:
    """A JSON file; None where it is missing or damaged."""
    try:
        return read_json(path)
    except IndexUnavailable:
        return None


def damaged(path: Path, error: object) -> IndexUnavailable:
    """The error for an index file that cannot be used."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return IndexUnavailable(
        f"The index file {'/'.join(path.parts[-4:])} cannot be read ({reason}). "
        "`chatgglm kb rebuild` makes the index again from the database."
    )


def link(folder: Path | None, target: Path) -> bool:
    """Give the immutable file of that name in ``folder`` a second name, without copying where the file
    system can. False: there is no such file (any more), it must be written."""
    if folder is None or not (folder / target.name).is_file():
        return False
    try:
        os.link(folder / target.name, target)
    except OSError:
        shutil.copyfile(folder / target.name, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
    return True


def sync_folder(folder: Path) -> None:
    """Makes names in a folder durable (Windows needs no such thing and cannot)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Deletes a folder; what another process holds open (Windows) is left for the next time."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    total = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def member(ids: IdArray, among: IdArray) -> npt.NDArray[np.bool_]:
    """For each of ``ids`` whether it is one of ``among``, which must be ascending."""
    if not len(among):
        return np.zeros(len(ids), dtype=bool)
    at = np.searchsorted(among, ids)
    at[at == len(among)] = 0
    return among[at] == ids


def id_array(ids: Sequence[int] | IdArray) -> IdArray:
    """Chunk ids, ascending and each once."""
    given = np.asarray(ids, dtype=np.int64)
    return given if np.all(given[1:] > given[:-1]) else np.unique(given)
