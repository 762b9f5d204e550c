"""The chunks of a file before it is indexed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import DamagedFile
from ingest.runners import Task
from ingest.runners.local import LocalRunner

if TYPE_CHECKING:
    from ingest.limits import Limits


def preview(file: Path, limits: Limits | None = None) -> dict[str, Any]:
    """A file parsed and cut as an ingestion would, in a process of its own and within its limits.

    Returns a JSON document: what was read (title, media type, pages, fidelity) and each chunk with
    its place, heading path, text and size in tokens.

    Raises:
        SourceError: the file gives no document; the message says why.
    """
    from ingest.chunk import Sizes

    (outcome,) = LocalRunner(1, limits).run([Task(0, str(file), file.name)])
    parsed = outcome.parsed
    if parsed is None:
        raise DamagedFile(outcome.error)
    size = Sizes(parsed.text)
    return {
        "file": file.name,
        "title": parsed.title,
        "media_type": parsed.media_type,
        "sha256": outcome.sha256,
        "characters": len(parsed.text),
        "tokens": size.of(0, len(parsed.text)),
        "pages": len(parsed.pages),
        "fidelity": parsed.fidelity,
        "tags": list(parsed.tags),
        "meta": parsed.meta,
        "chunks": [
            {
                "ordinal": ordinal,
                "char_start": span.char_start,
                "char_end": span.char_end,
                "heading": span.heading,
                "page": span.page,
                "tokens": size.of(span.char_start, span.char_end),
                "text": parsed.text[span.char_start : span.char_end],
            }
            for ordinal, span in enumerate(outcome.chunks)
        ],
    }
