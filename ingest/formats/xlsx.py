"""Excel workbooks: each sheet is a section, each row names its columns."""

from __future__ import annotations

import datetime
import io
import re
import warnings
from pathlib import PurePosixPath
from typing import Any

from ingest.canonical import Draft
from ingest.formats.container import check_archive

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_PLACES = re.compile(r"0\.(0+)")


def parse(data: bytes, name: str) -> Draft:
    """Values as they were last calculated; formulas that never were are left out and counted."""
    import openpyxl

    check_archive(data)
    draft = Draft(MEDIA_TYPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's remarks on styles and extensions
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    draft.title = book.properties.title or PurePosixPath(name).stem  # a sheet's name is none
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    for sheet in sheets:
        sheet.reset_dimensions()  # the stated size is often wrong
        rows = [[_shown(cell) for cell in row] for row in sheet.iter_rows()]
        if not any(any(row) for row in rows):
            continue
        if len(sheets) > 1:
            draft.heading(sheet.title, 2)
        draft.table(rows)
    book.close()
    return draft


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
