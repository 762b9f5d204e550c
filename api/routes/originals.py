"""The file that a document was made from: to download, with a quote's place on its pages, and as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api import library
from api.auth import Principal
from api.deps import Asker, RuntimeDep
from api.errors import Forbidden
from api.runtime import Runtime
from api.security import DATA_CSP
from rag.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from ingest.highlights import Stretch

router = APIRouter(prefix="/v1/documents", tags=["documents"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="A citation's version_id")]
Start = Annotated[int, Query(ge=0, description="Code points of the stored text, half open")]
End = Annotated[int, Query(ge=0)]
MAX_STRETCH = 20_000
"""Characters that one request can have marked."""
_PDF = "application/pdf"
_BLOCK = 1 << 18


@router.get("/{document_id}/original", response_class=Response)
async def original(document_id: str, runtime: RuntimeDep, party: Asker, version: Version = None) -> Response:
    """The original file, always as a download; a browser never shows it in this server's name."""
    if party.visitor:
        raise Forbidden("The widget may open cited text only.")
    service = await runtime.service()

    def opened() -> tuple[Any, str, str, int]:
        with service.database.session() as session:
            document = library.open_document(session, party, document_id)
            found = library.version_of(session, document, version)
            return service.originals.open(found), PurePosixPath(document.path).name, found.sha256, found.size_bytes

    file, name, sha256, size = await run_in_threadpool(opened)

    def blocks() -> Iterator[bytes]:
        with closing(file):
            while block := file.read(_BLOCK):
                yield block

    headers = {
        "Content-Disposition": f"attachment; filename=\"document\"; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Length": str(size),
        "Content-Security-Policy": DATA_CSP,
        "X-Content-Type-Options": "nosniff",
        "ETag": f'"{sha256}"',
    }
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)


@router.get("/{document_id}/highlights")
async def highlights(
    document_id: str, runtime: RuntimeDep, party: Asker, start: Start, end: End, version: Version = None
) -> dict[str, Any]:
    """Where a stretch of the text stands on the pages of a PDF, in points from each page's upper left corner.

    Other formats have no pages to mark: the list is empty.
    """
    from ingest.highlights import boxes_of

    ident, data, parts = await _parts(runtime, party, document_id, version, start, end)
    pages = await run_in_threadpool(_drawn, boxes_of, data, parts) if parts else []
    return {
        "document_id": document_id,
        "version_id": ident,
        "start": start,
        "end": end,
        "pages": [
            {"page": page.page, "width": page.width, "height": page.height, "boxes": [list(box) for box in page.boxes]}
            for page in pages
        ],
    }


@router.get("/{document_id}/pages/{page}.png", response_class=Response)
async def picture(
    document_id: str,
    page: Annotated[int, Path(ge=1, le=1_000_000)],
    runtime: RuntimeDep,
    party: Asker,
    start: Start = 0,
    end: End = 0,
    version: Version = None,
    scale: Annotated[float, Query(ge=0.2, le=4, description="Pixels a point")] = 1.5,
) -> Response:
    """A page of a PDF as a picture, with a stretch of the text marked."""
    from ingest.highlights import picture_of

    _, data, parts = await _parts(runtime, party, document_id, version, start, end, page)
    if not parts:
        raise NotFound(f"This document has no page {page} that could be drawn.")
    image = await run_in_threadpool(_drawn, picture_of, data, parts[0], scale)
    if not image:
        raise NotFound(f"This document has no page {page}.")
    return Response(image, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


async def _parts(
    runtime: Runtime,
    party: Principal,
    document_id: str,
    version: int | None,
    start: int,
    end: int,
    page: int | None = None,
) -> tuple[int, bytes, list[Stretch]]:
    """Version, PDF and the parts of ``start:end`` on its pages (on one page, with or without such a part)."""
    from ingest.highlights import Stretch, stretches

    service = await runtime.service()

    def work() -> tuple[int, bytes, list[Stretch]]:
        with service.database.session() as session:
            document = library.open_document(session, party, document_id)
            found = library.version_of(session, document, version)
            if page is None and not start < end <= len(found.text):
                raise InvalidInput(
                    f"The range {start}:{end} holds no text; the document has {len(found.text)} characters."
                )
            if end - start > MAX_STRETCH:
                raise InvalidInput(f"At most {MAX_STRETCH} characters at once.")
            if found.media_type != _PDF or not found.pages:
                return found.id, b"", []
            parts = stretches(found.text, found.pages, start, end)
            if page is not None:
                parts = [part for part in parts if part.page == page] or [Stretch(page, "", 0, 0)]
            with closing(service.originals.open(found)) as file:
                return found.id, file.read(), parts

    return await run_in_threadpool(work)


def _drawn(function: Any, *arguments: Any) -> Any:
    from ingest.errors import SourceError

    try:
        return function(*arguments)
    except SourceError as error:
        raise InvalidInput(f"The original: {error}.") from error
