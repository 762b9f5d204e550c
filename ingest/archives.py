"""Archives as folders: ``a.zip!/b.txt`` is the member ``b.txt`` of ``a.zip``; archives within archives likewise.

ZIP and TAR (also compressed by gzip, bzip2 or xz) look the same from here; `ingest.archive_files` tells
them apart. Names that are not marked as UTF-8 are decoded like any other text (GBK, mostly: that is what
Windows writes in China). Nothing is unpacked under a name: what has to be expanded to be read at all
(a compressed TAR, an archive within an archive) lies in temporary files that vanish with the process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ingest import limits
from ingest.archive_files import MAX_RATIO, SUFFIXES, ArchiveFile, Entry, is_shown, opened
from ingest.errors import DamagedFile, MissingSource, SourceError

SEPARATOR = "!/"
_KEPT_OPEN = 4


@dataclass(frozen=True, slots=True)
class Member:
    """``key`` finds it again in the archive, ``path`` is its name for people; ``error``: unusable."""

    key: str
    path: str
    error: str = ""


def is_archive(name: str) -> bool:
    """Whether a file of this name is looked into."""
    return name.lower().endswith(SUFFIXES)


def members(file: Path) -> list[Member]:
    """The files of an archive, sorted by path; without hidden ones.

    Raises:
        SourceError: no archive, or one beyond the limits.
    """
    with _LOCK:
        return sorted(_Walk().members(file, ()), key=lambda member: member.path)


def read(file: Path, key: str) -> bytes:
    """A member's bytes.

    Raises:
        SourceError: it is missing, damaged, encrypted, or too large.
    """
    with _LOCK:
        chain = _chain(file, key)
        return _archive(file, chain[:-1]).read(chain[-1])


def holds(file: Path, key: str) -> bool:
    """Whether a member of that key can be read."""
    with _LOCK:
        try:
            chain = _chain(file, key)
            return chain[-1] in _archive(file, chain[:-1])
        except SourceError:
            return False


def split(name: str) -> tuple[Path, str]:
    """File and member key of ``a.zip!/b.txt``; the key is empty for a plain file."""
    at = name.find(SEPARATOR)
    while at > 0:
        if Path(name[:at]).is_file():
            return Path(name[:at]), name[at + len(SEPARATOR) :]
        at = name.find(SEPARATOR, at + 1)
    return Path(name), ""


class _Walk:
    """Lists an archive and those within it, all within one budget."""

    def __init__(self) -> None:
        self.count = self.expanded = 0

    def members(self, file: Path, chain: tuple[str, ...]) -> Iterator[Member]:
        archive = _archive(file, chain)
        entries = [entry for entry in archive.entries if is_shown(entry.path)]
        self._charge(archive, entries)
        seen: set[str] = set()
        for entry in entries:
            path = entry.path
            parts = PurePosixPath(path).parts
            if ".." in parts or path.startswith("/") or ":" in parts[0]:
                yield Member(entry.key, path, "its name leads out of the archive")
            elif path in seen:
                yield Member(entry.key, path, "the archive holds another file of this name")
            elif is_archive(path) and not entry.error:
                yield from self._nested(file, (*chain, entry.key), path)
            else:
                yield Member(entry.key, path, entry.error)
            seen.add(path)

    def _nested(self, file: Path, chain: tuple[str, ...], path: str) -> Iterator[Member]:
        key = chain[-1]
        if len(chain) >= limits.current().max_archive_depth:
            error = f"archives are opened {len(chain)} deep; unpack it first, or raise CHATGGLM_MAX_ARCHIVE_DEPTH"
            yield Member(key, path, error)
            return
        try:
            for inner in self.members(file, chain):
                yield replace(inner, key=f"{key}{SEPARATOR}{inner.key}", path=f"{path}{SEPARATOR}{inner.path}")
        except SourceError as error:
            yield Member(key, path, str(error))

    def _charge(self, archive: ArchiveFile, entries: list[Entry]) -> None:
        """Refuses an archive that goes beyond what all of them together may hold."""
        self.count += len(entries)
        own = sum(entry.size for entry in entries if _is_read(entry.path))
        self.expanded += own
        most = limits.current().max_archive_files
        if self.count > most:
            raise limits.TooLarge("the archive holds", self.count, "files", "max_archive_files")
        if own > 100 << 20 and own > MAX_RATIO * archive.packed:  # members that share their bytes, say
            raise DamagedFile(f"the archive expands to more than {MAX_RATIO} times its size; it looks like a bomb")
        if self.expanded > limits.current().max_archive_mb << 20:
            raise limits.TooLarge("the archive expands to", self.expanded >> 20, "MiB", "max_archive_mb")


def _is_read(path: str) -> bool:
    from ingest.formats import supported

    return supported(path) or is_archive(path)


# -- archives that are open: listing one and reading its members opens it once ---------------------

_LOCK = threading.RLock()
_open: OrderedDict[tuple[str, int, int, tuple[str, ...]], ArchiveFile] = OrderedDict()


def _archive(file: Path, chain: tuple[str, ...]) -> ArchiveFile:
    """The archive itself, or the one within it that the keys of ``chain`` lead to."""
    try:
        status = file.stat()
    except FileNotFoundError:
        raise MissingSource("no such file") from None
    except OSError as error:
        raise MissingSource(f"cannot be read: {error.strerror or error}") from None
    key = (str(file), status.st_mtime_ns, status.st_size, chain)
    if key in _open:
        _open.move_to_end(key)
        return _open[key]
    if chain:
        outer = _archive(file, chain[:-1])
        found = opened(outer.read(chain[-1]), outer.path_of(chain[-1]))
    else:
        found = opened(file, file.name)
    _open[key] = found
    while len(_open) > _KEPT_OPEN:
        _open.popitem(last=False)[1].close()
    return found


def _chain(file: Path, key: str) -> tuple[str, ...]:
    """The keys of a member and of the archives around it; ``!/`` may also be part of a name."""
    chain: tuple[str, ...] = ()
    at = -1
    while True:
        archive = _archive(file, chain)
        if key in archive:
            return (*chain, key)
        at = key.find(SEPARATOR)
        while at > 0 and key[:at] not in archive:
            at = key.find(SEPARATOR, at + 1)
        if at <= 0:
            raise MissingSource("no such file in the archive")
        chain, key = (*chain, key[:at]), key[at + len(SEPARATOR) :]
