"""Ingestion jobs: how far they are, and how to stop one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from api import sse
from api.auth import Principal
from api.deps import Asker, DatabaseDep, Ingester, RuntimeDep
from api.schemas import Limit, Slug, listing
from ingest import leases
from ingest.jobs import cancel_job, retry_job
from ingest.models import FINISHED, Job
from ingest.report import job_to_dict
from rag.errors import NotFound
from rag.store.kbs import get_kb
from rag.store.models import KnowledgeBase

router = APIRouter(prefix="/v1/jobs", tags=["documents"])

POLL_S = 0.5


def find_job(session: Session, party: Principal, ident: str) -> Job:
    """A job on a knowledge base that is open to this party. Raises NotFound."""
    job = session.get(Job, ident)
    if job is None or party.visitor or not party.sees(session.get_one(KnowledgeBase, job.kb_id).slug):
        raise NotFound(f"There is no job «{ident}».")
    return job


def show_job(session: Session, job: Job, with_documents: bool = True) -> dict[str, Any]:
    """A job with its progress, and with each of its documents unless told otherwise."""
    document = job_to_dict(session, job, session.get_one(KnowledgeBase, job.kb_id).slug, with_documents)
    document["status"] = document.pop("state")
    return document


@router.get("")
def index(
    database: DatabaseDep, party: Ingester, limit: Limit = 20, after: str | None = None, kb: Slug | None = None
) -> dict[str, Any]:
    """Jobs, the latest first."""
    with database.session() as session:
        statement = select(Job).join(KnowledgeBase, KnowledgeBase.id == Job.kb_id)
        if kb or party.kbs:
            slugs = [get_kb(session, party.kb(kb)).slug] if kb else list(party.kbs)
            statement = statement.where(KnowledgeBase.slug.in_(slugs))
        if after:
            last = find_job(session, party, after)
            older = (Job.created_at < last.created_at) | ((Job.created_at == last.created_at) & (Job.id < last.id))
            statement = statement.where(older)
        rows = list(session.scalars(statement.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit + 1)))
        return listing([show_job(session, row, False) for row in rows[:limit]], len(rows) > limit)


@router.get("/{job_id}")
def show(job_id: str, database: DatabaseDep, party: Asker) -> dict[str, Any]:
    """One job with its documents."""
    with database.session() as session:
        return show_job(session, find_job(session, party, job_id))


@router.get("/{job_id}/events", response_model=None, responses={200: {"content": {"text/event-stream": {}}}})
async def events(job_id: str, database: DatabaseDep, party: Asker) -> Response:
    """Progress with rates and time left as server-sent events: `progress` whenever it changed, `done` with the job."""

    def look(with_documents: bool) -> dict[str, Any]:
        with database.session() as session:
            return show_job(session, find_job(session, party, job_id), with_documents)

    await run_in_threadpool(look, False)  # an unknown job is a 404, not a stream

    async def body() -> AsyncIterator[bytes]:
        seen: dict[str, Any] = {}
        told = time.monotonic()
        yield b": ok\n\n"
        while seen.get("status") not in FINISHED:
            now = await run_in_threadpool(look, False)
            if now != seen:
                seen, told = now, time.monotonic()
                yield sse.event("progress", now)
            elif time.monotonic() - told > sse.HEARTBEAT_S:
                told = time.monotonic()
                yield b": ping\n\n"
            await asyncio.sleep(POLL_S)
        yield sse.event("done", await run_in_threadpool(look, True))

    return sse.response(body())


@router.delete("/{job_id}", status_code=202)
def cancel(job_id: str, database: DatabaseDep, party: Ingester) -> dict[str, Any]:
    """Stops a job after the document that it is at; what is indexed stays."""
    with database.session(write=True) as session:
        found = find_job(session, party, job_id)
        leases.reap(session, found.id)
        job = cancel_job(session, found.id)
        session.flush()
        return show_job(session, job)


@router.post("/{job_id}/retry", status_code=202)
async def retry(job_id: str, runtime: RuntimeDep, party: Ingester) -> dict[str, Any]:
    """Tries again what failed in a job that has ended, or what was left when it was cancelled."""
    worker = await runtime.ingestion()
    database = await runtime.database()

    def again() -> dict[str, Any]:
        with database.session(write=True) as session:
            job = retry_job(session, find_job(session, party, job_id).id)
            shown = show_job(session, job)
        worker.take_up(job_id)
        return shown

    return await run_in_threadpool(again)
