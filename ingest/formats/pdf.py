"""PDF by pdfium: pages of lines with coordinates; pages that are nothing but pictures go to OCR.

pdfium gives the characters that Chromium-made PDFs mean (other readers return Kangxi radicals) and
keeps every line break; `ingest.formats.flow` makes paragraphs of the lines.
"""

from __future__ import annotations

import re
from typing import Any

from gglm.text import is_han
from ingest import limits
from ingest.canonical import Draft, clean, one_line
from ingest.errors import DamagedFile, EncryptedFile, NoText
from ingest.formats import flow, fonts, ocr
from ingest.formats.image import note
from ingest.formats.layout import WIDE, Line

_BREAK = re.compile("(\r\n|\r|\n|[\ufffe\x02])")
_HYPHENS = "\ufffe\x02"
"""pdfium's marks for a hyphen that only the line's end called for, in the place of both."""
_UNREADABLE = re.compile("[\ue000-\uf8ff\ufffd]")
_STAMP = 40
"""Characters, at most, of a page that is a picture with a stamp (a page number, a scanner's mark)."""
NO_FONT = (
    "the PDF uses a Chinese font that is neither in the file nor on this machine; "
    "install one (Debian: fonts-noto-cjk) and ingest it again"
)
_GENERIC_TITLE = re.compile(
    r"\(anonymous\)|untitled|无标题|microsoft word.*|.*\.(?:docx?|pptx?|wps|indd|qxd)|幻灯片\s*\d+|scan\w*",
    re.IGNORECASE,
)


def parse(data: bytes, name: str) -> Draft:
    """Raises `EncryptedFile`, `DamagedFile`, or `NoText` for a scan that nothing here can read."""
    document = opened(data)
    try:
        return _read(document)
    except _LacksFont:
        document.close()
        fonts.stand_in()
        document = opened(data)
        return _read(document)
    finally:
        document.close()


class _LacksFont(Exception):
    """pdfium would lose characters, unless it gets a font (`ingest.formats.fonts`)."""


def opened(data: bytes) -> Any:
    """pdfium's document; raises `EncryptedFile` or `DamagedFile`."""
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise EncryptedFile("the PDF is protected by a password; save a copy without it") from None
        raise DamagedFile("the file is damaged or not a real PDF") from None


def _read(document: Any) -> Draft:
    count = len(document)
    limits.check_pages(count)
    draft = Draft("application/pdf", paged=True)
    pages: list[list[Line]] = []
    pictures: list[int] = []
    for index in range(count):
        try:
            lines, is_picture, lacks_font = read_page(document, index)
            if lacks_font and fonts.wanted():
                raise _LacksFont
        except _LacksFont:
            raise
        except Exception:  # one broken page must not cost the others
            lines, is_picture, lacks_font = [], False, False
            draft.fidelity.setdefault("damaged_pages", []).append(index + 1)
        pages.append(lines)
        if lacks_font:
            draft.fidelity.setdefault("pages_without_font", []).append(index + 1)
        elif is_picture:
            pictures.append(index)
    if pictures and ocr.available():
        _recognise(document, pictures, pages, draft)
    draft.fidelity["pages"] = count
    if empty := [i + 1 for i, lines in enumerate(pages) if not lines]:
        draft.fidelity["pages_without_text"] = empty
    if not any(pages) and draft.fidelity.get("pages_without_font"):
        raise NoText(NO_FONT)
    _refuse_unreadable(pages)
    title = one_line(_repaired(str((document.get_metadata_dict() or {}).get("Title") or "")))
    flow.append(draft, pages, "" if _GENERIC_TITLE.fullmatch(title) else title)
    return draft


def _refuse_unreadable(pages: list[list[Line]]) -> None:
    todo = f"; {ocr.why_not()}" if not ocr.available() else ", and OCR found none either"
    if not any(pages):
        raise NoText(f"the PDF holds no text, only pictures (a scan?){todo}" if pages else "the PDF has no pages")
    if _unreadable([line for lines in pages for line in lines]):
        raise NoText(f"the PDF's fonts do not say which characters they show{todo}")


def _unreadable(lines: list[Line]) -> bool:
    """Most characters are of private use or none: the font lacks a map to Unicode."""
    letters = sum(len(line.text) for line in lines)
    return 2 * sum(len(_UNREADABLE.findall(line.text)) for line in lines) > letters


def _repaired(title: str) -> str:
    """Many Chinese programs write GBK where Latin-1 is meant: ÖÐÎÄ is 中文."""
    try:
        fixed = title.encode("latin-1").decode("gb18030")
    except UnicodeError:
        return title
    return fixed if any(map(is_han, fixed)) else title


# -- the text layer --------------------------------------------------------------------------------


def read_page(document: Any, index: int) -> tuple[list[Line], bool, bool]:
    """Lines of a page's text layer, whether the text that people see there is a picture, or lacks its font."""
    page = document[index]
    textpage = page.get_textpage()
    try:
        text = textpage.get_text_range()
        exact = len(text) == textpage.count_chars()
        lines: list[Line] = []
        position = 0
        pieces = _BREAK.split(text)
        for raw, separator in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
            stripped = raw.strip()
            if stripped:
                start = position + len(raw) - len(raw.lstrip())
                line = _line(textpage, stripped, start if exact else None)
                if separator and separator in _HYPHENS:
                    line.text += "-"
                lines.append(line)
            position += len(raw) + len(separator)
        lines = [line for line in lines if line.text]
        is_picture = _unreadable(lines) or _is_stamped_picture(page, lines) if lines else _shows_anything(page)
        return lines, is_picture, _lacks_font(page, textpage, text if exact else "")
    finally:
        textpage.close()
        page.close()


def _lacks_font(page: Any, textpage: Any, text: str) -> bool:
    """Whether the page's font is neither in the file nor on this machine: pdfium then loses single characters."""
    import pypdfium2.raw as pdfium

    han = next((i for i, char in enumerate(text) if is_han(char)), None)
    if han is not None:
        _, bottom, _, top = textpage.get_charbox(han)
        _, lowest, _, highest = textpage.get_charbox(han, loose=True)
        if top - bottom > 0.01 * (highest - lowest):  # there is an outline to show
            return False
    elif text:
        return False
    return any(  # a font without outlines that is in the file lies over a scan, and is meant so
        pdfium.FPDFFont_GetIsEmbedded(pdfium.FPDFTextObj_GetFont(shown.raw)) == 0
        for shown in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_TEXT], max_depth=2)
    )


def _line(textpage: Any, text: str, start: int | None) -> Line:
    """A line with its coordinates (none without ``start``) and the cells that wide gaps part."""
    if start is None:
        return Line(clean(text))
    cells: list[Line] = []
    begin = 0
    for gap in re.finditer(r"[ \t]+", text):
        _, bottom, right, top = textpage.get_charbox(start + gap.start() - 1, loose=True)
        left = textpage.get_charbox(start + gap.end(), loose=True)[0]
        if left - right >= WIDE * (top - bottom) > 0:
            cells.append(_measured(textpage, text[begin : gap.start()], start + begin))
            begin = gap.end()
    whole = _measured(textpage, text, start)
    if cells:
        whole.cells = (*cells, _measured(textpage, text[begin:], start + begin))
    return whole


def _measured(textpage: Any, text: str, start: int) -> Line:
    left, bottom, _, top = textpage.get_charbox(start, loose=True)
    _, bottom2, right, top2 = textpage.get_charbox(start + len(text) - 1, loose=True)
    return Line(clean(text), left, right, min(bottom, bottom2), max(top, top2))


def _shows_anything(page: Any) -> bool:
    return any(True for _ in page.get_objects(max_depth=1))


def _is_stamped_picture(page: Any, lines: list[Line]) -> bool:
    """A picture covers most of the page, and the text layer holds next to nothing."""
    import pypdfium2.raw as pdfium

    if sum(len(line.text) for line in lines) > _STAMP:
        return False
    width, height = page.get_size()
    for picture in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = picture.get_bounds()
        if (right - left) * (top - bottom) > 0.5 * width * height:
            return True
    return False


# -- pages that are pictures -----------------------------------------------------------------------


def _recognise(document: Any, pictures: list[int], pages: list[list[Line]], draft: Draft) -> None:
    """Puts what OCR reads in the place of what the text layer of these pages holds, if it is more."""
    read: dict[int, ocr.Page] = {}
    for index in pictures:
        found = recognise_page(document, index)
        known = 0 if _unreadable(pages[index]) else sum(len(line.text) for line in pages[index])
        if sum(len(line.text) for line in found.lines) > known:
            pages[index] = found.lines
            read[index + 1] = found
    note(draft, read)


def recognise_page(document: Any, index: int) -> ocr.Page:
    """What OCR reads on a page, in points."""
    page = document[index]
    try:
        scale = ocr.LONGEST / max(page.get_size())
        bitmap = page.render(scale=scale)
        try:
            found = ocr.read(bitmap.to_pil())
        finally:
            bitmap.close()
    except Exception:  # as with the text layer: one broken page must not cost the others
        return ocr.Page([])
    finally:
        page.close()
    for line in found.lines:
        for part in (line, *line.cells):
            part.left, part.right = part.left / scale, part.right / scale
            part.bottom, part.top = part.bottom / scale, part.top / scale
    return found
