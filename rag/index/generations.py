"""Index generations: immutable folders of files, made visible by the transaction that records them.

A knowledge base's index lies in ``HOME/indexes/<kb id>/<number>/``. A new generation is written
beside it under a name of its own, fsynced, renamed and recorded in SQL; whoever reads goes by
``kb.generation`` and so sees the old one or the new one, whole. Files that did not change are hard
links to those of the generation before. What a crash leaves behind is in no record: it is ignored,
and swept away by the next publisher.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from sqlalchemy import delete, event, select, update
from sqlalchemy.orm import Session

from rag.errors import Conflict, IndexUnavailable
from rag.index import files
from rag.index.lexical import Bm25Index
from rag.index.source import live_chunks, live_ids
from rag.index.vectors import FaissStore
from rag.ports import Embedder, FloatMatrix, IdArray
from rag.settings import Settings
from rag.store.kbs import get_kb
from rag.store.models import IndexGeneration, KnowledgeBase

if TYPE_CHECKING:
    from rag.index.verify import VerifyReport
    from rag.store.session import Database

Addition = tuple[Sequence[int], Sequence[str], FloatMatrix]
"""Chunk ids, their index texts, their vectors float32 (n, dim) of unit length."""
Change = Callable[["KbIndex"], "KbIndex | None"]
"""Makes the next generation of the current one; None: nothing is to be done."""
Progress = Callable[[int, int], None]
"""Called with how many chunks are done, and of how many."""

MANIFEST = "generation.json"
GRACE_SECONDS = 300.0
"""A generation that is no longer current stays this long for those who have just looked up its number."""
ATTEMPTS = 20
BATCH = 256
"""Chunks that are embedded at once."""


@dataclass(frozen=True)
class KbIndex:
    """One open generation. Search as you like from any thread; never change it."""

    kb_id: int
    generation: int
    embedder: str
    vectors: FaissStore = field(repr=False)
    lexical: Bm25Index = field(repr=False)
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.lexical)


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
                            index = self._opened[kb_id] = self._load(kb_id, number)
                except IndexUnavailable:
                    if attempt < 4 and self._moved(kb_id, number):
                        continue  # replaced and swept away between the two looks
                    raise
            if len(index) and index.embedder != self.embedder_id:
                raise IndexUnavailable(self._other_embedder(kb_slug, index.embedder))
            return index
        raise IndexUnavailable(f"The index of «{kb_slug}» changes too fast to be opened; try again.")

    def _moved(self, kb_id: int, number: int) -> bool:
        with self.database.session() as session:
            return session.scalar(select(KnowledgeBase.generation).where(KnowledgeBase.id == kb_id)) != number

    def _load(self, kb_id: int, number: int) -> KbIndex:
        """Open a generation's files anew.

        Raises:
            IndexUnavailable: they are missing or damaged.
        """
        if number == 0:
            return KbIndex(kb_id, 0, self.embedder_id, FaissStore(), Bm25Index())
        folder = self.root / str(kb_id) / str(number)
        manifest = files.read_json(folder / MANIFEST)
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise files.damaged(path, "it is missing or cut short")
        return KbIndex(
            kb_id,
            number,
            manifest["embedder"],
            FaissStore.open(folder / "vectors"),
            Bm25Index.open(folder / "lexical"),
            folder,
        )

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
        index = self._load(kb_id, number)
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
        fresh = KbIndex(kb_id, 0, self.embedder.id, FaissStore(), Bm25Index())
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

        return self._publish(kb_slug, change, load=False)

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
    ) -> int:
        if session is not None:
            kb = self._locked(session, kb_slug)
            index = self._changed(kb.id, kb.generation, change, load)
            if index is None:
                return kb.generation
            with self._written(index) as folder:
                number = self._record(session, kb.id, kb.generation, folder)
            event.listen(session, "after_commit", lambda _: self._sweep(kb.id), once=True)
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
                with self._written(index) as folder, self.database.session(write=True) as writer:
                    kb = self._locked(writer, kb_slug)
                    if kb.id != kb_id or kb.generation != number:
                        continue  # one who publishes within a transaction was faster: again, on top of it
                    number = self._record(writer, kb_id, number, folder)
                self._sweep(kb_id)
                return number
        raise Conflict(f"Too many processes publish to «{kb_slug}» at the same time; try again.")

    def _changed(self, kb_id: int, number: int, change: Change, load: bool) -> KbIndex | None:
        """What the new generation shall be; loaded anew, because the opened one is being read."""
        if load:
            return change(self._load(kb_id, number))
        return change(KbIndex(kb_id, number, self.embedder_id, FaissStore(), Bm25Index()))

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

    @contextmanager
    def _written(self, index: KbIndex) -> Iterator[Path]:
        """The generation's files in a folder under a passing name, on the disk; gone afterwards
        unless renamed. Its lock tells other processes that somebody still works on it."""
        parent = self.root / str(index.kb_id)
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / f"new-{uuid.uuid4().hex[:12]}"
        lock = folder.with_suffix(".lock")
        with ExitStack() as stack:
            stack.callback(lock.unlink, missing_ok=True)
            stack.enter_context(FileLock(lock))
            stack.callback(files.remove_folder, folder)
            folder.mkdir()
            known: dict[str, Any] = {}
            if index.generation:
                before = files.read_json_or_none(parent / str(index.generation) / MANIFEST)
                known = before["files"] if before else {}
            index.vectors.save(folder / "vectors")
            index.lexical.save(folder / "lexical")
            files.write_json(
                folder / MANIFEST,
                {
                    "format": 1,
                    "kb": index.kb_id,
                    "embedder": index.embedder,
                    "dim": index.vectors.dim,
                    "chunks": len(index),
                    "files": _checksums(folder, known),
                },
            )
            files.sync_folder(folder)
            yield folder

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

    def _sweep(self, kb_id: int) -> None:
        """Delete generations that nobody can be about to open any more, and what crashes left."""
        parent = self.root / str(kb_id)
        for stem in {path.stem for path in parent.glob("new-*")}:
            with suppress(Timeout), FileLock(parent / f"{stem}.lock", timeout=0):  # held: somebody writes it
                files.remove_folder(parent / stem)
                (parent / f"{stem}.lock").unlink(missing_ok=True)
        with self.database.session() as session:
            current = session.scalar(select(KnowledgeBase.generation).where(KnowledgeBase.id == kb_id)) or 0
            for folder in list(parent.iterdir()):
                if folder.name.isdecimal() and int(folder.name) < current:
                    superseded = parent / str(int(folder.name) + 1) / MANIFEST
                    since = (superseded if superseded.exists() else folder).stat().st_mtime
                    if time.time() - since > GRACE_SECONDS:
                        files.remove_folder(folder)
            kept = [int(folder.name) for folder in parent.iterdir() if folder.name.isdecimal()]
            session.execute(
                delete(IndexGeneration).where(
                    IndexGeneration.kb_id == kb_id,
                    IndexGeneration.number < current,
                    IndexGeneration.number.not_in(kept),
                )
            )

    def _appendable(self, kb_slug: str, index: KbIndex) -> KbIndex:
        """The index, if our embedder's vectors may be added to it; an empty one takes any.

        Raises:
            Conflict: another embedder made it.
        """
        if not len(index):
            return KbIndex(index.kb_id, index.generation, self.embedder_id, FaissStore(), Bm25Index())
        if index.embedder != self.embedder_id:
            raise Conflict(self._other_embedder(kb_slug, index.embedder))
        return index

    def _other_embedder(self, kb_slug: str, indexed: str) -> str:
        return (
            f"«{kb_slug}» was indexed with the embedder {indexed}, the settings say {self.embedder_id}. "
            f"Run `chatgglm kb rebuild {kb_slug}`, or set CHATGGLM_EMBEDDER back."
        )


def _checksums(folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """SHA-256 and size of each file; segment files that were there before are taken as known."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            size = path.stat().st_size
            entry = known.get(name)
            if entry and entry["bytes"] == size and path.stat().st_nlink > 1:
                found[name] = entry
            else:
                found[name] = {"bytes": size, "sha256": files.digest(path)}
    return found
