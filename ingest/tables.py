"""Table rows as lines that can be read on their own.

A small reader cannot count columns, and a chunk may begin in the middle of a table, so each row
names its columns: «品种：紫藤；区域：长廊；盛花期：4月12日—22日». Without a header, two columns are key
and value («负责人：张三») and more are joined by bars.
"""

from __future__ import annotations

import re

_FIGURE = re.compile(r"[\d.,:%‰¥￥$€+\-—–~～/年月日时分秒元万亿个人次级\s]+")


def render(rows: list[list[str]], has_header: bool | None = None) -> tuple[str, list[str]]:
    """(header line that continuation chunks need, lines); a cell's own line breaks become spaces.

    The header line is empty where the rows already name their columns. ``has_header`` None means
    that the format does not say: the first row is judged by its cells.
    """
    grid = [[" ".join(cell.split()) for cell in row] for row in rows]
    width = max((len(row) for row in grid), default=0)
    grid = [row + [""] * (width - len(row)) for row in grid if any(row)]
    used = [i for i in range(width) if any(row[i] for row in grid)]
    grid = [[row[i] for i in used] for row in grid]
    if not grid:
        return "", []
    notes: list[str] = []  # titles and remarks above the columns' names
    while len(used) > 2 and len(grid) > 1 and sum(map(bool, grid[0])) == 1:
        notes.append(next(filter(None, grid.pop(0))))
    header, lines = _lines(grid, len(used), has_header)
    return header, notes + lines


def _lines(grid: list[list[str]], width: int, has_header: bool | None) -> tuple[str, list[str]]:
    if has_header is None:
        has_header = looks_like_header(grid)
    if width == 1:
        return "", [row[0] for row in grid]
    if has_header and len(grid) > 1:
        names, body = grid[0], grid[1:]
        return "", [_bars(names), *(_named(names, row) for row in body)]
    if width == 2:
        return "", ["：".join(filter(None, (row[0].rstrip("：:"), row[1]))) for row in grid]
    return _bars(grid[0]), [_bars(row) for row in grid]


def _named(names: list[str], row: list[str]) -> str:
    if row[0] and not any(row[1:]):  # a row that spans the table: a group title, a note
        return row[0]
    return "；".join(
        f"{name.rstrip('：:')}：{cell}" if name else cell for name, cell in zip(names, row, strict=True) if cell
    )


def _bars(row: list[str]) -> str:
    return " | ".join(row).strip(" |") if not row[0] or not row[-1] else " | ".join(row)


def looks_like_header(grid: list[list[str]]) -> bool:
    """First row short, all different, without figures, over three columns or one of figures."""
    first, body = grid[0], grid[1:]
    if not body or not all(first) or len(set(first)) < len(first):
        return False
    if any(len(cell) > 20 or _FIGURE.fullmatch(cell) or cell[-1] in "。；，：:" for cell in first):
        return False
    if len(first) >= 3:
        return True
    figures = [sum(bool(_FIGURE.fullmatch(row[i])) for row in body if row[i]) for i in range(len(first))]
    return len(body) > 1 and any(count == len(body) for count in figures)
