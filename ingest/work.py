"""How one worker does its share of a job: claim items, skip what is unchanged, parse, embed, write, publish."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gglm.errors import UserError
from ingest import archives, jobs, leases
from ingest.embed import embed
from ingest.errors import SourceError
from ingest.formats import read
from ingest.leases import Claimed
from ingest.metadata import sidecar_sha256
from ingest.report import JobReport, Progress, ProgressCallback, rates, report_of
from ingest.runners import Outcome, Runner, Task
from ingest.types import Parsed
from rag.errors import Conflict, IndexUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import JobItem
    from rag.service import Service
    from rag.store.documents import LiveVersion
    from rag.store.models import DocumentVersion, KnowledgeBase

log = logging.getLogger(__name__)

CLAIM = 16
"""Items that are claimed at once: few, so that workers share evenly, and not one by one."""
FLUSH_CHUNKS = 1024
FLUSH_DOCUMENTS = 128
"""A batch is embedded, written and published when it reaches either."""
HEARTBEAT = 20.0
"""Seconds between two renewals of the lease (`leases.LEASE`)."""
POLL = 0.5
"""Seconds between two looks at a job whose rest others do, or which is tried again later."""
WRITE_ATTEMPTS = 4


@dataclass(slots=True)
class _Ready:
    """A parsed document that waits for its batch."""

    item: Claimed
    outcome: Outcome
    parsed: Parsed


class Run:
    """One worker on one job."""

    def __init__(self, service: Service, job_id: str, progress: ProgressCallback | None = None) -> None:
        self.service = service
        self.job_id = job_id
        self.worker = leases.new_worker()
        self.progress = progress
        self.shown = Progress("starting", 0, 0, 0)
        self.looked = 0.0
        self.began = time.perf_counter()
        self.stopped = False
        """The job is to be cancelled, or has ended."""
        self.loading: Future[Any] | None = None
        self.items: dict[int, Claimed] = {}
        self.before: dict[int, int] = {}
        """Item → the version that was live when the file was about to be read; 0: none."""
        with service.database.session() as session:
            job = jobs.get_job(session, job_id)
            self.kb_id = job.kb_id
            self.kb = _get_kb(session, job.kb_id).slug
            self.options = dict(job.options or {})

    # -- the steps -------------------------------------------------------------------------------------

    def work(self, runner: Runner, wait: bool = True) -> None:
        """Does documents until the job has ended; without ``wait``, until none is left to be claimed."""
        with self._heartbeat():
            self.service.indexes.sync(self.kb)
            self._tell("parsing")
            while not self.stopped:
                self._share(runner)
                if self.stopped or self._ended() or not wait:
                    break
                time.sleep(POLL)

    def stop(self, error: str | None = None) -> JobReport:
        """Gives back what is not settled, ends the job where nobody else works on it, and reports.

        With an ``error`` the job fails, unless other workers go on with it.
        """
        self._give_back()
        while True:
            with self.service.database.session(write=True) as session:
                job = jobs.get_job(session, self.job_id)
                leases.reap(session, self.job_id)
                busy = leases.in_work(session, self.job_id)
                if job.state not in jobs.FINISHED and not busy and (job.cancel_requested or error):
                    jobs.finish(session, job, error)
                if error or not job.cancel_requested or job.state in jobs.FINISHED:
                    return report_of(session, job, self.kb)
            time.sleep(POLL)  # others are at their last documents

    def _share(self, runner: Runner) -> None:
        """All documents that can be claimed now."""
        batch: list[_Ready] = []
        with closing(runner.run(self._tasks())) as outcomes:
            for outcome in outcomes:
                if self.stopped:
                    return
                item = self.items[outcome.key]
                if outcome.parsed is None:
                    self._settle(item, outcome)
                    continue
                batch.append(_Ready(item, outcome, outcome.parsed))
                self._tell("chunking", item.path)
                if len(batch) >= FLUSH_DOCUMENTS or sum(len(r.outcome.chunks) for r in batch) >= FLUSH_CHUNKS:
                    self._flush(batch)
                    batch = []
        if batch and not self.stopped:
            self._flush(batch)

    def _tasks(self) -> Iterator[Task]:
        """Claims items as the runner asks for more; unchanged ones are settled on the way."""
        while not self.stopped:
            with self.service.database.session(write=True) as session:
                claimed = leases.claim(session, self.job_id, self.worker, CLAIM)
                live = self._live(session, claimed)
            if not claimed:
                return
            same: list[tuple[Claimed, LiveVersion]] = []
            changed: list[Claimed] = []
            for item in claimed:
                self.items[item.id] = item
                version = live.get(item.path)
                self.before[item.id] = version.id if version else 0
                if version and same_file(jobs.opened_name(item.file), version):
                    same.append((item, version))
                else:
                    changed.append(item)
            if same:
                self._settle_unchanged(same)
            if changed and self.loading is None:  # the embedder loads while documents are parsed
                self.loading = ThreadPoolExecutor(1).submit(lambda: self.service.embedder)
            for item in changed:
                yield Task(item.id, jobs.opened_name(item.file), item.path)

    def _live(self, session: Session, claimed: Sequence[Claimed]) -> dict[str, LiveVersion]:
        from rag.store.documents import live_versions

        return live_versions(session, self.kb_id, [item.path for item in claimed])

    def _settle_unchanged(self, same: list[tuple[Claimed, LiveVersion]]) -> None:
        from rag.store.models import DocumentVersion

        with self.service.database.session(write=True) as session:
            mine = leases.held(session, self.worker, [item.id for item, _ in same])
            for item, live in same:
                if item.id in mine:
                    version = session.get_one(DocumentVersion, live.id)
                    self._keep_for(session, version, item)
                    _unchanged(session, _item(session, item.id), version)
        self._tell("parsing", same[-1][0].path, done=len(mine))

    def _settle(self, item: Claimed, outcome: Outcome) -> None:
        """A document that gave no text."""
        with self.service.database.session(write=True) as session:
            if leases.held(session, self.worker, [item.id]):
                row = _item(session, item.id)
                row.sha256, row.size_bytes = outcome.sha256 or None, outcome.size_bytes or row.size_bytes
                if outcome.status == "failed":
                    jobs.fail(row, outcome.error, outcome.passing)
                else:
                    jobs.settle(row, outcome.status, outcome.error)
        self._tell("parsing", item.path, look=True)

    def _flush(self, batch: list[_Ready]) -> None:
        """Keeps the originals of a batch and embeds it, then writes and publishes it in one transaction."""
        from rag.index.text import index_text

        batch = [ready for ready in batch if self._kept(ready)]
        if not batch:
            return
        with self.service.database.session(write=True) as session:
            jobs.mark(session, [ready.item.id for ready in batch], self.worker, "embedding")
        self._tell("embedding", batch[0].item.path)
        texts = [
            index_text(r.parsed.title, c.heading, r.parsed.text[c.char_start : c.char_end])
            for r in batch
            for c in r.outcome.chunks
        ]
        embedder = self.loading.result() if self.loading else self.service.embedder
        try:
            vectors = embed(embedder, texts)
        except (IndexUnavailable, OSError, RuntimeError) as error:  # a server that does not answer, say
            self._try_again(batch, f"embedding failed: {error}")
            return
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                self._store(batch, texts, vectors)
                break
            except StoreUnavailable as error:  # locked, a deadlock, a connection that broke
                if attempt == WRITE_ATTEMPTS or "full" in str(error):
                    raise
                log.warning("writing to the database, attempt %d: %s", attempt, error)
                time.sleep(2.0**attempt)
        self._tell("indexed", batch[-1].item.path, look=True)

    def _kept(self, ready: _Ready) -> bool:
        """Whether the original is stored (or need not be); a file that changed meanwhile is tried again."""
        try:
            self.service.originals.keep(ready.outcome.sha256, lambda: _original(ready.item))
            return True
        except UserError as error:
            self._try_again([ready], str(error))
            return False

    def _keep_for(self, session: Session, version: DocumentVersion, item: Claimed) -> None:
        with suppress(Conflict, SourceError):  # swept, and changed since: its text is there all the same
            self.service.originals.keep_for(session, version, lambda: _original(item))

    def _try_again(self, batch: list[_Ready], error: str) -> None:
        with self.service.database.session(write=True) as session:
            for item_id in leases.held(session, self.worker, [ready.item.id for ready in batch]):
                jobs.fail(_item(session, item_id), error, passing=True)
        self._tell("embedding", look=True)

    def _store(self, batch: list[_Ready], texts: list[str], vectors: Any) -> None:
        added: list[int] = []
        removed: list[int] = []
        rows: list[int] = []  # of ``texts``, those that are written
        with self.service.database.session(write=True) as session:
            if not self._going(session):
                self.stopped = True  # nothing is written any more
                return
            mine = leases.held(session, self.worker, [ready.item.id for ready in batch])  # the others were taken over
            kb = _get_kb(session, self.kb_id)
            session.refresh(kb, with_for_update=True)  # one writes at a time: near-duplicates see one another
            begin = 0
            for ready in batch:
                end = begin + len(ready.outcome.chunks)
                if ready.item.id in mine and (ids := self._write(session, kb, ready, removed)):
                    added += ids
                    rows += range(begin, end)
                begin = end
            if added or removed:
                add = (added, [texts[row] for row in rows], vectors[rows])
                self.service.indexes.publish(self.kb, add, removed, session)

    def _write(self, session: Session, kb: KnowledgeBase, ready: _Ready, removed: list[int]) -> list[int]:
        """A document's new version and its item's end; the ids of its chunks, none if another worker was faster."""
        from rag.store.documents import NewChunk, NewVersion, live_version, replace_version, version_chunk_ids

        parsed, outcome = ready.parsed, ready.outcome
        item = _item(session, ready.item.id)
        item.sha256, item.size_bytes = outcome.sha256, outcome.size_bytes
        old = live_version(session, kb, ready.item.path)
        if old is not None and (old.sha256, old.sidecar_sha256) == (outcome.sha256, outcome.sidecar_sha256):
            _unchanged(session, item, old)
            return []
        if (old.id if old else 0) != self.before[item.id]:  # another job wrote it since: which bytes are the newer?
            jobs.postpone(item, timedelta(0))
            item.attempts -= 1
            return []
        if old is not None:
            removed += version_chunk_ids(session, old.document)
        new = NewVersion(
            sha256=outcome.sha256,
            media_type=parsed.media_type,
            size_bytes=outcome.size_bytes,
            text=parsed.text,
            pages=parsed.pages,
            fidelity=_fidelity(ready),
            tags=parsed.tags,
            meta=parsed.meta,
            root=ready.item.root,
            sidecar_sha256=outcome.sidecar_sha256,
            signature=bytes.fromhex(outcome.signature) or None,
        )
        chunks = [NewChunk(c.char_start, c.char_end, c.heading, c.page) for c in outcome.chunks]
        document, version, ids = replace_version(session, kb, ready.item.path, parsed.title, new, chunks)
        self._keep_for(session, version, ready.item)
        item.document_id, item.version_id = document.id, version.id
        item.chunks, item.characters = len(ids), len(parsed.text)
        item.fidelity = new.fidelity
        jobs.settle(item, "indexed")
        return ids

    # -- the end ---------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        """Whether the job has ended; ends it where all its documents are settled."""
        from ingest.vanished import delete_vanished, still_there

        with self.service.database.session(write=True) as session:
            leases.reap(session, self.job_id)
            settled = jobs.all_settled(session, self.job_id)
        if not settled:
            return False
        there = still_there(self.options, self.service.settings) if self.options.get("sync") else None
        with self.service.database.session(write=True) as session:
            job = jobs.get_job(session, self.job_id)
            session.refresh(job, with_for_update=True)
            if job.state in jobs.FINISHED:
                return True
            if not jobs.all_settled(session, self.job_id):  # somebody had it tried again
                return False
            if there is not None and not job.cancel_requested:
                job.deleted, removed = delete_vanished(session, job, there)
                if removed:
                    self.service.indexes.publish(self.kb, remove=removed, session=session)
            jobs.finish(session, job)
            job.totals = {**job.totals, "seconds": round(time.perf_counter() - self.began, 3)}
        if there is not None:
            self.service.originals.sweep()
        self._tell("indexed", look=True)
        return True

    def _give_back(self) -> None:
        with self.service.database.session(write=True) as session:
            leases.release(session, self.job_id, self.worker)

    def _going(self, session: Session) -> bool:
        job = jobs.get_job(session, self.job_id)
        return job.state not in jobs.FINISHED and not job.cancel_requested

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keeps the lease while the work goes on, however long one batch may take."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                try:
                    with self.service.database.session(write=True) as session:
                        if not leases.renew(session, self.job_id, self.worker):
                            self.stopped = True
                except StoreUnavailable as error:
                    log.warning("the lease of job %s could not be renewed: %s", self.job_id, error)

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _tell(self, stage: str, path: str = "", done: int = 0, look: bool = False) -> None:
        """Reports progress: as SQL has it where ``look`` or a second has passed, else counted on by ``done``."""
        if self.progress is None:
            return
        if look or time.monotonic() - self.looked > 1:
            self.looked = time.monotonic()
            with self.service.database.session() as session:
                job = jobs.get_job(session, self.job_id)
                counts, speed = jobs.totals(session, job), rates(session, job)
            self.shown = Progress(
                stage,
                counts["documents"] - counts["pending"],
                counts["documents"],
                counts["chunks"],
                path,
                speed["documents_per_s"],
                speed["chunks_per_s"],
                speed["seconds_left"],
            )
        else:
            last = self.shown
            self.shown = Progress(
                stage,
                last.done + done,
                last.total,
                last.chunks,
                path,
                last.documents_per_s,
                last.chunks_per_s,
                last.seconds_left,
            )
        self.progress(self.shown)


def _original(item: Claimed) -> bytes:
    """Raises SourceError where the file cannot be read any more."""
    return read(Path(jobs.opened_name(item.file)))


def _fidelity(ready: _Ready) -> dict[str, Any]:
    """The report on how faithful the extraction is, with the characters that chunks hold."""
    covered = 0
    end = 0
    for chunk in ready.outcome.chunks:  # ascending; they may overlap
        covered += max(0, chunk.char_end - max(end, chunk.char_start))
        end = max(end, chunk.char_end)
    return {
        "garbage_ratio": 0.0,
        "pages_without_text": [],
        **ready.parsed.fidelity,
        "characters": len(ready.parsed.text),
        "characters_indexed": covered,
        "bytes": ready.outcome.size_bytes,
        "seconds": ready.outcome.seconds,
    }


def _unchanged(session: Session, item: JobItem, version: DocumentVersion) -> None:
    from rag.store.documents import version_chunk_ids

    item.document_id, item.version_id = version.document_id, version.id
    item.chunks = len(version_chunk_ids(session, version.document))
    item.sha256, item.size_bytes, item.fidelity = version.sha256, version.size_bytes, version.fidelity
    jobs.settle(item, "skipped", "unchanged: the same bytes are indexed already")


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


def same_file(file: str, version: LiveVersion) -> bool:
    """Whether the file and its side-car are the version's; False where they cannot be read (the parser says why)."""
    digest = hashlib.sha256()
    try:
        if archives.SEPARATOR in file and not Path(file).exists():
            digest.update(read(Path(file)))
        elif Path(file).stat().st_size != version.size_bytes:
            return False
        else:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except (OSError, SourceError):
        return False
    return digest.hexdigest() == version.sha256 and sidecar_sha256(file) == version.sidecar_sha256
