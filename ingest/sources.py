"""Which files an ingestion takes, and what each is called.

A document's path is relative to what was ingested: a folder's files are named from that folder,
a single file by its own name. So the same folder gives the same documents wherever it lies.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ingest import archives
from ingest.errors import SourceError
from ingest.formats import supported, unsupported_reason
from ingest.limits import Limits, applied, current
from ingest.runners.local import ParsingProcess
from ingest.sidecars import described, is_sidecar

MAX_PATH = 1024
_NO_FILE = "a side-car without the file that it describes"
_NOWHERE = "a link to a file or folder that does not exist; bring that back, or remove the link"
_TOO_LONG = f"the path is longer than {MAX_PATH} characters"
_JUNK = {"Thumbs.db", "desktop.ini", "__MACOSX"}


@dataclass(frozen=True, slots=True)
class Source:
    """A file to ingest: where it lies, what its document is called, and where the walk began."""

    file: Path
    path: str
    member: str = ""
    """Key of the file within an archive (`ingest.archives`)."""
    root: str = ""
    """Opaque name of the folder that was ingested, so that a sync only removes its own documents."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A path that gives no source; ``status`` as in `SourceError`."""

    path: str
    status: str
    error: str


@dataclass(slots=True)
class Sources:
    """The outcome of a walk. ``complete`` lists the roots whose folders could all be read; what lies beneath one of
    the ``problems`` (a link that leads nowhere, say, or a damaged archive) is not known even so."""

    files: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)


def expand(
    paths: Iterable[Path | str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Limits | None = None,
) -> Sources:
    """Files and folders to sources, in sorted order.

    Hidden files (and Office lock files) inside folders are passed over in silence; files that no
    parser reads are listed as skipped, or as failed where they were named themselves. Symbolic
    links are followed, each folder once. Side-car files (`ingest.sidecars`) belong to their documents.
    ``include`` and ``exclude`` are shell patterns over the relative path, the file name, or a folder
    on the way to it, whatever the case; within archives they hold for the members. Archives are listed in a process of
    their own, within the limits of parsing.
    """
    with applied(limits or current()), closing(ParsingProcess(current())) as lister:
        return _expand(paths, include, exclude, lister)


def _expand(
    paths: Iterable[Path | str], include: Sequence[str], exclude: Sequence[str], lister: ParsingProcess
) -> Sources:
    found = Sources()
    for given in paths:
        path = Path(given)
        name = _name(path.name or path.resolve().name)
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            found.problems.append(Problem(_name(str(given)), "failed", "no such file or folder"))
            continue
        except OSError as error:
            found.problems.append(Problem(name, "failed", f"cannot be read: {error.strerror or error}"))
            continue
        if stat.S_ISDIR(mode):
            _walk(path, found, include, exclude, lister)
        elif not stat.S_ISREG(mode):
            found.problems.append(Problem(name, "failed", "not a regular file"))
        elif is_sidecar(path.name) and Path(described(str(path))).is_file():
            continue
        elif not _take(found, path.absolute(), name, "", include, exclude, lister):
            found.problems.append(Problem(name, "failed", unsupported_reason(path.name)))
    found.files = _unique(found)
    return found


def address(source: Source) -> str:
    """What `ingest.formats.read` reads: the file, or ``a.zip!/b.txt``."""
    return f"{source.file}{archives.SEPARATOR}{source.member}" if source.member else str(source.file)


def root_id(folder: Path) -> str:
    """Opaque and stable name of a folder (its own path never leaves the machine)."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]


def _walk(top: Path, found: Sources, include: Sequence[str], exclude: Sequence[str], lister: ParsingProcess) -> None:
    root = root_id(top)
    seen: set[tuple[int, int]] = set()
    readable = True
    stack: list[tuple[Path, str]] = [(top, "")]
    collected: list[tuple[str, Path]] = []
    while stack:
        folder, prefix = stack.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:  # a loop of links
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            readable = False
            found.problems.append(
                Problem(prefix or _name(top.name), "failed", f"cannot be read: {error.strerror or error}")
            )
            continue
        for entry in entries:
            if entry.name.startswith((".", "~$")) or entry.name in _JUNK:
                continue
            path = f"{prefix}/{_name(entry.name)}" if prefix else _name(entry.name)
            try:
                if entry.is_dir():
                    stack.append((Path(entry.path), path))
                elif entry.is_file():
                    collected.append((path, Path(entry.path)))
                elif entry.is_symlink():
                    found.problems.append(Problem(path, "failed", _NOWHERE))
            except OSError as error:
                found.problems.append(Problem(path, "failed", f"cannot be read: {error.strerror or error}"))
    present = {path for path, _ in collected}
    for path, file in sorted(collected):
        inside = archives.is_archive(path) and include  # its members may match
        if (include and not inside and not _matches(path, include)) or _matches(path, exclude):
            continue
        if is_sidecar(path):
            if described(path) not in present:
                found.problems.append(Problem(path, "skipped", _NO_FILE))
        elif not _take(found, file.absolute(), path, root, include, exclude, lister):
            found.problems.append(Problem(path, "skipped", unsupported_reason(file.name)))
    if readable:
        found.complete.append(root)


def _take(
    found: Sources,
    file: Path,
    path: str,
    root: str,
    include: Sequence[str],
    exclude: Sequence[str],
    lister: ParsingProcess,
) -> bool:
    """Adds a file, or the members of an archive; False where nothing reads it."""
    if not archives.is_archive(path):
        if len(path) > MAX_PATH:
            found.problems.append(Problem(path[:MAX_PATH], "failed", _TOO_LONG))
        elif supported(path):
            found.files.append(Source(file, path, root=root))
        else:
            return False
        return True
    try:
        inside = lister.members(file)
    except SourceError as error:
        found.problems.append(Problem(path[:MAX_PATH], error.status, str(error)))
        return True
    include = () if _matches(path, include) else include
    present = {member.path for member in inside}
    for member in inside:
        name = _name(f"{path}{archives.SEPARATOR}{member.path}")
        if (include and not _matches(name, include)) or _matches(name, exclude):
            continue
        if is_sidecar(member.path):
            if described(member.path) not in present:
                found.problems.append(Problem(name[:MAX_PATH], "skipped", _NO_FILE))
        elif not supported(member.path) and not archives.is_archive(member.path):
            found.problems.append(Problem(name[:MAX_PATH], "skipped", unsupported_reason(member.path)))
        elif member.error or len(name) > MAX_PATH:
            found.problems.append(Problem(name[:MAX_PATH], "failed", member.error or _TOO_LONG))
        else:
            found.files.append(Source(file, name, member.key, root))
    return True


def _unique(found: Sources) -> list[Source]:
    """One source per document: the same file named twice counts once, clashing names get their folder's."""
    by_path: dict[str, list[Source]] = defaultdict(list)
    for source in found.files:
        same = by_path[source.path]
        if not any(_same(source, other) for other in same):
            same.append(source)
    files: list[Source] = []
    for sources in by_path.values():
        if len(sources) == 1:
            files.append(sources[0])
            continue
        common = os.path.commonpath([source.file for source in sources])
        files.extend(replace(source, path=_prefix(source, Path(common)) + source.path) for source in sources)
    return files


def _prefix(source: Source, common: Path) -> str:
    """The folders between ``common`` and where the source's own path begins."""
    own = source.path.split(archives.SEPARATOR)[0].count("/")
    folders = source.file.relative_to(common).parts[: -1 - own]
    return _name("".join(f"{folder}/" for folder in folders))


def _same(a: Source, b: Source) -> bool:
    try:
        return a.member == b.member and (a.file == b.file or os.path.samefile(a.file, b.file))
    except OSError:
        return False


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits the path, its last part, or a folder that it lies in."""
    if not patterns:
        return False
    parts = path.lower().split("/")
    names = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)} | set(parts)
    wanted = [unicodedata.normalize("NFC", pattern).lower().removeprefix("**/").rstrip("/") for pattern in patterns]
    return any(fnmatchcase(name, pattern) for pattern in wanted for name in names)


def _name(name: str) -> str:
    """A name that can be stored: NFC, and names that are no UTF-8 decoded as what they are (GBK …)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        from ingest.errors import SourceError
        from ingest.formats.encoding import decode

        try:
            name = decode(os.fsencode(name)).text
        except SourceError:
            name = os.fsencode(name).decode("utf-8", errors="replace")
    return unicodedata.normalize("NFC", name).replace("\0", "")
