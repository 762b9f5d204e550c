"""Pictures of text: scans, photographs, screenshots (needs the extra ``ocr``)."""

from __future__ import annotations

import io
from typing import Any

from ingest import limits
from ingest.canonical import Draft
from ingest.errors import DamagedFile, EmptyFile, NoText
from ingest.formats import flow, ocr

MAX_PIXELS = 120_000_000
_FORMATS = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp", "TIFF": "tiff", "BMP": "bmp"}


def parse(data: bytes, name: str) -> Draft:
    """Raises `NoText` where nothing here reads pictures, `EmptyFile` for a picture without text."""
    if not ocr.available():
        raise NoText(f"this is a picture; {ocr.why_not()}")
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=list(_FORMATS)) as picture:
        draft = Draft(f"image/{_FORMATS[picture.format or 'PNG']}")
        frames = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
        limits.check_pages(frames)
        draft.paged = frames > 1
        read = [_frame(picture, frame) for frame in range(frames)]
    if not any(page.lines for page in read):
        raise EmptyFile("no text was found in the picture")
    note(draft, {i + 1: page for i, page in enumerate(read)})
    flow.append(draft, [page.lines for page in read])
    return draft


def note(draft: Draft, read: dict[int, ocr.Page]) -> None:
    """Writes into the fidelity report which pages were read by OCR, and how sure that was."""
    found = [page for page in read.values() if page.lines]
    if found:
        draft.fidelity["ocr_pages"] = sorted(number for number, page in read.items() if page.lines)
        draft.fidelity["ocr_confidence"] = round(sum(page.confidence for page in found) / len(found), 3)


def _frame(picture: Any, frame: int) -> ocr.Page:
    from PIL import ImageOps

    picture.seek(frame)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise DamagedFile(
            f"the picture has {width * height // 1_000_000} megapixels, more than the limit of "
            f"{MAX_PIXELS // 1_000_000}; save a smaller copy"
        )
    upright = ImageOps.exif_transpose(picture)
    if "A" in upright.mode or "transparency" in upright.info:  # transparent is white, as on paper
        from PIL import Image

        layered = upright.convert("RGBA")
        upright = Image.new("RGBA", layered.size, "white")
        upright.alpha_composite(layered)
    return ocr.read(upright)
