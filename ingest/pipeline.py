"""The ingestion itself: parse in processes, embed in batches, write versions, publish the index.

SQL and index never part: the rows of a batch of documents, their states and the index generation
that holds them become visible in one commit. A process that dies loses at most its batch, and the
next run takes up where it stopped: the same bytes at the same path are skipped.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import archives, jobs
from ingest.errors import SourceError
from ingest.formats import read
from ingest.runners import Outcome, Task
from ingest.runners.local import TIMEOUT, LocalRunner
from ingest.sources import address, expand

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import Job, JobItem
    from rag.service import Service
    from rag.store.models import KnowledgeBase

log = logging.getLogger(__name__)

FLUSH_CHUNKS = 1024
FLUSH_DOCUMENTS = 128
"""A batch is embedded, written and published when it reaches either."""
EMBED_BATCH = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress callback gets: documents settled of all, chunks indexed so far, what happens now."""

    stage: str
    done: int
    total: int
    chunks: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """How one path ended; ``error`` says why it failed or was skipped."""

    path: str
    document_id: str | None
    status: str
    chunks: int
    error: str | None
    fidelity: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobReport:
    """The outcome of a job, document by document."""

    job_id: str | None
    kb: str
    state: str
    documents: tuple[DocumentReport, ...]
    totals: dict[str, Any]
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return self.error is None and not any(document.status == "failed" for document in self.documents)

    def to_dict(self) -> dict[str, Any]:
        """The CLI contract's document."""
        return {
            "job_id": self.job_id,
            "kb": self.kb,
            "state": self.state,
            "documents": [
                {
                    "path": document.path,
                    "document_id": document.document_id,
                    "status": document.status,
                    "chunks": document.chunks,
                    "error": document.error,
                    "fidelity": document.fidelity,
                }
                for document in self.documents
            ],
            "totals": self.totals,
            "error": self.error,
        }


ProgressCallback = Callable[[Progress], None]


def ingest(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float = TIMEOUT,
    progress: ProgressCallback | None = None,
) -> JobReport:
    """Files and folders into a knowledge base, which is made if there is none of that name.

    Args:
        service: the open installation.
        paths: files and folders; a document's path is relative to the one it came from.
        sync: afterwards delete the documents that came from the same folders and are gone there.
        include, exclude: shell patterns over relative paths or file names.
        workers: parsing processes; 0: as many as there are processors, 4 at most.
        timeout: seconds that parsing one document may take.
        progress: called as documents settle.

    Raises:
        rag.errors.ChatGGLMError: the store cannot be used. A bad document raises nothing: it is
            listed in the report and the rest goes on.
    """
    job_id = submit(service, paths, kb, sync=sync, include=include, exclude=exclude)
    return run_job(service, job_id, workers=workers, timeout=timeout, progress=progress)


def submit(
    service: Service,
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> str:
    """Writes the job down without working on it; its id."""
    from rag.store.kbs import get_or_create_kb

    sources = expand(paths, include, exclude)
    options = {"sync": sync, "roots": sources.complete}
    with service.database.session(write=True) as session:
        base = get_or_create_kb(session, kb, embedder=service.settings.embedder)
        return jobs.create_job(session, base, sources, options).id


def dry_run(
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float = TIMEOUT,
) -> JobReport:
    """What an ingestion would index (status ``parsed``), without touching any store."""
    sources = expand(paths, include, exclude)
    found = [DocumentReport(p.path, None, p.status, 0, p.error) for p in sources.problems]
    characters = size = 0
    tasks = [Task(i, address(source), source.path) for i, source in enumerate(sources.files)]
    for outcome in LocalRunner(workers, timeout).run(tasks):
        path = sources.files[outcome.key].path
        fidelity = outcome.parsed.fidelity if outcome.parsed else {}
        found.append(DocumentReport(path, None, outcome.status, len(outcome.chunks), outcome.error or None, fidelity))
        characters += len(outcome.parsed.text) if outcome.parsed else 0
        size += outcome.size_bytes
    documents = tuple(sorted(found, key=lambda document: document.path))
    counts = {state: sum(d.status == state for d in documents) for state in ("parsed", "skipped", "failed")}
    totals = {
        "documents": len(documents),
        **counts,
        "chunks": sum(document.chunks for document in documents),
        "characters": characters,
        "bytes": size,
    }
    return JobReport(None, kb, "dry-run", documents, totals)


def run_job(
    service: Service,
    job_id: str,
    *,
    workers: int = 0,
    timeout: float = TIMEOUT,
    progress: ProgressCallback | None = None,
) -> JobReport:
    """Works on a job to its end. A job whose worker died is taken up where it stopped.

    Raises:
        rag.errors.NotFound: no such job.
        rag.errors.Conflict: another worker is at it, or it has ended.
    """
    from rag.errors import Conflict

    worker = jobs.owner()
    with service.database.session(write=True) as session:
        job = jobs.get_job(session, job_id)
        if not jobs.claim(session, job_id, worker):
            raise Conflict(f"Job {job_id} is being worked on, or has ended ({job.state}).")
    run = _Run(service, job_id, worker, progress)
    error: str | None = None
    try:
        run.work(LocalRunner(workers, timeout))
    except BaseException as caught:
        error = str(caught) or "interrupted"
        raise
    finally:
        report = run.finish(error)
    return report


def resume(service: Service, progress: ProgressCallback | None = None) -> list[JobReport]:
    """Takes up every job that nobody works on any more (its process was killed, say)."""
    with service.database.session() as session:
        waiting = jobs.abandoned(session)
    return [run_job(service, job_id, progress=progress) for job_id in waiting]


@dataclass(slots=True)
class _Ready:
    """A parsed document that waits for its batch."""

    item_id: int
    path: str
    root: str
    outcome: Outcome


class _Run:
    def __init__(self, service: Service, job_id: str, worker: str, progress: ProgressCallback | None) -> None:
        self.service = service
        self.job_id = job_id
        self.worker = worker
        self.progress = progress
        self.done = self.total = self.chunks = 0
        self.began = time.perf_counter()
        self.stopped = False
        self.loading: Future[Any] | None = None
        self.sources: dict[int, tuple[str, str, str]] = {}  # item id → (file, path, root)
        with service.database.session() as session:
            job = jobs.get_job(session, job_id)
            self.kb_id = job.kb_id
            self.kb = _get_kb(session, job.kb_id).slug
            self.options = dict(job.options or {})

    # -- the steps ---------------------------------------------------------------------------------

    def work(self, runner: LocalRunner) -> None:
        self.service.indexes.sync(self.kb)
        pending = self._pending()
        self._tell("parsing")
        batch: list[_Ready] = []
        size = 0
        for outcome in runner.run(self._tasks(pending)):
            _, path, root = self.sources[outcome.key]
            if outcome.parsed is None:
                self._settle(outcome.key, outcome.status, outcome.error, outcome)
                continue
            batch.append(_Ready(outcome.key, path, root, outcome))
            size += len(outcome.chunks)
            self._tell("chunking", path)
            if size >= FLUSH_CHUNKS or len(batch) >= FLUSH_DOCUMENTS:
                self._flush(batch)
                batch, size = [], 0
                if self.stopped:
                    break
        self._flush(batch)
        if self.options.get("sync") and not self.stopped:
            self._remove_vanished()

    def finish(self, error: str | None) -> JobReport:
        with self.service.database.session(write=True) as session:
            job = jobs.get_job(session, self.job_id)
            if job.lease_owner == self.worker:
                jobs.finish(session, job, error)
                job.totals = {**job.totals, "seconds": round(time.perf_counter() - self.began, 3)}
            return _report(job, self.kb)

    def _pending(self) -> list[int]:
        """The items to work on, after a crash the unfinished ones."""
        from sqlalchemy import select

        from ingest.models import JobItem

        with self.service.database.session() as session:
            rows = session.execute(
                select(JobItem.id, JobItem.file, JobItem.path, JobItem.root, JobItem.state)
                .where(JobItem.job_id == self.job_id)
                .order_by(JobItem.ordinal)
            ).all()
        self.total = len(rows)
        self.done = sum(row.state in jobs.SETTLED for row in rows)
        self.sources = {row.id: (jobs.opened_name(row.file), row.path, row.root) for row in rows}
        return [row.id for row in rows if row.state not in jobs.SETTLED]

    def _tasks(self, pending: list[int]) -> Iterator[Task]:
        """Tasks for the changed files; unchanged ones are settled on the way."""
        for item_id in pending:
            if self.stopped:
                return
            file, path, _ = self.sources[item_id]
            if self._settled_unchanged(item_id, file, path):
                continue
            if self.loading is None:  # the embedder loads while documents are parsed
                self.loading = ThreadPoolExecutor(1).submit(lambda: self.service.embedder)
            yield Task(item_id, file, path)

    def _settled_unchanged(self, item_id: int, file: str, path: str) -> bool:
        from rag.store.documents import live_version, version_chunk_ids

        digest = _sha256(file)
        if digest is None:
            return False  # the worker says why
        with self.service.database.session() as session:
            version = live_version(session, _get_kb(session, self.kb_id), path)
            if version is None or version.sha256 != digest:
                return False
            item = _item(session, item_id)
            item.document_id, item.version_id = version.document_id, version.id
            item.chunks = len(version_chunk_ids(session, version.document))
            item.sha256, item.size_bytes = digest, version.size_bytes
            item.fidelity = version.fidelity
            jobs.settle(item, "skipped", "unchanged: the same bytes are indexed already")
        self.done += 1
        self._tell("parsing", path)
        return True

    def _settle(self, item_id: int, state: str, error: str, outcome: Outcome) -> None:
        with self.service.database.session() as session:
            item = _item(session, item_id)
            item.attempts += 1
            item.sha256, item.size_bytes = outcome.sha256 or None, outcome.size_bytes
            jobs.settle(item, state, error)
        self.done += 1
        self._tell("parsing", self.sources[item_id][1])

    def _flush(self, batch: list[_Ready]) -> None:
        """Embeds a batch, then writes and publishes it in one transaction."""
        if not batch:
            self._renew()
            return
        from rag.index.text import index_text
        from rag.store.documents import NewChunk, NewVersion, live_version, replace_version, version_chunk_ids

        self._tell("embedding", batch[0].path)
        texts: list[str] = []
        for ready in batch:
            parsed = ready.outcome.parsed
            assert parsed is not None
            texts += [
                index_text(parsed.title, span.heading, parsed.text[span.char_start : span.char_end])
                for span in ready.outcome.chunks
            ]
        vectors = embed(self.loading.result() if self.loading else self.service.embedder, texts)
        added: list[int] = []
        removed: list[int] = []
        with self.service.database.session(write=True) as session:
            kb = _get_kb(session, self.kb_id)
            for ready in batch:
                parsed, outcome = ready.outcome.parsed, ready.outcome
                assert parsed is not None
                old = live_version(session, kb, ready.path)
                if old is not None:
                    removed += version_chunk_ids(session, old.document)
                document, version, ids = replace_version(
                    session,
                    kb,
                    ready.path,
                    parsed.title,
                    NewVersion(
                        sha256=outcome.sha256,
                        media_type=parsed.media_type,
                        size_bytes=outcome.size_bytes,
                        text=parsed.text,
                        pages=list(parsed.pages),
                        fidelity=parsed.fidelity,
                        tags=list(parsed.tags),
                        meta=parsed.meta | ({"root": ready.root} if ready.root else {}),
                    ),
                    [NewChunk(c.char_start, c.char_end, c.heading, c.page) for c in outcome.chunks],
                )
                added += ids
                item = _item(session, ready.item_id)
                item.attempts += 1
                item.document_id, item.version_id = document.id, version.id
                item.sha256, item.size_bytes = outcome.sha256, outcome.size_bytes
                item.chunks, item.characters = len(ids), len(parsed.text)
                item.fidelity = parsed.fidelity
                jobs.settle(item, "indexed")
            self.service.indexes.publish(self.kb, (added, texts, vectors), removed, session)
        self.done += len(batch)
        self.chunks += len(added)
        self._tell("indexed", batch[-1].path)
        self._renew()

    def _renew(self) -> None:
        with self.service.database.session() as session:
            self.stopped = self.stopped or not jobs.renew(session, self.job_id, self.worker)

    def _remove_vanished(self) -> None:
        """Deletes documents that came from the same, completely read folders and are no longer there."""
        from rag.store.documents import delete_document
        from rag.store.models import Document

        present = {path for _, path, _ in self.sources.values()}
        roots = set(self.options.get("roots") or ())
        removed: list[int] = []
        count = 0
        with self.service.database.session(write=True) as session:
            kb = _get_kb(session, self.kb_id)
            rows = session.query(Document).where(Document.kb_id == kb.id, Document.deleted_at.is_(None)).all()
            for document in rows:
                if (document.meta or {}).get("root") in roots and document.path not in present:
                    removed += delete_document(session, document.id)
                    count += 1
            if removed:
                self.service.indexes.publish(self.kb, remove=removed, session=session)
        self.options["deleted"] = count

    def _tell(self, stage: str, path: str = "") -> None:
        if self.progress:
            self.progress(Progress(stage, self.done, self.total, self.chunks, path))


def embed(embedder: Any, texts: Sequence[str]) -> Any:
    """Vectors float32 (n, dim) in the order of ``texts``; batches are of like lengths, so little is padded."""
    import numpy as np

    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    for begin in range(0, len(order), EMBED_BATCH):
        rows = order[begin : begin + EMBED_BATCH]
        vectors[rows] = embedder.encode_passages([texts[i] for i in rows])
    return vectors


def _get_kb(session: Session, kb_id: int) -> KnowledgeBase:
    from rag.errors import NotFound
    from rag.store.models import KnowledgeBase

    kb = session.get(KnowledgeBase, kb_id)
    if kb is None or kb.deleted_at is not None:
        raise NotFound("The knowledge base was deleted while documents were being ingested into it.")
    return kb


def _item(session: Session, item_id: int) -> JobItem:
    from ingest.models import JobItem

    return session.get_one(JobItem, item_id)


def _report(job: Job, kb: str) -> JobReport:
    documents = tuple(
        DocumentReport(item.path, item.document_id, item.state, item.chunks, item.error, item.fidelity or {})
        for item in job.items
    )
    return JobReport(job.id, kb, job.state, documents, dict(job.totals), job.error)


def _sha256(file: str) -> str | None:
    digest = hashlib.sha256()
    try:
        if archives.SEPARATOR in file and not Path(file).exists():
            digest.update(read(Path(file)))
        else:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except (OSError, SourceError):
        return None
    return digest.hexdigest()
