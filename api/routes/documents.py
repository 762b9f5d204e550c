"""Documents: upload, list, show, read, history, delete."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api import library
from api.deps import Asker, DatabaseDep, Ingester, RuntimeDep
from api.errors import Forbidden
from api.ingestion import safe_name, sidecar, uploads
from api.schemas import Limit, Slug, listing
from ingest.sidecars import SUFFIXES, is_sidecar
from rag.errors import InvalidInput
from rag.store.documents import delete_document
from rag.store.kbs import get_kb
from rag.store.purge import purge_document, scrub

router = APIRouter(prefix="/v1/documents", tags=["documents"])


@router.post("", status_code=202)
async def upload(
    file: Annotated[list[UploadFile], File(description="One or more files")],
    runtime: RuntimeDep,
    party: Ingester,
    response: Response,
    kb: Annotated[Slug | None, Form()] = None,
    tags: Annotated[str, Form(description="For all of the files; commas between them", max_length=4000)] = "",
    meta: Annotated[str, Form(description="For all of the files; a JSON object", max_length=100_000)] = "",
    force: Annotated[bool, Form(description="Parse and index files that are unchanged, too")] = False,
) -> dict[str, Any]:
    """Takes files in as a job; `Location` says where to watch it. A knowledge base is made if there is none.

    A side-car (`x.pdf.meta.json`, `.yaml`) that is sent along describes its file, and comes before `tags` and `meta`.
    """
    slug = party.kb(kb)
    described = sidecar(tags, meta)
    names = [safe_name(each.filename) for each in file]
    if len(set(names)) < len(names):
        raise InvalidInput("Two of the files have the same name; send them in two requests.")
    worker = await runtime.ingestion()
    folder = uploads(runtime.settings.home) / uuid.uuid4().hex

    def save() -> str:
        folder.mkdir(parents=True, mode=0o700)
        try:
            paths: list[Path] = []
            for name, each in zip(names, file, strict=True):
                paths.append(folder / name)
                with paths[-1].open("xb") as target:
                    shutil.copyfileobj(each.file, target, 1 << 20)
            if described:
                for name in names:
                    if not is_sidecar(name) and not any(name + suffix in names for suffix in SUFFIXES):
                        (folder / (name + SUFFIXES[-1])).write_bytes(described)
            return worker.upload(folder, paths, slug, force)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    job_id = await run_in_threadpool(save)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return {"job_id": job_id, "kb": slug, "files": names}


@router.get("")
def index(
    database: DatabaseDep,
    party: Asker,
    kb: Slug | None = None,
    limit: Limit = 50,
    after: str | None = None,
    q: Annotated[str, Query(max_length=200, description="Words in the path or title")] = "",
    tag: Annotated[list[str] | None, Query(max_length=100, description="With this tag; several: with all")] = None,
) -> dict[str, Any]:
    """The documents of a knowledge base by path."""
    if party.visitor:
        raise Forbidden("The widget may open cited documents only.")
    with database.session() as session:
        base = get_kb(session, party.kb(kb))
        rows, more = library.page(session, base, limit, after, q, tag or ())
        return listing([library.document_to_dict(session, row) for row in rows], more)


@router.get("/{document_id}")
def show(document_id: str, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """One document, without its text; a page's visitor does not learn of its metadata and of other documents."""
    with database.session() as session:
        shown = library.document_to_dict(session, library.open_document(session, party, document_id))
    hidden = ("meta", "tags", "near_duplicates") if party.visitor else ()
    return {name: value for name, value in shown.items() if name not in hidden}


@router.get("/{document_id}/text")
def text(
    document_id: str,
    database: DatabaseDep,
    party: Asker,
    start: Annotated[int, Query(ge=0)] = 0,
    end: Annotated[int | None, Query(ge=0)] = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="A citation's version_id")] = None,
) -> dict[str, Any]:
    """A stretch of the stored text (code points, half open) and the passages in it."""
    with database.session() as session:
        document = library.open_document(session, party, document_id)
        return library.text_to_dict(session, document, library.version_of(session, document, version), start, end)


@router.get("/{document_id}/versions")
def versions(document_id: str, database: DatabaseDep, party: Ingester) -> dict[str, Any]:
    """The history of a document, also of a deleted one: its versions, the first one first."""
    with database.session() as session:
        return listing(library.versions_to_list(session, library.find_any(session, party, document_id)))


@router.delete("/{document_id}", status_code=204)
async def delete(
    document_id: str,
    runtime: RuntimeDep,
    party: Ingester,
    purge: Annotated[bool, Query(description="Also blank its text, and every answer and quote taken from it")] = False,
) -> Response:
    """Deletes a document; from now on no search finds it. One that is deleted already can still be purged."""
    service = await runtime.service()

    def work() -> None:
        with service.database.session(write=True) as session:
            find = library.find_any if purge else library.open_document
            document = find(session, party, document_id)
            kb = document.kb.slug
            chunks = delete_document(session, document.id) if document.deleted_at is None else []
            if purge:
                purge_document(session, document)
        service.indexes.publish(kb, remove=chunks)
        if purge:
            scrub(service.database)
        service.originals.sweep()

    await run_in_threadpool(work)
    return Response(status_code=204)
