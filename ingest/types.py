"""What parsing hands on: one canonical text, and which stretch of it is what."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Literal

BlockKind = Literal["heading", "text", "item", "row", "code", "article", "question", "answer"]
"""``article``: 第X条; ``question``/``answer``: 问答 lists; ``row``: one table row; ``item``: list item."""

HEADING_SEPARATOR = " › "


@dataclass(frozen=True, slots=True)
class Block:
    """Code points ``start:end`` of the canonical text, without white space at the edges.

    ``level`` is 1…6 for headings. ``header`` is the header line of the table that a row belongs
    to, set only where the row does not already name its columns.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    header: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as it is stored and cut.

    ``blocks`` are in order, do not overlap, and together hold every non-space character of
    ``text``. ``pages`` holds the start offset of each page, ascending; empty without pages.
    """

    text: str
    title: str
    media_type: str
    blocks: tuple[Block, ...]
    pages: tuple[int, ...] = ()
    fidelity: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def headings(self) -> tuple[tuple[int, int, str], ...]:
        """(offset, level, text) of each heading."""
        return tuple((b.start, b.level, self.text[b.start : b.end]) for b in self.blocks if b.kind == "heading")

    def page_at(self, offset: int) -> int | None:
        """Page of a character, from 1; None where the format has no pages."""
        return max(1, bisect_right(self.pages, offset)) if self.pages else None


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """A chunk, ``text[char_start:char_end]``, under its heading path."""

    char_start: int
    char_end: int
    heading: str
    page: int | None
