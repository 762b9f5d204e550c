"""Markdown (CommonMark with tables), with front matter for title, tags and other metadata."""

from __future__ import annotations

import re
from typing import Any

from ingest.canonical import Draft
from ingest.formats.encoding import decode
from ingest.formats.html import walk_body
from ingest.metadata import front_matter

_DEFINITION = re.compile(r"\[[^\[\]]+\]:")
_ADDRESS = re.compile(
    r"\[[^^][^\]]*\]:[ \t]*(?:$|<|(?:[!-~]+|#\S+|[^\s，。；：！？]*(?:/[^\s，。；：！？]*|\.[A-Za-z0-9]{1,5}))(?:\s|$))"
)
"""A definition that leads somewhere: [name]: https://… or [name]: 图/甲.png."""


def parse(data: bytes, name: str) -> Draft:
    """Blocks without their marks; a paragraph's own line breaks are kept, for they often mean something."""
    from markdown_it import MarkdownIt

    found = decode(data)
    draft = Draft("text/markdown", fidelity=found.fidelity())
    said, text = front_matter(found.text.replace("\r\n", "\n").replace("\r", "\n"))
    draft.describe(said)
    reader = MarkdownIt("commonmark").enable("table")
    reader.block.ruler.before("reference", "note", _note)
    _blocks(reader.parse(text), draft)
    return draft


def _note(state: Any, start: int, end: int, silent: bool) -> bool:
    """A footnote ([^1]: …) or remark ([注]: …) is text, a paragraph of its own; for CommonMark it is a link's
    definition, which shows nowhere."""
    from markdown_it.rules_block.paragraph import paragraph

    def line(number: int) -> str:
        return str(state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]])

    if state.is_code_block(start) or not _DEFINITION.match(line(start)) or _ADDRESS.match(line(start)):
        return False
    last = state.lineMax
    state.lineMax = next((i for i in range(start + 1, last) if _DEFINITION.match(line(i))), last)
    found = paragraph(state, start, end, silent)
    state.lineMax = last
    return found


def _blocks(tokens: list[Any], draft: Draft) -> None:
    from selectolax.lexbor import LexborHTMLParser

    level = 0  # of the heading that is open
    markers: list[str] = []  # one an open list: "-" or the next number
    lead = ""  # mark of the list item whose first paragraph comes
    rows: list[list[str]] | None = None
    for token in tokens:
        match token.type:
            case "heading_open":
                level = int(token.tag[1])
            case "heading_close":
                level = 0
            case "bullet_list_open":
                markers.append("-")
            case "ordered_list_open":
                markers.append(str(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                markers.pop()
            case "list_item_open":
                lead = "- " if markers[-1] == "-" else f"{markers[-1]}. "
                if markers[-1] != "-":
                    markers[-1] = str(int(markers[-1]) + 1)
            case "table_open":
                rows = []
            case "tr_open":
                assert rows is not None
                rows.append([])
            case "table_close":
                assert rows is not None
                draft.table(rows, has_header=True)
                rows = None
            case "fence" | "code_block":
                draft.code(token.content)
            case "html_block":
                lead = ""
                walk_body(LexborHTMLParser(token.content), draft)
            case "inline":
                text = _inline(token)
                if rows is not None:
                    rows[-1].append(text)
                elif level:
                    draft.heading(text, level)
                else:
                    draft.text(lead + text, "item" if lead else "text")
                    lead = ""


def _inline(token: Any) -> str:
    parts: list[str] = []
    for child in token.children or ():
        match child.type:
            case "text" | "code_inline":
                parts.append(child.content)
            case "softbreak" | "hardbreak":
                parts.append("\n")
            case "image":
                parts.append(child.content)  # the alternative text
            case "html_inline" if re.match(r"<br\b", child.content, re.IGNORECASE):
                parts.append("\n")
    return "".join(parts)
