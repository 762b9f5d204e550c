"""Proof that an index equals its database: every row has a vector and postings and the other way round, every file has
the checksum that SQL holds, and the postings of an even sample of chunks are the terms of their text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rag.errors import IndexUnavailable, StoreUnavailable
from rag.index import files
from rag.index.folders import MANIFEST, KbIndex
from rag.index.postings import Segment
from rag.index.source import known_ids, live_chunks, live_ids
from rag.index.terms import Keys, term_keys
from rag.index.vectors import FaissStore
from rag.ports import IdArray
from rag.store.kbs import get_kb
from rag.store.models import Document, IndexGeneration

if TYPE_CHECKING:
    from rag.index.generations import IndexManager

SAMPLE = 2000
"""Chunks, at least (all of them where there are fewer), whose postings are compared with their text."""
_BLOCK = 1 << 22
"""Postings that are looked through at once."""


@dataclass(frozen=True)
class VerifyReport:
    """``problems`` says in words what does not agree; ``counts`` what was compared."""

    ok: bool
    problems: tuple[str, ...]
    counts: dict[str, int]


def verify(manager: IndexManager, kb_slug: str) -> VerifyReport:
    """Compare a knowledge base's visible generation with SQL, without changing anything.

    Tombstoned chunks may still be in the files (search never returns them); they are counted.

    Raises:
        NotFound: there is no such knowledge base.
    """
    with manager.database.snapshot() as session:
        kb = get_kb(session, kb_slug)
        live = live_ids(session, kb.id)
        counts = {
            "generation": kb.generation,
            "documents": session.scalar(
                select(func.count()).where(Document.kb_id == kb.id, Document.deleted_at.is_(None))
            )
            or 0,
            "chunks": len(live),
            "vectors": 0,
            "postings": 0,
            "tombstoned": 0,
            "files": 0,
        }
        problems = _check_originals(manager, session, kb.id)
        if kb.generation == 0:
            if len(live):
                problems.append(f"{len(live)} chunks are stored, yet nothing was ever indexed.")
            return VerifyReport(not problems, tuple(problems), counts)
        folder = manager.root / str(kb.id) / str(kb.generation)
        try:
            if damaged := list(_check_files(session, kb.id, kb.generation, folder, counts)):
                return VerifyReport(False, (*problems, *damaged), counts)  # what damaged files say proves nothing
            index = manager.load(kb.id, kb.generation)
            vectors = index.vectors.ids()
        except IndexUnavailable as error:
            return VerifyReport(False, (*problems, error.message), counts)
        known = known_ids(session, kb.id)
        if not isinstance(index.vectors, FaissStore):  # a server keeps those of interrupted ingestions; none is found
            counts["leftover"] = int((~files.member(vectors, known)).sum())
            vectors = vectors[files.member(vectors, known)]
        for name, ids in (("vectors", vectors), ("postings", index.lexical.ids())):
            counts[name] = len(ids)
            problems += _check_ids(name, ids, live, known)
        counts["tombstoned"] = int((~files.member(index.lexical.ids(), live)).sum())
        problems += _check_vectors(index)
        problems += _check_postings(index, session, live)
    return VerifyReport(not problems, tuple(problems), counts)


def _check_originals(manager: IndexManager, session: Session, kb_id: int) -> list[str]:
    from rag.store.originals import Originals

    try:
        missing = Originals(manager.database, manager.settings).missing(session, kb_id)
    except StoreUnavailable as error:
        return [error.message]
    if not missing:
        return []
    shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
    return [f"The originals of {len(missing)} documents are missing: {shown}. Ingest these files again to keep them."]


def _check_files(session: Session, kb_id: int, number: int, folder: Path, counts: dict[str, int]) -> Iterator[str]:
    record = session.scalar(
        select(IndexGeneration).where(IndexGeneration.kb_id == kb_id, IndexGeneration.number == number)
    )
    if record is None:
        yield f"Generation {number} is visible, yet SQL holds no record of it."
        return
    manifest = files.read_json(folder / MANIFEST)
    if files.digest(folder / MANIFEST) != record.checksums.get(MANIFEST):
        yield f"{MANIFEST} is damaged: its checksum is not the one in SQL."
        return
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing."
        elif files.digest(path) != entry["sha256"]:
            yield f"{name} is damaged: its checksum is not the recorded one."
        counts["files"] += 1


def _check_ids(name: str, ids: IdArray, live: IdArray, known: IdArray) -> Iterator[str]:
    missing = live[~files.member(live, ids)]
    if len(missing):
        yield f"{len(missing)} live chunks are missing from the {name}: {_some(missing)}."
    foreign = ids[~files.member(ids, known)]
    if len(foreign):
        yield f"The {name} hold {len(foreign)} chunks that SQL does not know: {_some(foreign)}."


def _check_vectors(index: KbIndex) -> Iterator[str]:
    for segment in index.vectors.segments:
        yield from segment.problems()


def _check_postings(index: KbIndex, session: Session, live: IdArray) -> Iterator[str]:
    """The files' own order, and for an even sample of chunks that their terms are those of their text, as often."""
    if damaged := [problem for segment in index.lexical.segments for problem in segment.problems()]:
        yield from damaged
        return
    sample = live[:: max(1, len(live) // SAMPLE)]
    indexed = {i: own for segment in index.lexical.segments for i, own in _postings(segment, sample)}
    wrong = []
    for chunk_id, text in live_chunks(session, index.kb_id, sample):
        if chunk_id not in indexed:
            continue  # missing, as `_check_ids` says
        length, keys, often = indexed[chunk_id]
        own = term_keys(text)
        own_keys, own_often = np.unique(own, return_counts=True)
        same = length == len(own) and np.array_equal(keys, own_keys) and np.array_equal(often, own_often.clip(max=255))
        if not same:
            wrong.append(chunk_id)
    if wrong:
        yield f"The postings of {len(wrong)} chunks are not those of their text: {_some(np.array(wrong))}."


def _postings(segment: Segment, wanted: IdArray) -> Iterator[tuple[int, tuple[int, Keys, npt.NDArray[np.uint8]]]]:
    """Of each chunk of the segment that is among ``wanted``: its id, how many terms it has, each of them once in
    ascending order, and how often that is there."""
    chosen = files.member(segment.ids, wanted)
    blocks = range(0, len(segment.docs), _BLOCK)
    found = (np.flatnonzero(chosen[segment.docs[b : b + _BLOCK]]) + b for b in blocks)
    at = np.concatenate([np.zeros(0, dtype=np.int64), *found])
    at = at[np.argsort(segment.docs[at], kind="stable")]  # by document; within one the terms still ascend
    keys = segment.terms[np.searchsorted(segment.starts, at, side="right") - 1]
    numbers = np.flatnonzero(chosen)
    begins = np.searchsorted(segment.docs[at], [*numbers, len(segment)])
    for number, begin, end in zip(numbers.tolist(), begins[:-1], begins[1:], strict=True):
        yield int(segment.ids[number]), (int(segment.lengths[number]), keys[begin:end], segment.freqs[at[begin:end]])


def _some(ids: IdArray) -> str:
    shown = ", ".join(str(i) for i in ids[:5].tolist())
    return shown + (", …" if len(ids) > 5 else "")
