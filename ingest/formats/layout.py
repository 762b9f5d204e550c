"""Lines of a page with coordinates, and the order in which people read them.

Coordinates are points from the page's lower left. Columns are taken apart only where the file mixes
their lines (many programs draw row by row), and only if both sides hold running text: the cells of
a table are short, and are read row by row.
"""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gglm.text import is_han

WIDE = 1.5
"""Gap, in heights of the line, that sets cells apart."""
_LEAST = 4
"""Lines that make a column."""


@dataclass(slots=True)
class Line:
    """A line of a page, 0 where coordinates are unknown."""

    text: str
    left: float = 0.0
    right: float = 0.0
    bottom: float = 0.0
    top: float = 0.0
    cells: tuple[Line, ...] = ()
    """Its parts, from left to right, where wide gaps set them apart."""
    column: int = 0
    """From 1 on a page that has columns; 0: across them, or there are none."""
    margin_left: float = 0.0
    margin_right: float = 0.0
    """Edges of the column that the line stands in."""
    header: str | None = None
    """A row of a table: the table's header line, or empty; None: no row."""
    rough: bool = False
    """From a picture: its height says little about the size of the type."""

    @property
    def size(self) -> float:
        return self.top - self.bottom

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def merged(parts: Sequence[Line]) -> Line:
    """One line of several that stand side by side; wide gaps part its cells."""
    parts = sorted(parts, key=lambda part: part.left)
    cells = [parts[0]]
    for part in parts[1:]:
        last = cells[-1]
        gap = (part.left - last.right) / max(last.size, part.size, 1e-6)
        if gap >= WIDE:
            cells.append(part)
            continue
        close = gap < (1.0 if is_han(last.text[-1]) or is_han(part.text[0]) else 0.15)
        cells[-1] = _spanning(last.text + ("" if close else " ") + part.text, (last, part))
    if len(cells) == 1:
        return cells[0]
    whole = _spanning(" ".join(cell.text for cell in cells), cells)
    whole.cells = tuple(cells)
    return whole


def rows(parts: Sequence[Line]) -> list[Line]:
    """Parts that stand at the same height as one line each, from top to bottom."""
    found: list[list[Line]] = []
    for part in sorted(parts, key=lambda part: -part.middle):
        row = found[-1] if found else None
        if row and abs(row[0].middle - part.middle) < 0.5 * min(row[0].size, part.size):
            row.append(part)
        else:
            found.append([part])
    return [merged(row) for row in found]


def in_reading_order(lines: list[Line]) -> list[Line]:
    """The lines, those that hold several columns cut apart, column after column.

    A line across the columns (a title, a wide table) is read after what stands above it. Where the
    file's own order does not mix the columns it is kept.
    """
    parts = [cell for line in lines for cell in (line.cells or (line,))]
    if len(parts) < 2 * _LEAST or any(not part.size for part in parts):
        return lines
    edges = _gutters(parts)
    if not edges:
        return lines
    pieces = [piece for line in lines for piece in _cut(line, edges)]
    across = [piece for piece in pieces if not piece.column]
    sides = [piece.column for piece in pieces if piece.column]
    turns = sum(a != b for a, b in itertools.pairwise(sides))
    if len(pieces) - len(lines) < 3 and turns <= len(edges) * (len(across) + 1) + 2:
        return pieces
    ordered: list[Line] = []
    rest = sorted((piece for piece in pieces if piece.column), key=lambda piece: (piece.column, -piece.middle))
    for wide in sorted(across, key=lambda piece: -piece.middle):
        ordered += [piece for piece in rest if piece.middle > wide.middle]
        rest = [piece for piece in rest if piece.middle <= wide.middle]
        ordered.append(wide)
    return ordered + rest


def _spanning(text: str, parts: Sequence[Line]) -> Line:
    return Line(
        text,
        min(part.left for part in parts),
        max(part.right for part in parts),
        min(part.bottom for part in parts),
        max(part.top for part in parts),
        rough=any(part.rough for part in parts),
    )


def _cut(line: Line, edges: list[float]) -> list[Line]:
    """The line's pieces, one a column; the line itself if it crosses an edge."""
    by_column: dict[int, list[Line]] = {}
    for cell in line.cells or (line,):
        reach = 0.5 * cell.size
        if any(cell.left < edge - reach and cell.right > edge for edge in edges):
            return [line]
        by_column.setdefault(1 + sum(cell.left >= edge - reach for edge in edges), []).append(cell)
    pieces = [line] if len(by_column) == 1 else [merged(cells) for cells in by_column.values()]
    for column, piece in zip(by_column, pieces, strict=True):
        piece.column = column
    return pieces


def _gutters(parts: list[Line]) -> list[float]:
    """Left edges of all columns but the first, ascending."""
    edge = _gutter(parts)
    if edge is None:
        return []
    left, right = _sides(parts, edge)
    return [*_gutters(left), edge, *_gutters(right)]


def _gutter(parts: list[Line]) -> float | None:
    """Left edge of a column with running text on both of its sides, the one that fewest lines cross."""
    if len(parts) < 2 * _LEAST:
        return None
    em = statistics.median(part.size for part in parts)
    nearest = min(part.left for part in parts) + 8 * em
    starts = Counter(round(part.left) for part in parts if part.left > nearest)
    best: tuple[int, float] | None = None
    for start in starts:
        if starts[start - 1] + starts[start] + starts[start + 1] < _LEAST:
            continue
        left, right = _sides(parts, start)
        crossing = len(parts) - len(left) - len(right)
        if min(len(left), len(right)) < _LEAST or crossing > 0.3 * len(parts) or (best and crossing >= best[0]):
            continue
        shared = min(max(p.top for p in side) for side in (left, right)) - max(
            min(p.bottom for p in side) for side in (left, right)
        )
        least = min(max(p.top for p in side) - min(p.bottom for p in side) for side in (left, right))
        if shared >= 0.5 * least and _is_running(left, em) and _is_running(right, em):
            best = (crossing, float(start))
    return best[1] if best else None


def _sides(parts: list[Line], edge: float) -> tuple[list[Line], list[Line]]:
    left = [part for part in parts if part.right <= edge - 0.3 * part.size]
    right = [part for part in parts if part.left >= edge - 0.5 * part.size]
    return left, right


def _is_running(parts: list[Line], em: float) -> bool:
    """Most lines fill their column, or the columns within it."""
    width = max(part.right for part in parts) - min(part.left for part in parts)
    usual = statistics.median(part.right - part.left for part in parts)
    return (usual >= 8 * em and usual >= 0.6 * width) or _gutter(parts) is not None
