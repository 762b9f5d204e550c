"""PowerPoint: each slide a page, its title a heading; tables, groups and speaker notes too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from ingest.canonical import Draft
from ingest.formats.container import check_archive

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def parse(data: bytes, name: str) -> Draft:
    """Shapes from top to bottom; notes behind the slide as «备注：…»."""
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
        rows = [["" if cell.is_spanned else cell.text for cell in row.cells] for row in shape.table.rows]
        draft.table(rows, has_header=bool(shape.table.first_row) or None)
    elif shape.has_text_frame:
        for paragraph in shape.text_frame.paragraphs:
            draft.text("".join(run.text for run in paragraph.runs) or paragraph.text)
