"""How a file would be cut, before it is indexed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, UploadFile
from starlette.concurrency import run_in_threadpool

from api.deps import Ingester, RuntimeDep
from api.ingestion import safe_name
from rag.errors import InvalidInput

router = APIRouter(prefix="/v1/chunks", tags=["documents"])

Size = Annotated[int | None, Query(ge=0, le=2000, description="Tokens, one a Chinese character; default: the settings")]


@router.post("/preview")
async def preview(
    file: Annotated[UploadFile, File(description="Any file that can be ingested")],
    runtime: RuntimeDep,
    party: Ingester,
    chunk_target: Size = None,
    chunk_max: Size = None,
    chunk_overlap: Size = None,
) -> dict[str, Any]:
    """The chunks of a file, which is neither kept nor indexed."""
    from ingest.limits import Limits
    from ingest.sizes import chunk_sizes

    name = safe_name(file.filename)
    asked = {"chunk_target": chunk_target, "chunk_max": chunk_max, "chunk_overlap": chunk_overlap}
    limits = Limits.of(runtime.settings, sizes=chunk_sizes(runtime.settings, asked=asked).to_dict())

    def work() -> dict[str, Any]:
        from ingest.errors import SourceError
        from ingest.preview import preview

        with tempfile.TemporaryDirectory(prefix="chatgglm-") as folder:
            path = Path(folder, name)
            with path.open("xb") as target:
                shutil.copyfileobj(file.file, target, 1 << 20)
            try:
                return preview(path, limits)
            except SourceError as error:
                raise InvalidInput(f"{name}: {error}") from error

    return await run_in_threadpool(work)
