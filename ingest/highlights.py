"""Where a stretch of a PDF's canonical text stands on its pages, and pictures of those pages.

Nothing is stored for it: the characters that pdfium reads on a page now are matched with that page's
canonical text, so a new version of either reader cannot make the boxes wrong (docs/decisions/011).
pdfium runs in a process of its own, with limits: a bad file costs one request, not the server.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ingest.canonical import clean
from ingest.errors import DamagedFile

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in points from the upper left corner of the page as it is shown."""

TIMEOUT_S = 60.0
MEMORY_MB = 2048
MAX_PIXELS = 6_000_000
AT_ONCE = 2
_SEEDS = (16, 6, 2)
_COLOUR = (255, 226, 89)
_ROOT = Path(__file__).resolve().parents[1]
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ingest.highlights import main; main()"
_slots = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a page: its number from 1, its canonical text, and which characters of that are meant."""

    page: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PageBoxes:
    """A page's size in points and a box for each line of what is meant; none where it is not found."""

    page: int
    width: float
    height: float
    boxes: tuple[Box, ...]


def stretches(text: str, pages: Sequence[int], start: int, end: int) -> list[Stretch]:
    """The parts of ``text[start:end]`` page by page; ``pages`` holds the start offset of each page."""
    found = []
    for number, (first, last) in enumerate(zip(pages, [*pages[1:], len(text)], strict=True), start=1):
        if start < last and end > first:
            found.append(Stretch(number, text[first:last], max(start, first) - first, min(end, last) - first))
    return found


def boxes_of(data: bytes, parts: Sequence[Stretch]) -> list[PageBoxes]:
    """Boxes of each part, computed in a process of its own.

    Raises:
        DamagedFile: the PDF cannot be read, or not in the time and memory allowed.
    """
    answer, _ = _ask(data, {"parts": [asdict(part) for part in parts]})
    return [
        PageBoxes(p["page"], p["width"], p["height"], tuple((b[0], b[1], b[2], b[3]) for b in p["boxes"]))
        for p in answer["pages"]
    ]


def picture_of(data: bytes, part: Stretch, scale: float = 1.5) -> bytes:
    """A PNG of the page with the part marked, ``scale`` pixels a point (less for very large pages).

    Raises:
        DamagedFile: as `boxes_of`.
    """
    return _ask(data, {"parts": [asdict(part)], "scale": scale})[1]


def ink(text: str) -> tuple[str, list[int]]:
    """The characters that leave ink, in a form in which both readings agree, and where each comes from."""
    chars: list[str] = []
    where: list[int] = []
    for i, char in enumerate(text):
        form = _form(char)
        chars.append(form)
        where += [i] * len(form)
    return "".join(chars), where


@lru_cache(maxsize=1 << 15)
def _form(char: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", clean(char)) if unicodedata.category(c)[0] in "LNPS")


def align(text: str, raw: str) -> list[int]:
    """For each character of ``text`` its place in ``raw``, −1 where there is none; each place is used once.

    Long common runs are taken first, then shorter ones, each near the end of the one before it: pages
    in columns, whose order the two readings need not share, are found too.
    """
    places = [-1] * len(text)
    used = bytearray(len(raw))
    for size in _SEEDS:
        seeds: dict[str, list[int]] = defaultdict(list)
        for j in range(len(raw) - size + 1):
            if not any(used[j : j + size]):
                seeds[raw[j : j + size]].append(j)
        cursor = i = 0
        while i + size <= len(text):
            if places[i] >= 0:
                cursor = places[i] + 1
                i += 1
                continue
            free = [j for j in seeds.get(text[i : i + size], ()) if not any(used[j : j + size])]
            if not free or any(place >= 0 for place in places[i : i + size]):
                i += 1
                continue
            cursor = min(free, key=lambda j: (j < cursor, abs(j - cursor)))
            while i < len(text) and cursor < len(raw) and places[i] < 0 and not used[cursor] and text[i] == raw[cursor]:
                places[i] = cursor
                used[cursor] = 1
                i += 1
                cursor += 1
    return places


def main() -> None:
    """The process: a line of JSON and the PDF in; a line of JSON, and the picture if asked for, out."""
    from ingest.runners.worker import limit_process

    limit_process(MEMORY_MB)
    asked = json.loads(sys.stdin.buffer.readline())
    data = sys.stdin.buffer.read()
    picture = b""
    try:
        pages, picture = _work(data, [Stretch(**part) for part in asked["parts"]], asked.get("scale"))
        answer: dict[str, Any] = {"pages": [asdict(page) for page in pages]}
    except Exception as error:  # pdfium's, Pillow's, MemoryError: the reason is for the log
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + picture)


def _ask(data: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    command = [sys.executable, "-P", "-c", _BOOT.format(root=str(_ROOT))]
    try:
        with _slots:
            done = subprocess.run(
                command, input=json.dumps(request).encode() + b"\n" + data, capture_output=True, timeout=TIMEOUT_S
            )
    except subprocess.TimeoutExpired:
        raise DamagedFile("the page could not be drawn in time") from None
    line, _, picture = done.stdout.partition(b"\n")
    answer = json.loads(line) if line else {"error": "the PDF reader crashed"}
    if "error" in answer:
        raise DamagedFile(f"the page cannot be read: {answer['error']}")
    return answer, picture


def _work(data: bytes, parts: list[Stretch], scale: float | None) -> tuple[list[PageBoxes], bytes]:
    import pypdfium2

    from ingest.formats import fonts, pdf

    document = pypdfium2.PdfDocument(data)
    meant = [part.page - 1 for part in parts if 1 <= part.page <= len(document)]
    if any(pdf.read_page(document, index)[2] for index in meant):  # as when it was parsed
        document.close()
        fonts.stand_in()
        document = pypdfium2.PdfDocument(data)
    found: list[PageBoxes] = []
    picture = b""
    for part in parts:
        if not 1 <= part.page <= len(document):
            continue
        page = document[part.page - 1]
        width, height = page.get_size()
        found.append(PageBoxes(part.page, round(width, 2), round(height, 2), tuple(_boxes(document, page, part))))
        if scale is not None:
            picture = _picture(page, found[-1], scale)
    return found, picture


def _boxes(document: Any, page: Any, part: Stretch) -> list[Box]:
    textpage = page.get_textpage()
    raw, indices = _characters(textpage)
    shown, sources = ink(raw)
    wanted, origins = ink(part.text)
    recognised: list[Box] = []
    if 2 * len(shown) < len(wanted):  # its text is not in the file: it came from OCR
        raw, recognised = _recognised(document, part.page)
        shown, sources = ink(raw)
    boxes: list[Box] = []
    for place, origin in zip(align(wanted, shown), origins, strict=True):
        if place >= 0 and part.start <= origin < part.end:
            at = sources[place]
            box = recognised[at] if recognised else _displayed(page, textpage.get_charbox(indices[at], loose=True))
            if boxes and _same_line(boxes[-1], box):
                last = boxes[-1]
                box = (min(last[0], box[0]), min(last[1], box[1]), max(last[2], box[2]), max(last[3], box[3]))
                boxes.pop()
            boxes.append(box)
    return [(round(b[0], 2), round(b[1], 2), round(b[2], 2), round(b[3], 2)) for b in boxes]


def _characters(textpage: Any) -> tuple[str, list[int]]:
    """The page's characters and pdfium's index of each; pairs of surrogates become the one they stand for."""
    from pypdfium2.raw import FPDFText_GetUnicode

    codes = [FPDFText_GetUnicode(textpage, i) for i in range(textpage.count_chars())]
    chars: list[str] = []
    indices: list[int] = []
    i = 0
    while i < len(codes):
        code, first = codes[i], i
        if 0xD800 <= code < 0xDC00 and i + 1 < len(codes) and 0xDC00 <= codes[i + 1] < 0xE000:
            code = 0x10000 + ((code - 0xD800) << 10) + (codes[i + 1] - 0xDC00)
            i += 1
        chars.append(chr(code) if code < 0x110000 else "\ufffd")
        indices.append(first)
        i += 1
    return "".join(chars), indices


def _recognised(document: Any, number: int) -> tuple[str, list[Box]]:
    """What OCR reads on the page, each character a share of its line."""
    from ingest.formats import ocr, pdf

    chars: list[str] = []
    boxes: list[Box] = []
    if not ocr.available():
        return "", boxes
    height = document[number - 1].get_height()
    for line in pdf.recognise_page(document, number - 1).lines:
        for part in line.cells or (line,):
            widths = [1 if char.isascii() else 2 for char in part.text]
            unit = (part.right - part.left) / max(sum(widths), 1)
            left = part.left
            for char, width in zip(part.text, widths, strict=True):
                chars.append(char)
                boxes.append((left, height - part.top, left + width * unit, height - part.bottom))
                left += width * unit
    return "".join(chars), boxes


def _displayed(page: Any, box: tuple[float, float, float, float]) -> Box:
    """A box in the page's own space as it is shown: cropped, rotated, from the upper left corner."""
    from ctypes import byref, c_int

    from pypdfium2.raw import FPDF_PageToDevice

    fine = 100  # pdfium rounds to whole pixels
    width, height = page.get_size()
    corners = []
    for x, y in (box[:2], box[2:]):
        left, top = c_int(), c_int()
        FPDF_PageToDevice(page, 0, 0, round(width * fine), round(height * fine), 0, x, y, byref(left), byref(top))
        corners.append((left.value / fine, top.value / fine))
    (x0, y0), (x1, y1) = corners
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _same_line(last: Box, box: Box) -> bool:
    height = min(last[3] - last[1], box[3] - box[1])
    overlap = min(last[3], box[3]) - max(last[1], box[1])
    return overlap > 0.5 * height and -height < box[0] - last[2] < 3 * max(height, 1)


def _picture(page: Any, found: PageBoxes, scale: float) -> bytes:
    from PIL import Image, ImageChops, ImageDraw

    area = found.width * found.height
    scale = min(scale, (MAX_PIXELS / area) ** 0.5) if area else scale
    shown = page.render(scale=scale).to_pil().convert("RGB")
    marks = Image.new("RGB", shown.size, "white")
    draw = ImageDraw.Draw(marks)
    for box in found.boxes:
        draw.rectangle([edge * scale for edge in box], fill=_COLOUR)
    file = io.BytesIO()
    ImageChops.multiply(shown, marks).save(file, "PNG")
    return file.getvalue()
