"""Word documents: paragraphs, headings and tables in document order.

The body is walked here, not through `Document.paragraphs`, which leaves out content controls,
inserted (tracked) text and automatic numbers such as 第三条.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

from ingest.canonical import Draft
from ingest.formats.container import check_archive

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_HEADING = re.compile(r"(?:heading|标题)\s*([1-9])$", re.IGNORECASE)
_GENERIC_TITLES = {"word document", "microsoft word 文档", "文档", "untitled", "document1", "文档1"}


def parse(data: bytes, name: str) -> Draft:
    """Raises `DamagedFile` on a broken archive; python-docx's own errors are wrapped by the caller."""
    import docx

    check_archive(data)
    document = docx.Document(io.BytesIO(data))
    draft = Draft(MEDIA_TYPE)
    styles = {style.style_id: (style.name or "") for style in document.styles}
    levels = {style.style_id: _outline_level(style.element) for style in document.styles}
    from ingest.formats.docx_numbering import Numbering

    reader = _Reader(draft, styles, levels, Numbering(document))
    reader.walk(document.element.body)
    _footnotes(document, draft)
    title = (document.core_properties.title or "").strip()
    if (
        not draft.title
        and title.lower() not in _GENERIC_TITLES
        and not any(b[0] == "heading" for b in draft.blocks[:3])
    ):
        draft.title = title
    return draft


def _footnotes(document: Any, draft: Draft) -> None:
    """Footnotes and endnotes, behind the text."""
    from docx.oxml import parse_xml

    for relation in document.part.rels.values():
        if relation.is_external or not relation.reltype.endswith(("/footnotes", "/endnotes")):
            continue
        for note in parse_xml(relation.target_part.blob):
            number = note.get(f"{_W}id", "")
            text = " ".join(filter(None, (_text(p).strip() for p in note.iter(f"{_W}p"))))
            if text and note.get(f"{_W}type") is None:
                draft.text(f"注{number}：{text}")


class _Reader:
    def __init__(self, draft: Draft, styles: dict[str, str], levels: dict[str, int | None], numbering: Any) -> None:
        self.draft = draft
        self.styles = styles
        self.levels = levels
        self.numbering = numbering

    def walk(self, body: Any) -> None:
        for child in body:
            if child.tag == f"{_W}p":
                self.paragraph(child)
            elif child.tag == f"{_W}tbl":
                self.table(child)
            elif child.tag == f"{_W}sdt":  # a content control: a form field, a cover page, a table of contents
                content = child.find(f"{_W}sdtContent")
                if content is not None:
                    self.walk(content)
            elif child.tag in (f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
                self.walk(child)

    def paragraph(self, element: Any) -> None:
        text = _text(element)
        style_id = element.find(f"{_W}pPr/{_W}pStyle")
        style_key = style_id.get(f"{_W}val") if style_id is not None else ""
        style = self.styles.get(style_key, "")
        if re.match(r"(?:toc|目录)\s*\d", style, re.IGNORECASE):
            return
        label = self.numbering.label(element, style_key)
        if not text.strip():
            return
        text = label + text
        level = self._level(element, style_key, style)
        if style in ("Title", "标题") and not self.draft.title:
            self.draft.title = text
            self.draft.heading(text, 1)
        elif level and len(text.strip()) <= 120:
            self.draft.heading(text, level)
        elif label or style.startswith("List"):
            bullet = "" if label else "- "
            kind = "text" if label.startswith("第") else "item"
            self.draft.text(bullet + text, kind)  # type: ignore[arg-type]
        else:
            self.draft.text(text)

    def _level(self, element: Any, style_key: str, style: str) -> int | None:
        if heading := _HEADING.match(style):
            return int(heading[1])
        own = element.find(f"{_W}pPr/{_W}outlineLvl")
        if own is not None:
            return _outline_value(own)
        return self.levels.get(style_key)

    def table(self, element: Any) -> None:
        rows: list[list[str]] = []
        header = False
        for row in element.iter(f"{_W}tr"):
            if _ancestor_table(row) is not element:
                continue
            if not rows:
                header = row.find(f"{_W}trPr/{_W}tblHeader") is not None
            rows.append(_cells(row, rows[-1] if rows else []))
        if len(rows) == 1 and len(rows[0]) == 1:  # a box around text, not a table
            for line in rows[0][0].split("\n"):
                self.draft.text(line)
            return
        self.draft.table(rows, has_header=True if header else None)


def _cells(row: Any, above: list[str]) -> list[str]:
    """Texts of a row; a cell that is merged downwards stands in each of its rows."""
    cells: list[str] = []
    for cell in row.iter(f"{_W}tc"):
        if next(cell.iterancestors(f"{_W}tr")) is not row:
            continue
        merge = cell.find(f"{_W}tcPr/{_W}vMerge")
        if merge is not None and merge.get(f"{_W}val", "continue") == "continue":
            cells.append(above[len(cells)] if len(cells) < len(above) else "")
        else:
            cells.append("\n".join(filter(None, (_text(p).strip() for p in cell.iter(f"{_W}p")))))
        span = cell.find(f"{_W}tcPr/{_W}gridSpan")
        cells.extend([""] * (int(span.get(f"{_W}val", "1")) - 1 if span is not None else 0))
    return cells


def _ancestor_table(row: Any) -> Any:
    return next(row.iterancestors(f"{_W}tbl"))


def _text(paragraph: Any) -> str:
    return "".join(_runs(paragraph))


def _runs(element: Any) -> Iterator[str]:
    for child in element:
        tag = child.tag
        if tag in (f"{_W}t", f"{_M}t"):
            yield child.text or ""
        elif tag == f"{_W}tab":
            yield "\t"
        elif tag in (f"{_W}br", f"{_W}cr"):
            yield "\f" if child.get(f"{_W}type") == "page" else "\n"
        elif tag == f"{_W}noBreakHyphen":
            yield "-"
        elif tag in (f"{_W}del", f"{_W}pPr", f"{_W}instrText", f"{_MC}Fallback", f"{_W}moveFrom"):
            continue
        elif tag == f"{_W}p":  # a paragraph within a text box
            yield "\n"
            yield from _runs(child)
            yield "\n"
        else:
            yield from _runs(child)


def _outline_level(style: Any) -> int | None:
    value = style.find(f"{_W}pPr/{_W}outlineLvl")
    return None if value is None else _outline_value(value)


def _outline_value(element: Any) -> int | None:
    level = int(element.get(f"{_W}val", "9"))
    return level + 1 if level < 9 else None
