"""Files to parsed documents: one module a format, each with ``parse(data, name) -> Draft``.

``name`` ends in the file's extension and decides the parser; the content must agree.
"""

from __future__ import annotations

import errno
import importlib
from pathlib import Path, PurePosixPath

from ingest import limits
from ingest.canonical import Draft, canonicalise
from ingest.errors import (
    BusySource,
    DamagedFile,
    EmptyFile,
    EncryptedFile,
    MissingSource,
    SourceError,
    UnsupportedFormat,
)
from ingest.formats import ocr
from ingest.types import Parsed

PARSERS = {
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".epub": "epub",
    ".eml": "eml",
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"), "image"),
}
"""Extension → module of this package."""

_BUSY = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET, errno.ETXTBSY, errno.ENOLCK,
}  # fmt: skip

_HINTS = {
    ".doc": "old Word files are not supported; save it as .docx",
    ".wps": "WPS files are not supported; save it as .docx",
    ".xls": "old Excel files are not supported; save it as .xlsx",
    ".ppt": "old PowerPoint files are not supported; save it as .pptx",
    ".rtf": "RTF is not supported; save it as .docx",
    ".odt": "OpenDocument is not supported; save it as .docx",
    ".rar": "RAR archives are not supported; pack it again as .zip",
    ".7z": "7-Zip archives are not supported; pack it again as .zip",
    ".gz": "single compressed files are not supported; unpack it first (.tar.gz and .tgz are read)",
}


def supported(name: str) -> bool:
    """Whether a file of this name has a parser that can work here: pictures need OCR."""
    module = PARSERS.get(PurePosixPath(name).suffix.lower())
    return module is not None and (module != "image" or ocr.available())


def unsupported_reason(name: str) -> str:
    """Why a file of this name is not read, and what to do."""
    suffix = PurePosixPath(name).suffix.lower()
    if PARSERS.get(suffix) == "image":
        return f"this is a picture; {ocr.why_not()}"
    hint = _HINTS.get(
        suffix,
        f"{suffix} files are not supported" if suffix else "a file without an extension is not supported",
    )
    known = ", ".join(sorted(suffix for suffix in PARSERS if supported(f"x{suffix}")))
    return f"{hint} (supported: {known}, and .zip and .tar with these)"


def parse(source: Path | bytes, name: str | None = None) -> Parsed:
    """Canonical text, structure and fidelity of one file.

    Args:
        source: the bytes, or a path to read them from.
        name: file name; needed for bytes, taken from the path otherwise.

    Raises:
        SourceError: the file gives no document; the message says why and what to do.
    """
    if isinstance(source, Path):
        name = name or source.name
        source = read(source)
    if not name:
        raise ValueError("bytes need a name")
    return canonicalise(draft_of(source, name), PurePosixPath(name).stem)


def draft_of(data: bytes, name: str) -> Draft:
    """What the parser for this name makes of the bytes; raises as `parse`."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in PARSERS:
        raise UnsupportedFormat(unsupported_reason(name))
    if not data.strip(b"\0 \t\r\n"):
        raise EmptyFile("the file is empty")
    if suffix != ".pdf" and PARSERS[suffix] != "text":
        _refuse_compound(data)
    module = importlib.import_module(f"ingest.formats.{PARSERS[suffix]}")
    try:
        draft: Draft = module.parse(data, name)
    except (SourceError, MemoryError):
        raise
    except RecursionError:
        raise DamagedFile("the file is nested too deeply to be read") from None
    except Exception as error:  # a library's own error on a damaged file
        raise DamagedFile(
            f"the file is damaged or not a real {suffix} file ({type(error).__name__}: {error})"[:300]
        ) from error
    return draft


def read(path: Path) -> bytes:
    """The bytes of a file, or of a member of an archive (``a.zip!/b.txt``).

    Raises:
        SourceError: it is not there, or may not or cannot be read.
    """
    if "!" in str(path) and not path.exists():
        from ingest import archives

        file, member = archives.split(str(path))
        if member:
            return archives.read(file, member)
    try:
        limits.check_size(path.stat().st_size)
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingSource("no such file") from None
    except OSError as error:
        kind = BusySource if error.errno in _BUSY else MissingSource
        raise kind(f"cannot be read: {error.strerror or error}") from None


def _refuse_compound(data: bytes) -> None:
    """Old and password-protected Office files are OLE compound files, whatever their extension."""
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise EncryptedFile("the file is protected by a password; save a copy without it")
        raise UnsupportedFormat("this is an old Office file; save it in the present format (.docx)")
