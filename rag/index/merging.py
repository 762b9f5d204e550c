"""Merging sealed segments in the background.

A merge reads the immutable segments of one generation and writes the new segment into a folder
under a passing name, without any lock that readers or publishers know of. Only the exchange is a
publish: it links files, and masks in the new segment whatever was deleted meanwhile. A crash leaves
a folder that the next publisher sweeps away, and the segments as they were.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from rag.errors import ChatGGLMError
from rag.index import kinds
from rag.index.folders import KbIndex, checksums, passing
from rag.index.kinds import Sizes
from rag.index.vectors import FaissStore
from rag.store.kbs import get_kb

if TYPE_CHECKING:
    from rag.index.generations import IndexManager

log = logging.getLogger(__name__)
GIVE_UP = 3
"""Times in a row that a merge may come too late because others replaced its segments."""


def is_due(index: KbIndex) -> bool:
    """Whether something should be merged."""
    return bool(index.lexical.due() or index.vectors.due())


def merge(manager: IndexManager, kb_slug: str, stop: Callable[[], bool] = kinds.never, wait: bool = True) -> int:
    """Merge until nothing is due. Returns how many merges were published.

    Two processes never merge the same knowledge base at once; without ``wait``, nothing is done while
    another one does.

    Raises:
        NotFound, IndexUnavailable: as `IndexManager.publish`.
    """
    with manager.database.session() as session:
        kb_id = get_kb(session, kb_slug).id
    folder = manager.root / str(kb_id)
    folder.mkdir(parents=True, exist_ok=True)
    done = late = 0
    try:
        with FileLock(folder / "merge.lock", timeout=-1 if wait else 0):
            while late < GIVE_UP and not stop():
                outcome = _merge_once(manager, kb_slug, stop)
                if outcome is None:
                    break
                done, late = (done + 1, 0) if outcome else (done, late + 1)
    except (Timeout, kinds.Stopped):
        pass
    return done


def _merge_once(manager: IndexManager, kb_slug: str, stop: Callable[[], bool]) -> bool | None:
    """Whether a merge was published; None: nothing is due."""
    with manager.database.session() as session:
        kb = get_kb(session, kb_slug)
        kb_id, number = kb.id, kb.generation
    index = manager.load(kb_id, number)
    postings, vectors = index.lexical.due(), index.vectors.due()
    if not postings and not vectors:
        return None
    sizes = Sizes(manager.settings.hnsw_from, manager.settings.ivf_from)
    with passing(manager.root, kb_id) as folder:
        for part in ("lexical", "vectors"):
            (folder / part).mkdir()
        new_postings = index.lexical.merged(postings).save(folder / "lexical") if postings else None
        new_vectors = None
        if vectors:
            assert isinstance(index.vectors, FaissStore)  # others merge by themselves
            new_vectors = index.vectors.merged(vectors, sizes, stop).save(folder / "vectors")
        del index

        def change(current: KbIndex) -> KbIndex | None:
            done = [current.lexical.replace(postings, new_postings)] if new_postings is not None else []
            if new_vectors is not None:
                assert isinstance(current.vectors, FaissStore)
                done.append(current.vectors.replace(vectors, new_vectors))
            return current if all(done) else None

        known = checksums(folder, {})
        with manager.database.session(write=True) as session:
            number = get_kb(session, kb_slug).generation
            return manager.exchange(kb_slug, change, session, known) > number


class Merger:
    """A thread that merges what publishers report as due; it ends when there is nothing to do."""

    def __init__(self, manager: IndexManager) -> None:
        self._manager = manager
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def report(self, kb_slug: str) -> None:
        """Something is due in this knowledge base; returns at once."""
        with self._lock:
            if self._stopped.is_set():
                return
            if kb_slug not in self._waiting:
                self._waiting.append(kb_slug)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="merge", daemon=True)
                self._thread.start()
                atexit.register(self.stop)

    def settle(self, kb_slug: str) -> int:
        """Merge now, in this thread, until nothing is due. Returns how many merges it took. One that
        fails is logged: nothing is lost, and the next publish reports it again."""
        return self._tried(kb_slug, wait=True)

    def stop(self) -> None:
        """Give up what is being merged, and wait for the thread to end. The next publish takes it up again."""
        self._stopped.set()
        if thread := self._thread:
            thread.join(timeout=30)

    def _work(self) -> None:
        kinds.faiss().omp_set_num_threads(1)  # of this thread; the others are for answers
        while True:
            with self._lock:
                if not self._waiting or self._stopped.is_set():
                    self._thread = None
                    atexit.unregister(self.stop)
                    return
                kb_slug = self._waiting.pop(0)
            self._tried(kb_slug, wait=False)

    def _tried(self, kb_slug: str, wait: bool) -> int:
        try:
            return merge(self._manager, kb_slug, self._stopped.is_set, wait)
        except (ChatGGLMError, OSError) as error:  # a deleted knowledge base, a full disk
            log.warning("the index of %s could not be merged: %s", kb_slug, error)
            return 0
