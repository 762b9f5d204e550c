"""ZIP and TAR files behind one interface; what in them is no plain file, or too large, is said of each entry."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ingest import limits
from ingest.errors import DamagedFile, EncryptedFile, MissingSource, SourceError
from ingest.formats.encoding import decode

_COMPRESSED: dict[str, Any] = {
    ".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tbz": bz2.open,
    ".tar.xz": lzma.open, ".txz": lzma.open,
}  # fmt: skip
SUFFIXES = (".zip", ".tar", *_COMPRESSED)
MAX_RATIO = 200
"""Expanded to packed size beyond which something is a bomb (from 10 MiB on)."""
_IN_MEMORY = 32 << 20
_LINK = "a link within an archive is not followed"
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Entry:
    """``key`` finds it again, ``path`` is its name for people, ``size`` in bytes; ``error``: unusable."""

    key: str
    path: str
    size: int
    error: str = ""


class ArchiveFile(ABC):
    """An open archive. ``packed`` is its own size in bytes; ``key in archive`` asks for a member."""

    entries: list[Entry]
    packed: int

    def __init__(self) -> None:
        self._by_key = {entry.key: entry for entry in self.entries}

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def path_of(self, key: str) -> str:
        return self._by_key[key].path

    def read(self, key: str) -> bytes:
        """A member's bytes; raises `SourceError`."""
        entry = self._by_key[key]
        if entry.error:
            raise DamagedFile(entry.error)
        try:
            return self._read(key)
        except RuntimeError:
            raise EncryptedFile("the archive is protected by a password; unpack it first") from None
        except (*_BROKEN, NotImplementedError, KeyError) as error:
            raise DamagedFile(f"the archive is damaged here ({error})") from None

    @abstractmethod
    def _read(self, key: str) -> bytes: ...

    @abstractmethod
    def close(self) -> None: ...


def opened(source: Path | bytes, name: str) -> ArchiveFile:
    """The archive of this file or of these bytes; ``name`` says of which kind.

    Raises:
        SourceError: it is damaged, no archive, or expands beyond the limits.
    """
    try:
        stream = _spooled(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise MissingSource(f"cannot be read: {error.strerror or error}") from None
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        if name.lower().endswith(".zip"):
            return _Zip(stream, size)
        suffix = next((suffix for suffix in _COMPRESSED if name.lower().endswith(suffix)), None)
        return _Tar(_expanded(_COMPRESSED[suffix](stream), size) if suffix else stream, size)
    except SourceError:
        stream.close()
        raise
    except _BROKEN as error:
        stream.close()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise MissingSource("no space is left for temporary files (TMPDIR) to expand the archive in") from None
        raise DamagedFile(f"the archive is damaged or no {PurePosixPath(name).suffix[1:].upper()} file") from None


class _Zip(ArchiveFile):
    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.packed = size
        self.stream = stream
        self.archive = zipfile.ZipFile(stream)
        infos = [info for info in self.archive.infolist() if not info.is_dir()]
        self.infos = {_key(info.filename): info for info in infos}
        self.entries = [Entry(_key(info.filename), _zip_name(info), info.file_size, _refused(info)) for info in infos]
        super().__init__()

    def _read(self, key: str) -> bytes:
        return self.archive.read(self.infos[key])

    def close(self) -> None:
        self.archive.close()
        self.stream.close()


class _Tar(ArchiveFile):
    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.packed = size
        self.stream = stream
        self.archive = tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape")  # noqa: SIM115 (closed with it)
        self.infos: dict[str, tarfile.TarInfo] = {}
        count, most = 0, limits.current().max_archive_files
        for info in self.archive:
            if not info.isdir():
                self.infos[_key(info.name)] = info  # the last of a name holds
                count += is_shown(info.name)
                if count > most:  # millions of headers are packed into little
                    raise limits.TooLarge("the archive holds at least", count, "files", "max_archive_files")
        self.entries = [Entry(key, _tar_name(key), info.size, _refused_tar(info)) for key, info in self.infos.items()]
        super().__init__()

    def _read(self, key: str) -> bytes:
        stream = self.archive.extractfile(self.infos[key])
        if stream is None:
            raise KeyError(key)
        with stream:
            data = stream.read()
        if len(data) < self.infos[key].size:
            raise EOFError("it ends too early")
        return data

    def close(self) -> None:
        self.archive.close()
        self.stream.close()


def is_shown(path: str) -> bool:
    """Whether a member is told of: hidden ones are not."""
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith((".", "~$")) and part != ".." for part in parts)
    return bool(parts) and not hidden and parts[0] != "__MACOSX"


def _expanded(packed: IO[bytes], size: int) -> IO[bytes]:
    """What a compressed stream expands to, so that members can be read in any order."""
    limit = limits.current().max_archive_mb << 20
    plain = _spooled(b"")
    total = 0
    with packed:
        while block := packed.read(1 << 20):
            total += len(block)
            if total > limit:
                raise limits.TooLarge("the archive expands to at least", total >> 20, "MiB", "max_archive_mb")
            if total > 100 << 20 and total > MAX_RATIO * size:
                raise DamagedFile(f"the archive expands to more than {MAX_RATIO} times its size; it looks like a bomb")
            plain.write(block)
    plain.seek(0)
    return plain


def _spooled(data: bytes) -> IO[bytes]:
    """A temporary file, in memory while it is small."""
    file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 (whoever asked closes it)
    file.write(data)
    return file


def _key(name: str) -> str:
    """The name without the ``./`` and ``//`` that a path of the operating system would lose."""
    return str(PurePosixPath(name))


def _zip_name(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if not info.flag_bits & 0x800:  # not marked as UTF-8: zipfile took it for cp437
        with suppress(UnicodeEncodeError, SourceError):
            name = decode(name.encode("cp437")).text
    return _key(name.replace("\\", "/"))


def _tar_name(key: str) -> str:
    try:
        key.encode("utf-8")
        return key
    except UnicodeEncodeError:
        raw = key.encode("utf-8", "surrogateescape")
        with suppress(SourceError):
            return decode(raw).text
        return raw.decode("utf-8", "replace")


def _refused(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "the archive is protected by a password; unpack it first"
    if stat.S_ISLNK(info.external_attr >> 16):
        return _LINK
    bomb = info.file_size > 10 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1)
    return _too_large(info.file_size, bomb)


def _refused_tar(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return _LINK
    if not info.isreg():
        return "no plain file (a device or a pipe)"
    return _too_large(info.size, False)


def _too_large(size: int, bomb: bool) -> str:
    limit = limits.current().max_document_mb
    if bomb or size > limit << 20:
        return (
            f"it expands beyond all measure: {size >> 20} MiB (limits: {limit} MiB, CHATGGLM_MAX_DOCUMENT_MB; "
            f"{MAX_RATIO} times its packed size)"
        )
    return ""
