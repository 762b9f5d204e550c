"""ZIP archives as folders: ``a.zip!/b.txt`` is the member ``b.txt`` of ``a.zip``.

Names that are not marked as UTF-8 are decoded like any other text (GBK, mostly: that is what
Windows writes in China). Nothing is ever unpacked to the disk.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ingest.errors import DamagedFile, EncryptedFile, MissingSource, SourceError
from ingest.formats.encoding import decode

SEPARATOR = "!/"
MAX_MEMBERS = 50_000
MAX_MEMBER = 1 << 30
MAX_EXPANDED = 8 << 30
MAX_RATIO = 200
"""Expanded to packed size of a member beyond which it is a bomb (from 10 MiB on)."""


@dataclass(frozen=True, slots=True)
class Member:
    """``key`` finds it again in the archive, ``path`` is its name for people; ``error``: unusable."""

    key: str
    path: str
    error: str = ""


def is_archive(name: str) -> bool:
    """Whether a file of this name is looked into."""
    return name.lower().endswith(".zip")


def members(file: Path) -> list[Member]:
    """The files of an archive, sorted by path; without hidden ones.

    Raises:
        SourceError: no archive, or one beyond the limits.
    """
    with _opened(file) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > MAX_MEMBERS:
            raise DamagedFile(f"the archive holds {len(infos)} files, more than the limit of {MAX_MEMBERS}; split it")
        if (size := sum(info.file_size for info in infos)) > MAX_EXPANDED:
            raise DamagedFile(
                f"the archive expands to {size >> 20} MiB, more than the limit of {MAX_EXPANDED >> 20}; split it"
            )
        return sorted(_members(infos), key=lambda member: member.path)


def read(file: Path, key: str) -> bytes:
    """A member's bytes.

    Raises:
        SourceError: it is missing, damaged, encrypted, or too large.
    """
    with _opened(file) as archive:
        try:
            info = archive.getinfo(key)
            if error := _refused(info):
                raise DamagedFile(error)
            with archive.open(info) as stream:
                data = stream.read(MAX_MEMBER + 1)
        except KeyError:
            raise MissingSource("no such file in the archive") from None
        except RuntimeError:
            raise EncryptedFile("the archive is protected by a password; unpack it first") from None
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, OSError, EOFError) as error:
            raise DamagedFile(f"the archive is damaged here ({error})") from None
    if len(data) > MAX_MEMBER:
        raise DamagedFile(_too_large())
    return data


def split(name: str) -> tuple[Path, str]:
    """File and member key of ``a.zip!/b.txt``; the key is empty for a plain file."""
    at = name.find(SEPARATOR)
    while at > 0:
        if Path(name[:at]).is_file():
            return Path(name[:at]), name[at + len(SEPARATOR) :]
        at = name.find(SEPARATOR, at + 1)
    return Path(name), ""


def _opened(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except FileNotFoundError:
        raise MissingSource("no such file") from None
    except (zipfile.BadZipFile, ValueError, EOFError):
        raise DamagedFile("the archive is damaged or no ZIP file") from None
    except OSError as error:
        raise MissingSource(f"cannot be read: {error.strerror or error}") from None


def _members(infos: list[zipfile.ZipInfo]) -> Iterator[Member]:
    seen: set[str] = set()
    for info in infos:
        path = _name(info)
        parts = PurePosixPath(path).parts
        if not parts or any(part.startswith((".", "~$")) and part != ".." for part in parts) or parts[0] == "__MACOSX":
            continue
        if ".." in parts or path.startswith("/") or ":" in parts[0]:
            yield Member(info.filename, path, "its name leads out of the archive")
        elif is_archive(path):
            yield Member(info.filename, path, "an archive within an archive is not opened; unpack it first")
        elif path in seen:
            yield Member(info.filename, path, "the archive holds another file of this name")
        else:
            yield Member(info.filename, path, _refused(info))
        seen.add(path)


def _name(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if not info.flag_bits & 0x800:  # not marked as UTF-8: zipfile took it for cp437
        with suppress(UnicodeEncodeError, SourceError):
            name = decode(name.encode("cp437")).text
    return name.replace("\\", "/")


def _refused(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "the archive is protected by a password; unpack it first"
    if info.file_size > MAX_MEMBER or (
        info.file_size > 10 << 20 and info.file_size > MAX_RATIO * max(info.compress_size, 1)
    ):
        return _too_large()
    return ""


def _too_large() -> str:
    return f"it expands beyond all measure (limits: {MAX_MEMBER >> 20} MiB, {MAX_RATIO} times its packed size)"
