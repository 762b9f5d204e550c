"""Files that are zip archives inside: Office documents and e-books."""

from __future__ import annotations

import io
import zipfile

from ingest import limits
from ingest.errors import DamagedFile


def check_archive(data: bytes) -> None:
    """Refuses what is no zip file, and a zip bomb before anything expands it.

    Raises:
        SourceError: either of the two.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            expanded = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        raise DamagedFile("the file is damaged: it is no Office document or e-book (not a zip archive)") from None
    limits.check_size(expanded, "the file expands to")
