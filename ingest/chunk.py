"""Chunks the size of the reader's window, cut where the document itself pauses.

The document is split into units (sentences, table rows, headings …), and a dynamic programme picks
the set of cuts with the least cost: chunks near the target size, cuts before headings and articles
rather than between sentences, never after a heading or between a question and its answer. Units
are never split, so a sentence is only cut where it is longer than the maximum by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from ingest.sentences import pieces, sentences
from ingest.tokens import token_starts
from ingest.types import HEADING_SEPARATOR, Block, ChunkSpan, Parsed

TARGET = 380
MAXIMUM = 480
"""Tokens of the generator (`ingest.tokens`): one a Han character. The maximum is the reader's window."""

_MOST_TOKENS = 4
"""Of one character: its UTF-8 bytes."""
_MAX_HEADING = 500
_MAX_PART = 80
_TINY = 30
_MOST_UNITS = 120
"""Of a chunk; bounds the work where units are tiny."""

# What it costs to begin a chunk at a unit …
_HEADING, _ARTICLE, _QUESTION = 0.0, 0.02, 0.02
_PARAGRAPH, _ITEM, _ROW, _CODE, _SENTENCE = 0.12, 0.18, 0.30, 0.25, 0.40
_ROUGH = (0.0, 1.0, 2.0, 3.0, 4.0)
_GLUED = 3.0
# … to hold a boundary within a chunk …
_MIXED_HEADING = {1: 0.5, 2: 0.45, 3: 0.4, 4: 0.3, 5: 0.25, 6: 0.25}
_MIXED_ARTICLE, _MIXED_QUESTION = 0.06, 0.10
# … and to have a chunk at all, and one that is small or beyond the target.
_CHUNK, _SMALL, _LARGE = 0.10, 1.0, 0.30


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    cut: float
    """Cost of beginning a chunk here."""
    mixed: float
    """Cost of holding the boundary before this unit inside a chunk."""
    path: tuple[str, ...]
    """Headings above; for the rest of an article or table, their label or header too."""
    heading: bool = False


def chunk(parsed: Parsed, target: int = TARGET, maximum: int = MAXIMUM, overlap: int = 0) -> list[ChunkSpan]:
    """Chunks of a document, in order; every non-space character lies in exactly one, without ``overlap``.

    Each is at most ``maximum`` tokens. With ``overlap``, a chunk that goes on with a section begins
    with the last sentences of the one before, up to so many tokens. ``heading`` is the path of
    headings above it, without the document's title; the rest of an article that was cut carries
    its 第X条, the rest of a table its header line.

    Raises:
        ValueError: sizes that make no sense.
    """
    if not 0 < target <= maximum:
        raise ValueError(f"target {target} must lie within 1…{maximum}")
    if not 0 <= overlap <= target // 2:
        raise ValueError(f"overlap {overlap} must lie within 0…{target // 2}, half the target")
    size = Sizes(parsed.text)
    units = _coalesced(list(_units(parsed, maximum - overlap, size)))
    before = (size.before([unit.start for unit in units]), size.before([unit.end for unit in units]))
    spans = []
    for first, last in _cuts(units, before, target - overlap, maximum - overlap):
        end = units[last].end
        start = units[_reach(units, before, first, overlap)].start if overlap else units[first].start
        heading = _path(units[first : last + 1])
        spans.append(ChunkSpan(start, end, heading, parsed.page_at(start)))
    return spans


class Sizes:
    """Lengths of stretches of a text, in tokens."""

    def __init__(self, text: str) -> None:
        self._starts = token_starts(text)

    def before(self, offsets: Sequence[int]) -> list[int]:
        """How many tokens begin before each offset."""
        return np.searchsorted(self._starts, offsets).tolist()

    def of(self, start: int, end: int) -> int:
        """Tokens that begin within ``start:end``."""
        first, last = self.before((start, end))
        return last - first


def _reach(units: list[_Unit], before: tuple[list[int], list[int]], first: int, overlap: int) -> int:
    """The unit at which a chunk begins that repeats what is above it: whole units of its own section."""
    starts, _ = before
    reach = first
    while (
        reach > 0
        and not units[reach].heading
        and units[reach - 1].path == units[first].path
        and starts[first] - starts[reach - 1] <= overlap
    ):
        reach -= 1
    return reach


def _cuts(units: list[_Unit], before: tuple[list[int], list[int]], target: int, maximum: int) -> list[tuple[int, int]]:
    """(first, last) unit of each chunk, by the least total cost; ``before``: tokens before each one's start and end."""
    count = len(units)
    best = [0.0] + [float("inf")] * count
    came = [0] * (count + 1)
    starts, ends = before
    for first in range(count):
        cost = best[first] + _CHUNK + (units[first].cut if first else 0.0)
        begin = starts[first]
        for last in range(first, min(count, first + _MOST_UNITS)):
            size = ends[last] - begin
            if size > maximum and last > first:
                break
            if last > first:
                cost += units[last].mixed
            gap = (target - size) / target if size < target else (size - target) / (maximum - target + 1)
            total = cost + (_SMALL if size < target else _LARGE) * gap * gap
            if total < best[last + 1]:
                best[last + 1] = total
                came[last + 1] = first
    found = []
    last = count
    while last:
        found.append((came[last], last - 1))
        last = came[last]
    return found[::-1]


def _units(parsed: Parsed, maximum: int, size: Sizes) -> Iterator[_Unit]:
    text = parsed.text
    path: list[tuple[int, str]] = []  # (level, heading)
    article = ""
    glued = False  # what came before must not be parted from this
    previous: Block | None = None
    for block in parsed.blocks:
        if block.kind == "heading":
            path = [*takewhile(lambda part, level=block.level: part[0] < level, path)]  # type: ignore[misc]
            label = _label(text[block.start : block.end])
            if label != parsed.title:
                path.append((block.level, label))
            article = ""
        elif block.kind in ("article", "question"):
            article = ""
        names = tuple(name for _, name in path)
        inner = (*names, article) if article else names
        if block.kind == "row" and block.header:
            inner = (*inner, _label(block.header))
        cut, mixed = _costs(block, previous)
        if glued:
            cut, mixed = cut + _GLUED, 0.0
        for i, (start, end, rough) in enumerate(_split(text, block, maximum, size)):
            if i == 0:
                yield _Unit(start, end, cut, mixed, inner, block.kind == "heading")
            else:
                yield _Unit(start, end, _ROUGH[rough] if rough else _SENTENCE, 0.0, inner)
            if i == 0 and block.kind == "article":
                article = _article_label(text[block.start : block.end])
                inner = (*names, article)
        last = text[block.end - 1]
        short_article = block.kind == "article" and last not in "。；！？.;!?" and block.end - block.start <= 40
        glued = (
            block.kind in ("heading", "question") or short_article or (last in "：:" and block.end - block.start <= 200)
        )
        if block.kind == "row" and previous is not None and previous.kind != "row":
            glued = True  # a table's header is not parted from its first row
        previous = block


def _coalesced(units: list[_Unit]) -> list[_Unit]:
    """Bounds the work on documents of countless tiny lines: neighbours become units of a few words."""
    if len(units) < 20_000 or (units[-1].end - units[0].start) > _TINY * len(units):
        return units
    kept = [units[0]]
    for unit in units[1:]:
        last = kept[-1]
        if not unit.heading and not last.heading and unit.path == last.path and unit.end - last.start <= _TINY:
            kept[-1] = replace(last, end=unit.end)
        else:
            kept.append(unit)
    return kept


def _costs(block: Block, previous: Block | None) -> tuple[float, float]:
    match block.kind:
        case "heading":
            return _HEADING, _MIXED_HEADING.get(block.level, 0.25)
        case "article":
            return _ARTICLE, _MIXED_ARTICLE
        case "question":
            return _QUESTION, _MIXED_QUESTION
        case "answer":
            return _GLUED, 0.0
        case "row":
            return (_ROW if previous is not None and previous.kind == "row" else _PARAGRAPH), 0.0
        case "item":
            return _ITEM, 0.0
        case _:
            return _PARAGRAPH, 0.0


def _split(text: str, block: Block, maximum: int, size: Sizes) -> Iterator[tuple[int, int, int]]:
    """(start, end, roughness): sentences, whole rows and lines of code; what is too long in pieces."""
    if block.kind == "code":
        spans: list[tuple[int, int]] = []
        start = block.start
        for line in text[block.start : block.end].split("\n"):
            if line.strip():
                lead = len(line) - len(line.lstrip())
                spans.append((start + lead, start + len(line.rstrip())))
            start += len(line) + 1
    elif block.kind in ("heading", "row") and size.of(block.start, block.end) <= maximum:
        spans = [(block.start, block.end)]
    else:
        spans = list(sentences(text, block.start, block.end))
    for start, end in spans:
        if (end - start) * _MOST_TOKENS <= maximum or size.of(start, end) <= maximum:
            yield start, end, 0
            continue
        for first, last, rough in pieces(text, start, end, maximum):
            if size.of(first, last) <= maximum:
                yield first, last, rough
                continue
            for i, (a, b, finer) in enumerate(pieces(text, first, last, max(1, maximum // _MOST_TOKENS))):
                yield a, b, finer if i else rough


def _label(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_PART else line[: _MAX_PART - 1] + "…"


def _article_label(text: str) -> str:
    """第三条 租期 for a titled article, else 第三条 alone."""
    if len(text) <= 30 and text[-1] not in "。；：，":
        return _label(text)
    return text[: text.index("条") + 1]


def _path(units: list[_Unit]) -> str:
    """Where the chunk stands: the headings that it cannot show itself.

    A chunk that begins within a section is under that section, whatever begins further down (its
    heading is in the text). One that begins with a heading is under what all of it has in common.
    """
    whole = units[0].heading
    while len(units) > 1 and units[0].heading and units[1].path[: len(units[0].path)] == units[0].path:
        units = units[1:]  # a heading right above its first subheading or text
    shared = units[0].path
    for unit in units[1:] if whole else ():
        if unit.path != shared:
            shared = _common(shared, unit.path)
    heading = HEADING_SEPARATOR.join(shared)
    return heading if len(heading) <= _MAX_HEADING else "…" + heading[-(_MAX_HEADING - 1) :]


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(x for x, _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
