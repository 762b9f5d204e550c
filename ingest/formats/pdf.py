"""PDF by pdfium: pages, lines joined to paragraphs, running headers and footers dropped.

pdfium gives the characters that Chromium-made PDFs mean (other readers return Kangxi radicals); it
keeps every line break, so lines that end at the right margin are joined here, without a space
between Chinese characters.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gglm.text import is_han
from ingest.canonical import PAGE_BREAK, Draft, clean, one_line
from ingest.errors import DamagedFile, EncryptedFile, NoText
from ingest.structure import starts_element

_HYPHENS = ("\ufffe", "\x02", "\xad")
_HANGING = "，。、；：！？）”’》」』.,;:"
MAX_PAGES = 20_000
_PAGE_NUMBER = re.compile(
    r"[\s\-–—·.]*(?:第\s*)?\d{1,5}\s*(?:页|/)?[\s,，/]*(?:(?:共|of)?\s*\d{1,5}\s*页?)?[\s\-–—·.]*$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9.,%/:+\-—~～–]*[A-Za-z0-9%][，。、；：！？）”’》」』]?|.[，。、；：！？）”’》」』]?")
_LABEL = re.compile("[^，。：；！？\\s]{1,8}：")
_GENERIC_TITLE = re.compile(
    r"\(anonymous\)|untitled|无标题|microsoft word.*|.*\.(?:docx?|pptx?|wps|indd|qxd)|幻灯片\s*\d+|scan\w*",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Line:
    """A line of a page; coordinates in points from the page's lower left, 0 where unknown."""

    text: str
    left: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    top: float = 0.0
    margin_left: float = 0.0
    margin_right: float = 0.0
    """Edges of the column that the line stands in."""

    @property
    def size(self) -> float:
        return self.top - self.bottom


def parse(data: bytes, name: str) -> Draft:
    """Raises `EncryptedFile`, `DamagedFile`, or `NoText` for a scan."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise EncryptedFile("the PDF is protected by a password; save a copy without it") from None
        raise DamagedFile("the file is damaged or not a real PDF") from None
    try:
        return _read(document)
    finally:
        document.close()


def _read(document: Any) -> Draft:
    count = len(document)
    if count > MAX_PAGES:
        raise DamagedFile(f"the PDF has {count} pages, more than the limit of {MAX_PAGES}; split it")
    draft = Draft("application/pdf", paged=True)
    pages: list[list[Line]] = []
    for index in range(count):
        try:
            pages.append(_lines(document, index))
        except Exception:  # one broken page must not cost the others
            pages.append([])
            draft.fidelity.setdefault("damaged_pages", []).append(index + 1)
    empty = [i + 1 for i, lines in enumerate(pages) if not lines]
    draft.fidelity["pages"] = count
    if empty:
        draft.fidelity["pages_without_text"] = empty
    if len(empty) == count:
        raise NoText(
            "the PDF holds no text, only pictures (a scan?); run OCR over it first" if count else "the PDF has no pages"
        )
    dropped = _drop_running(pages)
    if dropped:
        draft.fidelity["running_lines_dropped"] = dropped
    title = one_line(_repaired(str((document.get_metadata_dict() or {}).get("Title") or "")))
    stated = title if title and not _GENERIC_TITLE.fullmatch(title) else ""
    _append(draft, pages, stated)
    letters = sum(len(line.text) for lines in pages for line in lines)
    private = sum(len(re.findall("[\ue000-\uf8ff\ufffd]", line.text)) for lines in pages for line in lines)
    if private * 2 > letters:
        raise NoText("the PDF's fonts do not say which characters they show; run OCR over it first")
    return draft


def _repaired(title: str) -> str:
    """Many Chinese programs write GBK where Latin-1 is meant: ÖÐÎÄ is 中文."""
    try:
        fixed = title.encode("latin-1").decode("gb18030")
    except UnicodeError:
        return title
    return fixed if any(map(is_han, fixed)) else title


def _lines(document: Any, index: int) -> list[Line]:
    page = document[index]
    textpage = page.get_textpage()
    try:
        text = textpage.get_text_range()
        exact = len(text) == textpage.count_chars()
        lines: list[Line] = []
        position = 0
        for raw in re.split("(\r\n|\r|\n)", text):
            stripped = raw.strip()
            if stripped.endswith(_HYPHENS):  # pdfium's mark for a hyphen that only the line's end called for
                stripped = stripped[:-1] + "-"
            if stripped and raw not in ("\r\n", "\r", "\n"):
                start = position + len(raw) - len(raw.lstrip())
                lines.append(_measured(textpage, clean(stripped), start, start + len(stripped) - 1, exact))
            position += len(raw)
        return [line for line in lines if line.text]
    finally:
        textpage.close()
        page.close()


def _measured(textpage: Any, text: str, first: int, last: int, exact: bool) -> Line:
    if not exact:
        return Line(text)
    left, bottom, _, top = textpage.get_charbox(first, loose=True)
    _, bottom2, right, top2 = textpage.get_charbox(last, loose=True)
    return Line(text, left, right, min(bottom, bottom2), max(top, top2))


def _drop_running(pages: list[list[Line]]) -> int:
    """Removes headers, footers and page numbers: lines set apart from the text that recur on most pages."""
    filled = [lines for lines in pages if lines]
    if len(filled) < 3:
        return 0
    seen: Counter[tuple[bool, str]] = Counter()
    for lines in filled:
        seen.update({(at_top, _mask(line.text)) for at_top, line in _edges(lines)})
    needed = max(3, 0.5 * len(filled))
    dropped = 0
    for lines in filled:
        for at_top, line in list(_edges(lines)):
            if seen[at_top, _mask(line.text)] >= needed and line in lines:
                lines.remove(line)
                dropped += 1
    return dropped


def _edges(lines: list[Line]) -> Iterator[tuple[bool, Line]]:
    """Up to two lines at the top and at the bottom that a gap sets apart from the rest."""
    ordered = sorted(lines, key=lambda line: -line.top)
    if len(ordered) < 3 or not ordered[0].size:
        for line in (lines[:1] + lines[-1:]) if len(lines) > 1 else []:
            if _PAGE_NUMBER.match(line.text):
                yield line is lines[0], line
        return
    gaps = [a.bottom - b.top for a, b in itertools.pairwise(ordered)]
    usual = max(statistics.median(gaps), 0.0)
    for at_top, run in ((True, ordered), (False, ordered[::-1])):
        for depth in (1, 2):
            if len(run) <= depth:
                break
            above, below = (run[depth - 1], run[depth]) if at_top else (run[depth], run[depth - 1])
            if above.bottom - below.top > usual + 0.5 * above.size or _PAGE_NUMBER.match(run[0].text):
                yield from ((at_top, line) for line in run[:depth])
                break


def _mask(text: str) -> str:
    return re.sub(r"\d+|[一二三四五六七八九十百]+(?=页)", "#", "".join(text.split()))


def _append(draft: Draft, pages: list[list[Line]], title: str) -> None:
    sizes = [
        round(line.size, 1) for lines in pages for line in lines for _ in range(min(len(line.text), 40)) if line.size
    ]
    body = statistics.median(sizes) if sizes else 0.0
    largest = sorted({size for size in sizes if size > 1.12 * body}, reverse=True)[:4]
    paragraph: list[str] = []
    previous: Line | None = None
    first = True

    def flush() -> None:
        nonlocal previous
        if paragraph:
            draft.text("".join(paragraph))
            paragraph.clear()
        previous = None

    _set_margins(pages)
    for number, lines in enumerate(pages):
        page_start = number > 0
        for line in lines:
            big = body and line.size > 1.12 * body and len(line.text) <= 60
            repeats_title = first and title and "".join(line.text.split()) == "".join(title.split())
            if previous is not None and not big and not repeats_title and _runs_on(previous, line, page_start):
                paragraph.append(_glue(previous.text, line.text, PAGE_BREAK if page_start else ""))
            else:
                flush()
                lead = PAGE_BREAK if page_start else ""
                if big or repeats_title:
                    level = 1 + min((i for i, size in enumerate(largest) if line.size >= size - 0.2), default=2)
                    draft.heading(lead + line.text, 1 if repeats_title else level)
                else:
                    paragraph.append(lead + line.text)
            previous = None if big or repeats_title else line
            page_start = first = False
        if page_start:  # an empty page
            flush()
            draft.page_break()
    flush()
    if title and not any(kind == "heading" for kind, *_ in draft.blocks[:2]):
        draft.title = title


def _set_margins(pages: list[list[Line]]) -> None:
    """Finds the columns of each page: lines whose extents overlap stand in the same one.

    A column's right edge is that of the widest column which begins at the same place on any page,
    so that a page of short lines is not taken for a narrow column. Punctuation may hang over it.
    """
    found: list[tuple[list[Line], float, float]] = []
    widest: dict[int, float] = {}
    for lines in pages:
        columns: list[list[Line]] = []
        rights: list[float] = []
        for line in sorted((line for line in lines if line.size), key=lambda line: line.left):
            i = next((i for i, right in enumerate(rights) if line.left < right - line.size), None)
            if i is None:
                columns.append([line])
                rights.append(line.right)
            else:
                columns[i].append(line)
                rights[i] = max(rights[i], line.right)
        for column in columns:
            left = float(Counter(round(line.left) for line in column).most_common(1)[0][0])
            right = max(line.right - (line.size if line.text[-1] in _HANGING else 0.0) for line in column)
            found.append((column, left, right))
            widest[int(left) // 8] = max(right, widest.get(int(left) // 8, 0.0))
    for column, left, right in found:
        for line in column:
            line.margin_left, line.margin_right = left, max(right, widest[int(left) // 8])


def _runs_on(above: Line, line: Line, new_page: bool) -> bool:
    """Whether ``line`` goes on with the paragraph of ``above``: what begins it did not fit there."""
    if starts_element(line.text):
        return False
    ended = above.text[-1] in "。！？：；.!?:;"
    if not above.size or not line.size:
        return _width(above.text) >= 60 and not ended
    em = above.size
    if above.margin_right - above.margin_left < 12 * em:
        return False
    word = _WORD.match(line.text)
    needed = _width(word[0]) / 2 * em if word else em
    if above.margin_right - above.right >= max(needed, 0.9 * em) + 0.1 * em:
        return False
    if abs(line.size - above.size) > 0.25 * above.size:
        return False
    if new_page or line.margin_left > above.margin_right - em:  # over to the next page or column
        return not ended
    if ended and (line.left > line.margin_left + 1.2 * line.size or _LABEL.match(line.text)):  # a new paragraph
        return False
    return -1.5 * line.size < above.bottom - line.top < 1.5 * line.size


def _glue(above: str, below: str, between: str) -> str:
    last, first = above[-1], below[0]
    if last.isascii() and first.isascii() and not (is_han(last) or is_han(first)):
        if last == "-" and first.islower():
            return between + below
        return f" {between}{below}"
    return between + below


def _width(text: str) -> int:
    return sum(1 if char.isascii() else 2 for char in text)
