"""PowerPoint: each slide a page, its title a heading; tables, charts, groups and speaker notes too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ingest.canonical import Draft
from ingest.formats.container import check_archive

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def parse(data: bytes, name: str) -> Draft:
    """Shapes from top to bottom; notes behind the slide as «备注：…». Charts that are not read whole are counted."""
    from pptx import Presentation

    check_archive(data)
    presentation = Presentation(io.BytesIO(data))
    draft = Draft(MEDIA_TYPE, paged=True)
    for number, slide in enumerate(presentation.slides):
        if number:
            draft.page_break()
        title = slide.shapes.title
        if title is not None and title.has_text_frame and title.text_frame.text.strip():
            draft.heading(title.text_frame.text.replace("\v", " ").replace("\n", " "), 1 if number == 0 else 2)
        for shape in sorted(_flat(slide.shapes), key=lambda shape: (shape.top or 0, shape.left or 0)):
            if title is None or shape.shape_id != title.shape_id:
                _shape(shape, draft)
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and notes.text.strip():
            draft.text(f"备注：{notes.text}")
    return draft


def _flat(shapes: Any) -> Iterator[Any]:
    for shape in shapes:
        if shape.shape_type == 6:  # a group
            yield from _flat(shape.shapes)
        else:
            yield shape


def _shape(shape: Any, draft: Draft) -> None:
    if getattr(shape, "has_table", False):
        draft.table(_cells(shape.table), has_header=bool(shape.table.first_row) or None)
    elif getattr(shape, "has_chart", False):
        _chart(shape, draft)
    elif shape.has_text_frame:
        for paragraph in shape.text_frame.paragraphs:
            draft.text(paragraph.text)


def _cells(table: Any) -> list[list[str]]:
    """Texts of the cells; one that is merged downwards stands in each of its rows."""
    rows = [["" if cell.is_spanned else cell.text for cell in row.cells] for row in table.rows]
    for top, row in enumerate(table.rows):
        for column, cell in enumerate(row.cells):
            if cell.is_merge_origin:
                for below in rows[top + 1 : top + cell.span_height]:
                    below[column] = cell.text
    return rows


def _chart(shape: Any, draft: Draft) -> None:
    """Title, and a table of the categories with the value of each series."""
    tables: list[list[list[str]]] = []
    title, whole = "", False
    # a kind of chart that python-pptx does not know, a broken part
    with suppress(ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        chart = shape.chart
        title = chart.chart_title.text_frame.text if chart.has_title and chart.chart_title.has_text_frame else ""
        for plot in chart.plots:
            series = [(one.name, list(one.values)) for one in plot.series]
            labels = _labels(plot)
            if labels and all(len(values) == len(labels) for _, values in series):
                rows = [[label, *(_figure(values[i]) for _, values in series)] for i, label in enumerate(labels)]
                tables.append([["", *(name for name, _ in series)], *rows])
        whole = 0 < len(chart.plots) == len(tables)
    draft.text(title)
    for table in tables:
        draft.table(table, has_header=True)
    if not whole:
        draft.fidelity["charts_without_figures"] = draft.fidelity.get("charts_without_figures", 0) + 1


def _labels(plot: Any) -> list[str]:
    from openpyxl.styles.numbers import is_date_format
    from openpyxl.utils.datetime import from_excel

    labels = [" ".join(levels) for levels in plot.categories.flattened_labels]
    stated = plot._element.xpath("./c:ser/c:cat//c:formatCode")
    if stated and is_date_format(stated[0].text):  # days, as Excel counts them
        return [from_excel(float(label)).date().isoformat() for label in labels]
    return labels


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"
