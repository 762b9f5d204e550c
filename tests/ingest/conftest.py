"""Builders of small files in every format, and the sample files beside the checkout."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def samples() -> Path:
    """Sample documents with truth.txt; they lie beside the checkout."""
    folder = SHARED / "samples"
    if not folder.is_dir():
        pytest.skip("needs the sample documents in ../shared/samples")
    return folder


@pytest.fixture(scope="session")
def example_documents() -> Path:
    """The documents of e2e_dev; they lie beside the checkout."""
    folder = SHARED / "data" / "e2e_dev" / "docs"
    if not folder.is_dir():
        pytest.skip("needs the documents in ../shared/data/e2e_dev")
    return folder


@pytest.fixture
def make_docx() -> Callable[..., bytes]:
    """Calls ``build(document)`` on an empty python-docx document and returns the file."""
    import docx

    def make(build: Callable[..., object]) -> bytes:
        document = docx.Document()
        build(document)
        buffer = io.BytesIO()
        document.save(buffer)
        return buffer.getvalue()

    return make


@pytest.fixture
def make_pdf() -> Callable[..., bytes]:
    """Pages of lines to a PDF with a Chinese font; a line is text or (text, size, x, y)."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def make(pages: list[list[str | tuple[str, float, float, float]]], encrypt: str = "", title: str = "") -> bytes:
        buffer = io.BytesIO()
        canvas = Canvas(buffer, encrypt=encrypt or None)
        if title:
            canvas.setTitle(title)
        for lines in pages:
            y = 760.0
            for line in lines:
                text, size, x, at = line if isinstance(line, tuple) else (line, 12.0, 72.0, y)
                canvas.setFont("STSong-Light", size)
                canvas.drawString(x, at, text)
                if not isinstance(line, tuple):
                    y -= 18
            canvas.showPage()
        canvas.save()
        return buffer.getvalue()

    return make
