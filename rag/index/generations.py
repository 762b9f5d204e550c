"""Index generations: immutable folders of files, made visible by the transaction that records them.

A knowledge base's index lies in ``HOME/indexes/<kb id>/<number>/``. A new generation is written
beside it under a name of its own, fsynced, renamed and recorded in SQL; whoever reads goes by
``kb.generation`` and so sees the old one or the new one, whole. Files that did not change are hard
links to those of the generation before. What a crash leaves behind is in no record: it is ignored,
and swept away by the next publisher. A publish rewrites small segments only; large ones are merged
afterwards, in the background (rag/index/merging.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock
from sqlalchemy import delete, event, select, update
from sqlalchemy.orm import Session

from rag.errors import ChatGGLMError, Conflict, IndexUnavailable
from rag.index import files
from rag.index.folders import MANIFEST, KbIndex, empty, load, sweep, written
from rag.index.merging import Merger, is_due
from rag.index.source import live_chunks, live_ids
from rag.index.stores import vector_stores
from rag.ports import Embedder, FloatMatrix, IdArray
from rag.settings import Settings
from rag.store.kbs import get_kb
from rag.store.models import IndexGeneration, KnowledgeBase

if TYPE_CHECKING:
    from rag.index.verify import VerifyReport
    from rag.store.session import Database

Addition = tuple[Sequence[int], Sequence[str], FloatMatrix]
"""Chunk ids, their index texts, their vectors float32 (n, dim) of unit length."""
Change = Callable[[KbIndex], KbIndex | None]
"""Makes the next generation of the current one; None: nothing is to be done."""
Progress = Callable[[int, int], None]
"""Called with how many chunks are done, and of how many."""

ATTEMPTS = 20
BATCH = 256
"""Chunks that are embedded at once."""


class IndexManager:
    """Opens and publishes the indexes of all knowledge bases. Safe to share between threads.

    ``embedder`` is the one whose vectors are indexed; without it, the one that the settings name.
    """

    def __init__(self, database: Database, settings: Settings, embedder: Embedder | None = None) -> None:
        self.database = database
        self.settings = settings
        self._embedder = embedder
        self._lock = threading.Lock()
        self._opened: dict[int, KbIndex] = {}
        self._merger = Merger(self)
        self.stores = vector_stores(settings)

    @property
    def root(self) -> Path:
        """The folder of all indexes."""
        return self.settings.home / "indexes"

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded on first use.

        Raises:
            InvalidInput: the settings name none that can be loaded.
        """
        if self._embedder is None:
            from rag.embedders import load_embedder

            self._embedder = load_embedder(self.settings.embedder)
        return self._embedder

    @property
    def embedder_id(self) -> str:
        """Which model's vectors these are, known without loading it."""
        if self._embedder is not None:
            return self._embedder.id
        from rag.embedders import embedder_id

        return embedder_id(self.settings.embedder)

    # -- reading ------------------------------------------------------------------------------

    def open(self, kb_slug: str) -> KbIndex:
        """The visible generation, memory-mapped; kept open and exchanged when a newer one is visible.

        Raises:
            NotFound: there is no such knowledge base.
            IndexUnavailable: its files are missing or damaged, or another embedder made it.
        """
        for attempt in range(5):
            with self.database.session() as session:
                kb = get_kb(session, kb_slug)
                kb_id, number = kb.id, kb.generation
            index = self._opened.get(kb_id)
            if index is None or index.generation != number:
                try:
                    with self._lock:
                        index = self._opened.get(kb_id)
                        if index is None or index.generation != number:
                            index = self._opened[kb_id] = self.load(kb_id, number)
                except IndexUnavailable:
                    if attempt < 4 and self._moved(kb_id, number):
                        continue  # replaced and swept away between the two looks
                    raise
            if len(index) and index.embedder != self.embedder_id:
                raise IndexUnavailable(self._other_embedder(kb_slug, index.embedder))
            return index
        raise IndexUnavailable(f"The index of «{kb_slug}» changes too fast to be opened; try again.")

    def opened(self, kb_id: int, number: int) -> KbIndex | None:
        """That generation, if it is the one that is open already and fits the embedder."""
        index = self._opened.get(kb_id)
        if index is None or index.generation != number or index.embedder != self.embedder_id:
            return None
        return index

    def _moved(self, kb_id: int, number: int) -> bool:
        with self.database.session() as session:
            return session.scalar(select(KnowledgeBase.generation).where(KnowledgeBase.id == kb_id)) != number

    def load(self, kb_id: int, number: int) -> KbIndex:
        """Open a generation's files anew; `open` is for reading.

        Raises:
            IndexUnavailable: they are missing or damaged.
        """
        if not number:
            return empty(kb_id, 0, self.embedder_id, self.stores)
        return load(self.root, kb_id, number, self.stores)

    # -- writing ------------------------------------------------------------------------------

    def publish(
        self,
        kb_slug: str,
        add: Addition | None = None,
        remove: Sequence[int] | IdArray = (),
        session: Session | None = None,
    ) -> int:
        """Make a new generation: the current one, plus ``add``, without ``remove``. Returns its number.

        Nothing that is indexed already is embedded or written again. With a ``session`` the new
        number is part of the caller's transaction, so that rows and index become visible in one
        commit; open it with ``database.session(write=True)`` then. Publishers wait for one another,
        readers for nobody.

        Raises:
            NotFound: there is no such knowledge base.
            Conflict: it was indexed with another embedder, or too many publish at the same time.
            IndexUnavailable: the current generation is damaged.
            ValueError: the vectors are not of unit length, or an id is indexed already.
        """
        ids, texts, vectors = add or ((), (), np.zeros((0, 0), dtype=np.float32))

        def change(index: KbIndex) -> KbIndex | None:
            if not len(ids) and not files.member(files.id_array(remove), index.lexical.ids()).any():
                return None
            index = self._appendable(kb_slug, index) if len(ids) else index
            index.vectors.delete(remove)
            index.lexical.delete(remove)
            index.vectors.add(ids, vectors)
            index.lexical.add(ids, texts)
            return index

        return self._publish(kb_slug, change, session)

    def sync(self, kb_slug: str, progress: Progress | None = None) -> int:
        """Bring the index to what SQL says: embed live chunks that it lacks, drop dead ones.

        Heals whatever an interrupted ingestion left. Returns the number of the visible generation.

        Raises:
            NotFound, Conflict, IndexUnavailable: as `publish`.
        """
        with self.database.snapshot() as session:
            kb = get_kb(session, kb_slug)
            kb_id, number = kb.id, kb.generation
            live = live_ids(session, kb_id)
        index = self.load(kb_id, number)
        missing = live[~files.member(live, index.lexical.ids())]
        stale = index.lexical.ids()[~files.member(index.lexical.ids(), live)]
        if not len(missing) and not len(stale):
            return number
        if len(missing):
            self._appendable(kb_slug, index)
        gathered: list[tuple[list[int], list[str], FloatMatrix]] = []
        for ids, texts in self._batches(kb_id, missing):
            gathered.append((ids, texts, self.embedder.encode_passages(texts)))
            if progress:
                progress(sum(len(g[0]) for g in gathered), len(missing))

        def change(index: KbIndex) -> KbIndex | None:
            held = index.lexical.ids()  # another process may have healed the same by now
            new = [
                (i, text, vector)
                for ids, texts, vectors in gathered
                for i, text, vector in zip(ids, texts, vectors, strict=True)
                if not files.member(np.array([i]), held)[0]
            ]
            if not new and not files.member(stale, held).any():
                return None
            index = self._appendable(kb_slug, index) if new else index
            index.vectors.delete(stale)
            index.lexical.delete(stale)
            if new:
                index.vectors.add([i for i, _, _ in new], np.stack([v for _, _, v in new]))
                index.lexical.add([i for i, _, _ in new], [t for _, t, _ in new])
            return index

        return self._publish(kb_slug, change)

    def rebuild(self, kb_slug: str, progress: Progress | None = None) -> int:
        """Make the index again from SQL alone, with the embedder of the settings. Returns the number.

        The old generation serves meanwhile; what is ingested meanwhile is in the new one too.

        Raises:
            NotFound: there is no such knowledge base.
        """
        with self.database.session() as session:
            kb_id = get_kb(session, kb_slug).id
            live = live_ids(session, kb_id)
        fresh = empty(kb_id, 0, self.embedder.id, self.stores)
        done = 0

        def embed(wanted: IdArray, total: int) -> None:
            nonlocal done
            for ids, texts in self._batches(kb_id, wanted):
                fresh.vectors.add(ids, self.embedder.encode_passages(texts))
                fresh.lexical.add(ids, texts)
                done += len(ids)
                if progress:
                    progress(done, max(total, done))

        embed(live, len(live))

        def change(index: KbIndex) -> KbIndex:
            with self.database.session() as session:
                now_live = live_ids(session, kb_id)
            held = fresh.lexical.ids()
            embed(now_live[~files.member(now_live, held)], len(now_live))
            stale = held[~files.member(held, now_live)]
            fresh.vectors.delete(stale)
            fresh.lexical.delete(stale)
            return KbIndex(kb_id, index.generation, fresh.embedder, fresh.vectors, fresh.lexical)

        number = self._publish(kb_slug, change, load=False)
        self.settle(kb_slug)
        return number

    def settle(self, kb_slug: str) -> int:
        """Merge what is due now rather than in the background, for a process that ends soon. Everything
        published can be found all the while. Returns how many merges it took; one that fails is logged."""
        merges = self._merger.settle(kb_slug)
        with suppress(ChatGGLMError):  # the database is busy: another time
            self.database.analyze()
        return merges

    def exchange(self, kb_slug: str, change: Change, session: Session, known: Mapping[str, Any]) -> int:
        """Publish what ``change`` makes of the current index, in the session's transaction; for merges.
        ``known`` are the checksums of files that it links. Returns the number of the visible generation."""
        return self._publish(kb_slug, change, session, known=known)

    def verify(self, kb_slug: str) -> VerifyReport:
        """Prove that rows, vectors, postings and checksums agree.

        Raises:
            NotFound: there is no such knowledge base.
        """
        from rag.index.verify import verify

        return verify(self, kb_slug)

    def drop(self, kb_id: int) -> None:
        """Delete the index files of a knowledge base that is deleted in SQL."""
        with self._lock:
            self._opened.pop(kb_id, None)
        files.remove_folder(self.root / str(kb_id))
        self.stores.drop(kb_id)

    def _batches(self, kb_id: int, wanted: IdArray) -> Iterator[tuple[list[int], list[str]]]:
        """Ids and index texts of the wanted live chunks, `BATCH` at a time."""
        ids: list[int] = []
        texts: list[str] = []
        with self.database.session() as session:
            for chunk_id, text in live_chunks(session, kb_id, wanted):
                ids.append(chunk_id)
                texts.append(text)
                if len(ids) == BATCH:
                    yield ids, texts
                    ids, texts = [], []
        if ids:
            yield ids, texts

    def _publish(
        self,
        kb_slug: str,
        change: Change,
        session: Session | None = None,
        load: bool = True,
        known: Mapping[str, Any] | None = None,
    ) -> int:
        if session is not None:
            kb = self._locked(session, kb_slug)
            index = self._changed(kb.id, kb.generation, change, load)
            if index is None:
                return kb.generation
            with written(self.root, index, known) as folder:
                number = self._record(session, kb.id, kb.generation, folder)
            self._afterwards(session, kb.id, kb_slug if is_due(index) else None)
            return number
        with self.database.session() as reader:
            kb_id = get_kb(reader, kb_slug).id
        with self._one_publisher(kb_id):
            for _ in range(ATTEMPTS):
                with self.database.session() as reader:
                    number = get_kb(reader, kb_slug).generation
                index = self._changed(kb_id, number, change, load)
                if index is None:
                    return number
                with written(self.root, index) as folder, self.database.session(write=True) as writer:
                    kb = self._locked(writer, kb_slug)
                    if kb.id != kb_id or kb.generation != number:
                        continue  # one who publishes within a transaction was faster: again, on top of it
                    number = self._record(writer, kb_id, number, folder)
                self._sweep(kb_id)
                if is_due(index):
                    self._merger.report(kb_slug)
                return number
        raise Conflict(f"Too many processes publish to «{kb_slug}» at the same time; try again.")

    def _changed(self, kb_id: int, number: int, change: Change, load: bool) -> KbIndex | None:
        """What the new generation shall be; loaded anew, because the opened one is being read."""
        if load:
            return change(self.load(kb_id, number))
        return change(empty(kb_id, number, self.embedder_id, self.stores))

    @staticmethod
    def _locked(session: Session, kb_slug: str) -> KnowledgeBase:
        """The knowledge base as it is now, locked against other publishers on PostgreSQL."""
        kb = get_kb(session, kb_slug)
        session.refresh(kb, with_for_update=True)
        return kb

    @contextmanager
    def _one_publisher(self, kb_id: int) -> Iterator[None]:
        """Publishers wait here rather than do work that a faster one makes void; SQL decides anyway."""
        folder = self.root / str(kb_id)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "publish.lock"):
            yield

    def _record(self, session: Session, kb_id: int, number: int, folder: Path) -> int:
        """Rename the folder to its number and record it, in the session's transaction."""
        manifest = files.read_json(folder / MANIFEST)
        target = folder.parent / str(number + 1)
        if target.exists():  # renamed, yet never recorded: a crash
            files.remove_folder(target)
        folder.rename(target)
        files.sync_folder(target.parent)
        values: dict[str, Any] = {"generation": number + 1}
        if manifest["embedder"] == self.embedder_id:
            values["embedder"] = self.settings.embedder
        session.execute(update(KnowledgeBase).where(KnowledgeBase.id == kb_id).values(values))
        session.add(
            IndexGeneration(
                kb_id=kb_id,
                number=number + 1,
                folder=target.relative_to(self.settings.home).as_posix(),
                embedder=manifest["embedder"],
                dim=manifest["dim"],
                chunks=manifest["chunks"],
                checksums={MANIFEST: files.digest(target / MANIFEST)},
            )
        )
        session.flush()
        return number + 1

    def _afterwards(self, session: Session, kb_id: int, due: str | None) -> None:
        """Once the session has committed: sweep up, and report a knowledge base in which a merge is due."""

        def committed(_: Session) -> None:
            with suppress(OSError, ChatGGLMError):  # what stays is swept the next time
                self._sweep(kb_id)
            if due is not None:
                self._merger.report(due)

        event.listen(session, "after_commit", committed, once=True)

    def _sweep(self, kb_id: int) -> None:
        """Delete generations that nobody can be about to open any more, and what crashes left."""
        with self.database.session() as session:
            current = session.scalar(select(KnowledgeBase.generation).where(KnowledgeBase.id == kb_id)) or 0
            kept = sweep(self.root / str(kb_id), current)
            recorded = select(IndexGeneration.id).where(
                IndexGeneration.kb_id == kb_id,
                IndexGeneration.number < current,
                IndexGeneration.number.not_in(kept),
            )
            if gone := session.scalars(recorded).all():
                session.execute(delete(IndexGeneration).where(IndexGeneration.id.in_(gone)))
        with suppress(ChatGGLMError):  # Milvus does not answer now
            self.stores.sweep(kb_id, self.root / str(kb_id))

    def _appendable(self, kb_slug: str, index: KbIndex) -> KbIndex:
        """The index, if our embedder's vectors may be added to it; an empty one takes any.

        Raises:
            Conflict: another embedder made it.
        """
        if not len(index):
            return empty(index.kb_id, index.generation, self.embedder_id, self.stores)
        if index.embedder != self.embedder_id:
            raise Conflict(self._other_embedder(kb_slug, index.embedder))
        return index

    def _other_embedder(self, kb_slug: str, indexed: str) -> str:
        return (
            f"«{kb_slug}» was indexed with the embedder {indexed}, the settings say {self.embedder_id}. "
            f"Run `chatgglm kb rebuild {kb_slug}`, or set CHATGGLM_EMBEDDER back."
        )
