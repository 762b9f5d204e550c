"""A stand-in for the Chinese fonts that a PDF does not embed and this machine does not have.

Without any font pdfium takes a character that stands alone, and the second of two equal lines, for
nothing at all. A font of 780 bytes that shows the same box for every character (`stand_in/make.py`)
is enough for it to read everything. It serves only where there is none: pages would show boxes.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

_SYSTEM = ("/usr/share/fonts", "/usr/share/X11/fonts/Type1", "/usr/share/X11/fonts/TTF", "/usr/local/share/fonts")
"""Where pdfium looks on Linux; named again, because folders of one's own replace them."""
_FOLDER = Path(__file__).with_name("stand_in")
_given: list[Any] = []
"""What pdfium keeps pointers to."""


def wanted() -> bool:
    """Whether the stand-in could still help: this process has not taken it yet."""
    return not _given


def stand_in() -> None:
    """Starts pdfium again with the stand-in among its fonts. No document may be open."""
    import pypdfium2  # noqa: F401 (its import starts pdfium the first time)
    import pypdfium2.raw as pdfium

    names = [ctypes.create_string_buffer(str(folder).encode()) for folder in (*_SYSTEM, _FOLDER)]
    paths = (ctypes.POINTER(ctypes.c_char) * (len(names) + 1))()  # ends with a null
    for i, name in enumerate(names):
        paths[i] = ctypes.cast(name, ctypes.POINTER(ctypes.c_char))
    config = pdfium.FPDF_LIBRARY_CONFIG(version=2, m_pUserFontPaths=paths, m_pIsolate=None, m_v8EmbedderSlot=0)
    _given.extend((names, paths, config))
    pdfium.FPDF_DestroyLibrary()
    pdfium.FPDF_InitLibraryWithConfig(config)
