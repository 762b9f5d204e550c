"""How one worker does a job: skip what is unchanged, parse, embed, write, publish."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest import archives, jobs
from ingest.errors import SourceError
from ingest.formats import read
from ingest.report import JobReport, Progress, ProgressCallback, report_of
from ingest.runners import Outcome, Task
from ingest.runners.local import LocalRunner
from ingest.types import Parsed

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import JobItem
    from rag.service import Service
    from rag.store.models import DocumentVersion, KnowledgeBase

log = logging.getLogger(__name__)

FLUSH_CHUNKS = 1024
FLUSH_DOCUMENTS = 128
"""A batch is embedded, written and published when it reaches either."""
EMBED_BATCH = 64
HEARTBEAT = 20.0
"""Seconds between two looks at the lease."""


@dataclass(slots=True)
class _Ready:
    """A parsed document that waits for its batch."""

    item_id: int
    path: str
    root: str
    outcome: Outcome
    parsed: Parsed


class Run:
    """One worker on one job, from claim to finish."""

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
        """All of the job's documents; returns early when it is cancelled or its lease lost."""
        with self._heartbeat():
            self.service.indexes.sync(self.kb)
            pending = self._pending()
            self._tell("parsing")
            batch: list[_Ready] = []
            with closing(runner.run(self._tasks(pending))) as outcomes:
                for outcome in outcomes:
                    if self.stopped:
                        return
                    _, path, root = self.sources[outcome.key]
                    if outcome.parsed is None:
                        self._settle(outcome)
                        continue
                    batch.append(_Ready(outcome.key, path, root, outcome, outcome.parsed))
                    self._tell("chunking", path)
                    if len(batch) >= FLUSH_DOCUMENTS or sum(len(r.outcome.chunks) for r in batch) >= FLUSH_CHUNKS:
                        self._flush(batch)
                        batch = []
            if batch and not self.stopped:
                self._flush(batch)
            if self.options.get("sync") and not self.stopped:
                self._remove_vanished()

    def finish(self, error: str | None) -> JobReport:
        with self.service.database.session(write=True) as session:
            job = jobs.get_job(session, self.job_id)
            if job.lease_owner == self.worker:
                jobs.finish(session, job, error)
                job.totals = {**job.totals, "seconds": round(time.perf_counter() - self.began, 3)}
            return report_of(job, self.kb)

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
        from rag.store.documents import live_version

        digest = _sha256(file)
        if digest is None:
            return False  # the worker says why
        with self.service.database.session() as session:
            version = live_version(session, _get_kb(session, self.kb_id), path)
            if version is None or version.sha256 != digest:
                return False
            self._unchanged(session, _item(session, item_id), version)
        self.done += 1
        self._tell("parsing", path)
        return True

    def _settle(self, outcome: Outcome) -> None:
        with self.service.database.session() as session:
            item = _item(session, outcome.key)
            item.attempts += 1
            item.sha256, item.size_bytes = outcome.sha256 or None, outcome.size_bytes
            jobs.settle(item, outcome.status, outcome.error)
        self.done += 1
        self._tell("parsing", self.sources[outcome.key][1])

    def _flush(self, batch: list[_Ready]) -> None:
        """Embeds a batch, then writes and publishes it in one transaction."""
        from rag.index.text import index_text

        self._tell("embedding", batch[0].path)
        texts = [
            index_text(r.parsed.title, c.heading, r.parsed.text[c.char_start : c.char_end])
            for r in batch
            for c in r.outcome.chunks
        ]
        vectors = embed(self.loading.result() if self.loading else self.service.embedder, texts)
        added: list[int] = []
        removed: list[int] = []
        rows: list[int] = []  # of ``texts``, those that are written
        with self.service.database.session(write=True) as session:
            if not jobs.renew(session, self.job_id, self.worker):
                self.stopped = True  # cancelled, or taken over by another worker: nothing is written
                return
            kb = _get_kb(session, self.kb_id)
            begin = 0
            for ready in batch:
                end = begin + len(ready.outcome.chunks)
                if ids := self._write(session, kb, ready, removed):
                    added += ids
                    rows += range(begin, end)
                begin = end
            if added or removed:
                add = (added, [texts[row] for row in rows], vectors[rows])
                self.service.indexes.publish(self.kb, add, removed, session)
        self.done += len(batch)
        self.chunks += len(added)
        self._tell("indexed", batch[-1].path)

    def _write(self, session: Session, kb: KnowledgeBase, ready: _Ready, removed: list[int]) -> list[int]:
        """A document's new version and its item's end; the ids of its chunks, none if another worker was faster."""
        from rag.store.documents import NewChunk, NewVersion, live_version, replace_version, version_chunk_ids

        parsed, outcome = ready.parsed, ready.outcome
        item = _item(session, ready.item_id)
        item.attempts += 1
        item.sha256, item.size_bytes = outcome.sha256, outcome.size_bytes
        old = live_version(session, kb, ready.path)
        if old is not None and old.sha256 == outcome.sha256:
            self._unchanged(session, item, old)
            return []
        if old is not None:
            removed += version_chunk_ids(session, old.document)
        new = NewVersion(
            sha256=outcome.sha256,
            media_type=parsed.media_type,
            size_bytes=outcome.size_bytes,
            text=parsed.text,
            pages=parsed.pages,
            fidelity=parsed.fidelity,
            tags=parsed.tags,
            meta=parsed.meta,
            root=ready.root,
        )
        chunks = [NewChunk(c.char_start, c.char_end, c.heading, c.page) for c in outcome.chunks]
        document, version, ids = replace_version(session, kb, ready.path, parsed.title, new, chunks)
        item.document_id, item.version_id = document.id, version.id
        item.chunks, item.characters = len(ids), len(parsed.text)
        item.fidelity = parsed.fidelity
        jobs.settle(item, "indexed")
        return ids

    @staticmethod
    def _unchanged(session: Session, item: JobItem, version: DocumentVersion) -> None:
        from rag.store.documents import version_chunk_ids

        item.document_id, item.version_id = version.document_id, version.id
        item.chunks = len(version_chunk_ids(session, version.document))
        item.sha256, item.size_bytes, item.fidelity = version.sha256, version.size_bytes, version.fidelity
        jobs.settle(item, "skipped", "unchanged: the same bytes are indexed already")

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keeps the lease while the work goes on, however long one batch may take."""
        from rag.errors import ChatGGLMError

        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                try:
                    with self.service.database.session() as session:
                        if not jobs.renew(session, self.job_id, self.worker):
                            self.stopped = True
                except ChatGGLMError as error:
                    log.warning("the lease of job %s could not be renewed: %s", self.job_id, error)

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

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
                if document.root in roots and document.path not in present:
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
