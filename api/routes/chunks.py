"""How a file would be cut, before it is indexed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, UploadFile
from starlette.concurrency import run_in_threadpool

from api.deps import Ingester, RuntimeDep
from api.ingestion import safe_name
from rag.errors import InvalidInput

router = APIRouter(prefix="/v1/chunks", tags=["documents"])


@router.post("/preview")
async def preview(
    file: Annotated[UploadFile, File(description="Any file that can be ingested")], runtime: RuntimeDep, party: Ingester
) -> dict[str, Any]:
    """The chunks of a file, which is neither kept nor indexed."""
    name = safe_name(file.filename)

    def work() -> dict[str, Any]:
        from ingest.errors import SourceError
        from ingest.limits import Limits
        from ingest.preview import preview

        with tempfile.TemporaryDirectory(prefix="chatgglm-") as folder:
            path = Path(folder, name)
            with path.open("xb") as target:
                shutil.copyfileobj(file.file, target, 1 << 20)
            try:
                return preview(path, Limits.of(runtime.settings))
            except SourceError as error:
                raise InvalidInput(f"{name}: {error}") from error

    return await run_in_threadpool(work)
