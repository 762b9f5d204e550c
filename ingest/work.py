"""How one worker does its share of a job: claim items, skip what is unchanged, parse, embed, write, publish."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gglm.errors import UserError
from ingest import jobs, leases
from ingest.embed import embed, index_texts
from ingest.errors import SourceError
from ingest.leases import Claimed
from ingest.report import JobReport, Progress, ProgressCallback, rates, report_of
from ingest.runners import Outcome, Runner, Task
from ingest.writing import Ready, original, same_file, settle_unchanged, write_document
from rag.errors import Conflict, IndexUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ingest.models import JobItem
    from rag.ports import FloatMatrix
    from rag.service import Service
    from rag.store.documents import LiveVersion
    from rag.store.models import DocumentVersion, KnowledgeBase

log = logging.getLogger(__name__)

CLAIM = 16
"""Items that are claimed at once: few, so that workers share evenly, and not one by one."""
FLUSH_CHUNKS = 512
FLUSH_DOCUMENTS = 128
"""A batch is embedded, written and published when it reaches either."""
SWITCH = 0.0005
"""Seconds that the thread which writes may keep the embedding threads waiting, which need Python for moments only."""
HEARTBEAT = 20.0
"""Seconds between two renewals of the lease (`leases.LEASE`)."""
POLL = 0.5
"""Seconds between two looks at a job whose rest others do, or which is tried again later."""
WRITE_ATTEMPTS = 4
_USUAL_SWITCH = sys.getswitchinterval()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that is being embedded."""

    batch: list[Ready]
    texts: list[str]
    vectors: Future[FloatMatrix]


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
        """All documents that can be claimed now. While a batch is embedded, the one before it is written and
        the one after it is parsed."""
        batch: list[Ready] = []
        pool = ThreadPoolExecutor(1, "embedding")
        try:
            with closing(runner.run(self._tasks())) as outcomes, _quick_switches():
                begun: _Begun | None = None
                for outcome in outcomes:
                    if self.stopped:
                        return
                    item = self.items[outcome.key]
                    if outcome.parsed is None:
                        self._settle(item, outcome)
                        continue
                    batch.append(Ready(item, self.before[item.id], outcome, outcome.parsed))
                    self._tell("chunking", item.path)
                    if len(batch) >= FLUSH_DOCUMENTS or sum(len(r.outcome.chunks) for r in batch) >= FLUSH_CHUNKS:
                        before, begun, batch = begun, self._begin(pool, batch), []
                        self._finish(before)
                for last in (begun, None if self.stopped else self._begin(pool, batch)):
                    self._finish(last)
        finally:
            pool.shutdown(cancel_futures=True)

    def _tasks(self) -> Iterator[Task]:
        """Claims items as the runner asks for more; unchanged ones are settled on the way."""
        while not self.stopped:
            claimed, live = self._patiently(self._claim)
            if not claimed:
                return
            same: list[tuple[Claimed, LiveVersion]] = []
            changed: list[Claimed] = []
            for item in claimed:
                self.items[item.id] = item
                version = live.get(item.path)
                self.before[item.id] = version.id if version else 0
                if version and not self.options.get("force") and same_file(jobs.opened_name(item.file), version):
                    same.append((item, version))
                else:
                    changed.append(item)
            if same:
                self._settle_unchanged(same)
            if changed and self.loading is None:  # the embedder loads while documents are parsed
                self.loading = ThreadPoolExecutor(1).submit(lambda: self.service.embedder)
            for item in changed:
                yield Task(item.id, jobs.opened_name(item.file), item.path)

    def _claim(self, session: Session) -> tuple[list[Claimed], dict[str, LiveVersion]]:
        """Items, and the live versions of those that have one."""
        from rag.store.documents import live_versions

        claimed = leases.claim(session, self.job_id, self.worker, CLAIM)
        return claimed, live_versions(session, self.kb_id, [item.path for item in claimed])

    def _settle_unchanged(self, same: list[tuple[Claimed, LiveVersion]]) -> None:
        from sqlalchemy.orm import defer

        from rag.store.models import DocumentVersion

        def settle(session: Session) -> int:
            mine = leases.held(session, self.worker, [item.id for item, _ in same])
            for item, live in same:
                if item.id in mine:
                    version = session.get_one(DocumentVersion, live.id, options=[defer(DocumentVersion.text)])
                    self._keep_for(session, item, version)
                    settle_unchanged(session, _item(session, item.id), version)
            return len(mine)

        self._tell("parsing", same[-1][0].path, done=self._patiently(settle))

    def _settle(self, item: Claimed, outcome: Outcome) -> None:
        """A document that gave no text."""

        def settle(session: Session) -> None:
            if leases.held(session, self.worker, [item.id]):
                row = _item(session, item.id)
                row.sha256, row.size_bytes = outcome.sha256 or None, outcome.size_bytes or row.size_bytes
                if outcome.status == "failed":
                    jobs.fail(row, outcome.error, outcome.passing)
                else:
                    jobs.settle(row, outcome.status, outcome.error)

        self._patiently(settle)
        self._tell("parsing", item.path, look=True)

    def _begin(self, pool: ThreadPoolExecutor, batch: list[Ready]) -> _Begun | None:
        """Keeps the originals of a batch and has it embedded."""
        batch = [ready for ready in batch if self._kept(ready)]
        if not batch:
            return None
        self._patiently(lambda session: jobs.mark(session, [r.item.id for r in batch], self.worker, "embedding"))
        self._tell("embedding", batch[0].item.path)
        texts = [text for ready in batch for text in index_texts(ready.parsed, ready.outcome.chunks)]
        return _Begun(batch, texts, pool.submit(self._vectors, batch, texts))

    def _finish(self, begun: _Begun | None) -> None:
        """Writes and publishes a batch in one transaction, as soon as it is embedded."""
        if begun is None or self.stopped:
            return
        batch, texts = begun.batch, begun.texts
        try:
            vectors = begun.vectors.result()
        except (IndexUnavailable, OSError, RuntimeError) as error:  # a server that does not answer, say
            self._try_again(batch, f"embedding failed: {error}")
            return
        self._patiently(lambda session: self._store(session, batch, texts, vectors))
        self._tell("indexed", batch[-1].item.path, look=True)

    def _vectors(self, batch: list[Ready], texts: list[str]) -> FloatMatrix:
        """Those of the texts, from the runner where it embeds."""
        import numpy as np

        given = [ready.outcome.vectors for ready in batch if ready.outcome.vectors is not None]
        if len(given) == len(batch):
            return np.concatenate(given)
        return embed(self.loading.result() if self.loading else self.service.embedder, texts)

    def _kept(self, ready: Ready) -> bool:
        """Whether the original is stored (or need not be); a file that changed meanwhile is tried again."""
        try:
            self.service.originals.keep(ready.outcome.sha256, lambda: original(ready.item))
            return True
        except UserError as error:
            self._try_again([ready], str(error))
            return False

    def _keep_for(self, session: Session, item: Claimed, version: DocumentVersion) -> None:
        with suppress(Conflict, SourceError):  # swept, and changed since: its text is there all the same
            self.service.originals.keep_for(session, version, lambda: original(item))

    def _try_again(self, batch: list[Ready], error: str) -> None:
        def fail(session: Session) -> None:
            for item_id in leases.held(session, self.worker, [ready.item.id for ready in batch]):
                jobs.fail(_item(session, item_id), error, passing=True)

        self._patiently(fail)
        self._tell("embedding", look=True)

    def _store(self, session: Session, batch: list[Ready], texts: list[str], vectors: Any) -> None:
        """Writes a batch and publishes it."""
        added: list[int] = []
        removed: list[int] = []
        rows: list[int] = []  # of ``texts``, those that are written
        if not self._going(session):
            self.stopped = True  # nothing is written any more
            return
        mine = leases.held(session, self.worker, [ready.item.id for ready in batch])  # the others were taken over
        kb = _get_kb(session, self.kb_id)
        session.refresh(kb, with_for_update=True)  # one writes at a time: near-duplicates see one another
        begin = 0
        for ready in batch:
            end = begin + len(ready.outcome.chunks)
            if ready.item.id in mine:
                keep = partial(self._keep_for, session, ready.item)
                force = bool(self.options.get("force"))
                ids = write_document(session, kb, _item(session, ready.item.id), ready, removed, keep, force)
                added += ids
                rows += range(begin, end) if ids else ()
            begin = end
        if added or removed:
            add = (added, [texts[row] for row in rows], vectors[rows])
            self.service.indexes.publish(self.kb, add, removed, session)

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
            own = round(time.perf_counter() - self.began, 3)
            if own > job.totals.get("seconds", 0.0) - 1:  # here from the start; SQL has whole seconds
                job.totals = {**job.totals, "seconds": own}
        if there is not None:
            self.service.originals.sweep()
        self._tell("indexed", look=True)
        return True

    def _patiently(self, work: Callable[[Session], T]) -> T:
        """Runs ``work`` in a write transaction; again where the database was locked, or the connection broke."""
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                with self.service.database.session(write=True) as session:
                    return work(session)
            except StoreUnavailable as error:
                if attempt == WRITE_ATTEMPTS or "full" in str(error):
                    raise
                log.warning("writing to the database, attempt %d: %s", attempt, error)
                time.sleep(2.0**attempt)
        raise AssertionError("unreachable")

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


@contextmanager
def _quick_switches() -> Iterator[None]:
    """Of several at once, the first to end gives the others the usual interval: slower, and no harm."""
    sys.setswitchinterval(min(_USUAL_SWITCH, SWITCH))
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_SWITCH)


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
