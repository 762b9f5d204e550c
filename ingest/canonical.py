"""From a parser's draft to the canonical text that every offset points into.

A parser appends blocks to a `Draft` in reading order; a form feed inside a block's text marks a
page break. `canonicalise` cleans each block, joins them by single line feeds and records where
blocks and pages begin. The canonical text holds no control characters but line feeds, no lone
surrogates, no Kangxi radicals standing for characters (they break matching), and is in NFC.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from ingest.errors import EmptyFile
from ingest.metadata import Labels
from ingest.structure import classify
from ingest.types import Block, BlockKind, Parsed

PAGE_BREAK = "\f"
MAX_TITLE = 200

# CJK radicals supplement (U+2E80–2EFF) that PDF writers put where a character belongs; NFKC maps
# only two of them. Kangxi radicals (U+2F00–2FD5) all have an NFKC mapping.
_RADICALS = dict(
    zip(
        "⺀⺁⺂⺃⺄⺅⺆⺇⺈⺉⺊⺋⺌⺍⺎⺏⺐⺑⺒⺓⺔⺕⺖⺗⺘⺙⺛⺜⺝⺞⺟⺠⺡⺢⺣⺤⺥⺦⺧⺨⺩⺪⺫⺬⺭⺮⺯⺰⺱⺲⺳⺴⺵⺶⺷⺸⺹⺺⺻⺼⺽⺾⺿⻀⻁⻂⻃⻄⻅⻆⻇⻈⻉⻊⻋⻌⻍⻎⻏⻐⻑⻒⻓⻔⻕⻖⻗⻘⻙⻚⻛⻜⻝⻞⻟⻠⻡⻢⻣⻤⻥⻦⻧⻨⻩⻪⻫⻬⻭⻮⻯⻰⻱⻲⻳",
        "冫厂乛乚乙亻冂几刀刂卜㔾小小尢尢尣尣巳幺彑彐忄心扌攵旡日月歹母民氵水灬爪爫丬牛犭王疋目示礻竹糸纟罓罒网罓网羊羊羊耂肀聿肉臼艹艹艹虎衤覀西见角角讠贝足车辶辶辶阝钅長镸长门阜阝雨青韦页风飞食𩙿飠饣首马骨鬼鱼鸟卤麦黄黾斉齐歯齿竜龙龜亀龟",
        strict=True,
    )
)


def _translation() -> dict[int, str | None]:
    table: dict[int, str | None] = dict.fromkeys((*range(32), *range(127, 160)))
    table |= {ord(c): "\n" for c in "\n\r\v\x85\u2028\u2029"}
    table |= {ord("\t"): " ", ord(PAGE_BREAK): PAGE_BREAK, 0xA0: " ", 0xAD: None, 0xFEFF: None, 0x200B: None}
    table |= dict.fromkeys((8288, 65534, 65535, *range(8234, 8239), *range(8294, 8298)))
    table |= dict.fromkeys(range(55296, 57344), "�")
    table |= {c: unicodedata.normalize("NFKC", chr(c)) for c in range(0x2F00, 0x2FD6)}
    table |= {ord(radical): char for radical, char in _RADICALS.items()}
    return table


_TABLE = _translation()
_RULE = re.compile(r"[|\s:=+-]+")
_SPACES = re.compile("[ \u3000]{2,}|\u3000")
_EDGES = re.compile("[ \u3000]*\n[ \u3000\n]*")


def clean(text: str, keep_spacing: bool = False) -> str:
    """Canonical characters: mixed newlines to LF, controls and zero-width marks gone, NFC.

    Unless ``keep_spacing`` (code), runs of spaces become one and blank lines vanish.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").translate(_TABLE))
    if keep_spacing:
        return text.strip("\n")
    return _EDGES.sub("\n", _SPACES.sub(" ", text)).strip(" \n\u3000")


def one_line(text: str, limit: int = MAX_TITLE) -> str:
    """Cleaned, white space collapsed, at most ``limit`` characters."""
    line = " ".join(clean(text).replace(PAGE_BREAK, "").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(slots=True)
class Draft:
    """What a parser collects, in reading order."""

    media_type: str
    title: str = ""
    """As the file states it (front matter, ``<title>``, core properties); may be empty."""
    paged: bool = False
    fidelity: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    blocks: list[tuple[BlockKind, str, int, str]] = field(default_factory=list)

    def describe(self, said: Labels) -> None:
        """Takes what the document says of itself."""
        self.title = said.title or self.title
        self.tags.extend(tag for tag in said.tags if tag not in self.tags)
        self.meta |= said.meta

    def heading(self, text: str, level: int) -> None:
        self.blocks.append(("heading", text, min(max(level, 1), 6), ""))

    def text(self, text: str, kind: BlockKind = "text") -> None:
        self.blocks.append((kind, text, 0, ""))

    def code(self, text: str) -> None:
        self.blocks.append(("code", text, 0, ""))

    def table(self, rows: list[list[str]], has_header: bool | None = None) -> None:
        """Rows of cells; ``has_header`` None: judge by the cells."""
        from ingest.tables import render

        header, lines = render(rows, has_header)
        self.blocks.extend(("row", line, 0, header if i else "") for i, line in enumerate(lines))

    def page_break(self) -> None:
        self.blocks.append(("text", PAGE_BREAK, 0, ""))


def canonicalise(draft: Draft, stem: str) -> Parsed:
    """Clean, join and measure a draft.

    The title is the one the file states, else its first heading where that opens the document,
    else ``stem`` (the file name without extension).

    Raises:
        EmptyFile: nothing but white space.
    """
    parts: list[str] = []
    blocks: list[Block] = []
    pages = [0] if draft.paged else []
    position = 0
    for kind, text, level, header in _typed(draft):
        pieces = text.split(PAGE_BREAK)
        offset = position + (1 if parts else 0)
        for piece in pieces[:-1]:
            offset += len(piece)
            if draft.paged or position or piece:
                pages = pages or [0]
                pages.append(offset)
        text = "".join(pieces)
        if not text.strip():
            continue
        if parts:
            parts.append("\n")
            position += 1
        start = position + len(text) - len(text.lstrip())
        parts.append(text)
        position += len(text)
        end = position - (len(text) - len(text.rstrip()))
        blocks.append(Block(kind, start, end, level, one_line(header) if header else ""))
    whole = "".join(parts)
    if not blocks:
        raise EmptyFile("the file holds no text")
    pages = [min(page, len(whole)) for page in pages]
    return Parsed(
        text=whole,
        title=_title(draft, blocks, whole, stem),
        media_type=draft.media_type,
        blocks=tuple(blocks),
        pages=tuple(pages) if len(pages) > 1 or draft.paged else (),
        fidelity={**draft.fidelity, "characters": len(whole), **_garbage(whole)},
        tags=tuple(draft.tags),
        meta=dict(draft.meta),
    )


def _typed(draft: Draft) -> list[tuple[BlockKind, str, int, str]]:
    """Cleaned blocks, plain text line by line with its kind (第X条, numbered headings, questions …)."""
    lines: list[tuple[BlockKind, str, int, str]] = []
    for kind, text, level, header in draft.blocks:
        if kind == "text":
            lines.extend(("text", line, 0, "") for line in clean(text).split("\n"))
        else:
            lines.append((kind, clean(text, keep_spacing=kind == "code"), level, header))
    plain = [(i, shown) for i, (kind, text, *_) in enumerate(lines) if kind == "text" and (shown := _shown(text))]
    untitled = bool(plain) and not any(kind == "heading" for kind, *_ in lines[: plain[0][0]])
    typed = classify([shown for _, shown in plain], first_is_title=untitled)
    header, below = "", -1
    for (i, shown), (kind, level, cut) in zip(plain, typed, strict=True):
        text = lines[i][1]
        if cut:  # the marks of a heading (# …) are no part of it
            text = PAGE_BREAK * text.count(PAGE_BREAK) + shown[cut:]
        if kind == "row":  # a table drawn with bars: its first line heads the others
            header = header if i == below + 1 else ""
            lines[i] = (kind, "" if _RULE.fullmatch(shown) else text, 0, header)
            header, below = header or shown, i
        else:
            lines[i] = (kind, text, level, "")
    return lines


def _shown(text: str) -> str:
    return text.replace(PAGE_BREAK, "").strip()


def _title(draft: Draft, blocks: list[Block], text: str, stem: str) -> str:
    if title := one_line(draft.title):
        return title
    first = next((b for b in blocks[:3] if b.kind == "heading"), None)
    if first and (first.level <= 2 or first is blocks[0]) and (title := one_line(text[first.start : first.end])):
        return title
    return one_line(stem) or "document"


def _garbage(text: str) -> dict[str, float]:
    """Share of characters that no reader can use: U+FFFD and private use."""
    bad = sum(text.count(c) for c in ("\ufffd",)) + len(re.findall("[\ue000-\uf8ff]", text))
    return {"garbage_ratio": round(bad / len(text), 4)} if bad else {}
