"""Pages of lines to blocks: running headers dropped, wrapped lines joined, table rows apart, headings found."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator

from ingest.canonical import PAGE_BREAK, Draft
from ingest.formats.layout import Line, in_reading_order
from ingest.structure import starts_element
from ingest.tables import looks_like_header

_HANGING = "，。、；：！？）”’》」』.,;:"
_PAGE_NUMBER = re.compile(
    r"[\s\-–—·.]*(?:第\s*)?\d{1,5}\s*(?:页|/)?[\s,，/]*(?:(?:共|of)?\s*\d{1,5}\s*页?)?[\s\-–—·.]*$",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9.,%/:+\-—~～–]*[A-Za-z0-9%][，。、；：！？）”’》」』]?|.[，。、；：！？）”’》」』]?")
_LABEL = re.compile("[^，。：；！？\\s]{1,8}：")


def append(draft: Draft, pages: list[list[Line]], title: str = "") -> None:
    """Appends the pages' blocks; ``title`` is what the file states, if anything. Consumes ``pages``."""
    if dropped := _drop_running(pages):
        draft.fidelity["running_lines_dropped"] = dropped
    for number, lines in enumerate(pages):
        pages[number] = in_reading_order(lines)
        _mark_rows(pages[number])
    _set_margins(pages)
    _write(draft, pages, title)
    if title and not any(kind == "heading" for kind, *_ in draft.blocks[:2]):
        draft.title = title


def _drop_running(pages: list[list[Line]]) -> int:
    """Removes headers, footers and page numbers: lines set apart from the text that recur on many pages."""
    filled = [lines for lines in pages if lines]
    if len(filled) < 3:
        return 0
    seen: Counter[tuple[bool, str]] = Counter()
    for lines in filled:
        seen.update({(at_top, _mask(line.text)) for at_top, line in _edges(lines)})
    needed = max(3, min(0.5 * len(filled), 10))  # a chapter's title heads the pages of one chapter only
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


def _mark_rows(lines: list[Line]) -> None:
    """Lines of several cells, one below the other, are rows of a table."""
    for parted, run in itertools.groupby(lines, key=_is_parted):
        table = list(run)
        if not parted or len(table) < 2:
            continue
        grid = [[cell.text for cell in line.cells] for line in table]
        named = len({len(row) for row in grid}) == 1 and looks_like_header(grid)
        for i, line in enumerate(table):
            line.header = table[0].text if named and i else ""


def _is_parted(line: Line) -> bool:
    """Of several cells, and not only a number with what it numbers (第一条　…)."""
    numbered = len(line.cells) == 2 and len(line.cells[0].text) <= 8 and starts_element(line.text)
    return len(line.cells) > 1 and not numbered


def _set_margins(pages: Iterable[list[Line]]) -> None:
    """Finds the margins of each line's column; on a page without columns, of the lines that overlap it.

    A column's right edge is that of the widest column which begins at the same place on any page,
    so that a page of short lines is not taken for a narrow column. Punctuation may hang over it.
    """
    found: list[tuple[list[Line], tuple[bool, int], float, float]] = []
    widest: dict[tuple[bool, int], float] = {}
    for lines in pages:
        for column in _stacks([line for line in lines if line.size]):
            left = float(Counter(round(line.left) for line in column).most_common(1)[0][0])
            right = max(line.right - (line.size if line.text[-1] in _HANGING else 0.0) for line in column)
            place = (column[0].column > 0, int(left) // 8)
            found.append((column, place, left, right))
            widest[place] = max(right, widest.get(place, 0.0))
    for column, place, left, right in found:
        for line in column:
            line.margin_left, line.margin_right = left, max(right, widest[place])


def _stacks(lines: list[Line]) -> list[list[Line]]:
    """Lines that stand above each other."""
    stacks: dict[tuple[int, int], list[Line]] = {}
    rights: list[float] = []
    for line in sorted(lines, key=lambda line: line.left):
        if line.column:
            i = 0
        elif (i := next((i for i, r in enumerate(rights) if line.left < r - line.size), len(rights))) < len(rights):
            rights[i] = max(rights[i], line.right)
        else:
            rights.append(line.right)
        stacks.setdefault((line.column, i), []).append(line)
    return list(stacks.values())


def _write(draft: Draft, pages: list[list[Line]], title: str) -> None:
    sizes: Counter[float] = Counter()  # how many characters have it; a line counts as 40 at most
    for lines in pages:
        for line in lines:
            if line.size and line.text:
                sizes[round(line.size, 1)] += min(len(line.text), 40)
    body = statistics.median(sizes.elements()) if sizes else 0.0
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

    for number, lines in enumerate(pages):
        page_start = number > 0
        for line in lines:
            lead = PAGE_BREAK if page_start else ""
            big = body and line.size > (1.35 if line.rough else 1.12) * body and len(line.text) <= 60
            repeats_title = first and title and "".join(line.text.split()) == "".join(title.split())
            heads = big or repeats_title
            if line.header is not None:
                flush()
                draft.blocks.append(("row", lead + line.text, 0, line.header))
            elif previous is not None and not heads and _runs_on(previous, line, page_start):
                if _is_cut_word(previous, line):
                    paragraph[-1] = paragraph[-1][:-1]
                    paragraph.append(lead + line.text)
                else:
                    paragraph.append(_glue(previous.text, line.text, lead))
            else:
                flush()
                if heads:
                    level = 1 + min((i for i, size in enumerate(largest) if line.size >= size - 0.2), default=2)
                    draft.heading(lead + line.text, 1 if repeats_title else level)
                else:
                    paragraph.append(lead + line.text)
            previous = None if heads or line.header is not None else line
            page_start = first = False
        if page_start:  # an empty page
            flush()
            draft.page_break()
    flush()


def _runs_on(above: Line, line: Line, new_page: bool) -> bool:
    """Whether ``line`` goes on with the paragraph of ``above``: what begins it did not fit there."""
    if starts_element(line.text):
        return False
    cut_word = bool(re.search(r"[A-Za-z]-$", above.text)) and line.text[0].islower()
    ended = above.text[-1] in "。！？：；.!?:;"
    if not above.size or not line.size:
        return _width(above.text) >= 60 and not ended
    em = above.size
    if above.margin_right - above.margin_left < 12 * em:
        return False
    word = _WORD.match(line.text)
    needed = _width(word[0]) / 2 * em if word else em
    if above.rough and not ended:  # what a picture shows is measured less exactly
        needed = max(needed, 0.2 * (above.margin_right - above.margin_left))
    if above.margin_right - above.right >= max(needed, 0.9 * em) + 0.1 * em and not cut_word:
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
    if last.isascii() and first.isascii() and last not in "-/":
        return f" {between}{below}"
    return between + below


def _is_cut_word(above: Line, line: Line) -> bool:
    """docu-¶ments: the hyphen stands at a full line's end only because the word did not fit."""
    full = above.margin_right - above.right < 3 * above.size
    return full and bool(re.search(r"(?<![\w-])[A-Za-z]+-$", above.text)) and line.text[0].islower()


def _width(text: str) -> int:
    return sum(1 if char.isascii() else 2 for char in text)
