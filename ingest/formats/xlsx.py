"""Excel workbooks: each sheet is a section, each row names its columns."""

from __future__ import annotations

import datetime
import io
import re
import warnings
from pathlib import PurePosixPath
from typing import Any

from ingest.canonical import Draft
from ingest.errors import NoText
from ingest.formats.container import check_archive

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_PLACES = re.compile(r"0\.(0+)")


def parse(data: bytes, name: str) -> Draft:
    """Values as they were last calculated; formulas that never were are left out and counted, hidden sheets named."""
    import openpyxl

    check_archive(data)
    draft = Draft(MEDIA_TYPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's remarks on styles and extensions
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    draft.title = book.properties.title or PurePosixPath(name).stem  # a sheet's name is none
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if hidden := [sheet.title for sheet in book.worksheets if sheet not in sheets]:
        draft.fidelity["hidden_sheets_left_out"] = hidden
    for sheet in sheets:
        sheet.reset_dimensions()  # the stated size is often wrong
        rows = [[_shown(cell) for cell in row] for row in sheet.iter_rows()]
        merged, without_value = _not_told(sheet)
        if without_value:
            draft.fidelity["formulas_without_value"] = draft.fidelity.get("formulas_without_value", 0) + without_value
        for left, top, _, bottom in merged:
            _carry_down(rows[top - 1 : bottom], left - 1)
        if not any(any(row) for row in rows):
            continue
        if len(sheets) > 1:
            draft.heading(sheet.title, 2)
        draft.table(rows)
    book.close()
    if not draft.blocks and draft.fidelity:
        raise NoText(
            "all is on hidden sheets or in formulas without values; show them, or save it in Excel, and try again"
        )
    return draft


def _not_told(sheet: Any) -> tuple[list[tuple[int, int, int, int]], int]:
    """What openpyxl does not say of a sheet that it only reads: merged cells as (left, top, right, bottom),
    and how many formulas have no value."""
    from lxml import etree
    from openpyxl.utils import range_boundaries

    merged: list[tuple[int, int, int, int]] = []
    without_value = 0
    empty = etree.XPath("count(*[*[local-name()='f'] and not(@t='str') and not(string(*[local-name()='v']))])")
    with sheet._get_source() as source:
        for _, element in etree.iterparse(source, tag=("{*}row", "{*}mergeCell"), resolve_entities=False):
            if element.tag.endswith("row"):
                without_value += int(empty(element))
            else:
                merged.append(range_boundaries(element.get("ref")))
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    return merged, without_value


def _carry_down(rows: list[list[str]], column: int) -> None:
    """A cell that is merged downwards stands in each of its rows that says something itself."""
    value = rows[0][column] if rows and column < len(rows[0]) else ""
    for row in filter(any, rows[1:] if value else ()):
        row.extend([""] * (column + 1 - len(row)))
        row[column] = value


def _shown(cell: Any) -> str:
    """Roughly what Excel shows: dates without midnight, percentages, no binary tails."""
    value = cell.value
    match value:
        case None:
            return ""
        case bool():
            return "是" if value else "否"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(sep=" ", timespec="minutes")
        case int() | float() if "%" in (cell.number_format or ""):
            places = _PLACES.search(cell.number_format)
            return f"{value * 100:.{len(places[1]) if places else 0}f}%"
        case float():
            return f"{value:.12g}"
        case _:
            return str(value)
