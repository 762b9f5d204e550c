"""One immutable segment of the lexical index: postings in compressed sparse rows, memory-mapped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.index import files
from rag.index.terms import Keys, term_keys
from rag.ports import IdArray

_BLOCK = 1 << 22
"""Postings that a merge handles at once."""


@dataclass(frozen=True, eq=False)
class Segment:
    """The postings of n chunks; row r belongs to the term ``terms[r]`` and is
    ``starts[r]:starts[r + 1]`` of ``docs`` and ``freqs``."""

    ids: IdArray
    """Chunk id of each document number, int64 (n,)."""
    lengths: npt.NDArray[np.int32]
    """Terms in each document, (n,)."""
    terms: Keys
    """Term keys, ascending, uint64 (v,)."""
    starts: npt.NDArray[np.int64]
    """(v + 1,)."""
    peaks: npt.NDArray[np.uint8]
    """Highest frequency in each row, (v,); bounds what a row can add to a score."""
    docs: npt.NDArray[np.uint32]
    """Document numbers, ascending within a row, (p,)."""
    freqs: npt.NDArray[np.uint8]
    """How often the term occurs in the document, at most 255, (p,)."""
    name: str = ""
    folder: Path | None = None
    """Where its files lie; None: in memory only."""

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, keys: Keys) -> npt.NDArray[np.int64]:
        """Row of each key, −1 where the term does not occur."""
        if not len(self.terms):
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.searchsorted(self.terms, keys)
        at[at == len(self.terms)] = 0
        return np.where(self.terms[at] == keys, at, -1)

    def problems(self) -> Iterator[str]:
        """What is wrong with the arrays themselves, in words."""
        if len(self.terms) > 1 and not np.all(self.terms[1:] > self.terms[:-1]):
            yield f"Segment {self.name}: the terms are not in order."
        if int(self.starts[0]) != 0 or np.any(np.diff(self.starts) < 1):
            yield f"Segment {self.name}: the rows are not in order."
        elif len(self.docs):
            if int(self.docs.max()) >= len(self.ids):
                yield f"Segment {self.name}: a posting points beyond the documents."
                return
            rising = np.diff(self.docs.astype(np.int64)) > 0
            rising[self.starts[1:-1] - 1] = True  # from one row to the next
            if not rising.all():
                yield f"Segment {self.name}: the documents of a row are not in order."
            counted = np.bincount(self.docs, weights=self.freqs, minlength=len(self.ids))
            if np.any(counted > self.lengths) or (self.freqs.max() < 255 and np.any(counted != self.lengths)):
                yield f"Segment {self.name}: frequencies and lengths do not agree."

    def save(self, folder: Path) -> Segment:
        """Its files in ``folder``: linked if it has some already, else written. Returns it from there."""
        for name in ARRAYS:
            target = folder / f"{self.name}.{name}.npy"
            if not files.link(self.folder, target):
                files.write_array(target, getattr(self, name))
        return Segment.open(folder, self.name)

    @classmethod
    def open(cls, folder: Path, name: str) -> Segment:
        """Memory-map a segment.

        Raises:
            IndexUnavailable: a file is missing, damaged, or does not fit the others.
        """
        arrays: dict[str, Any] = {a: files.read_array(folder / f"{name}.{a}.npy") for a in ARRAYS}
        segment = cls(**arrays, name=name, folder=folder)
        wrong = [a for a, dtype in DTYPES.items() if arrays[a].dtype != dtype or arrays[a].ndim != 1]
        if (
            wrong
            or len(segment.lengths) != len(segment.ids)
            or len(segment.starts) != len(segment.terms) + 1
            or len(segment.peaks) != len(segment.terms)
            or len(segment.docs) != len(segment.freqs)
            or int(segment.starts[-1]) != len(segment.docs)
        ):
            raise files.damaged(folder / f"{name}.starts.npy", "its arrays do not fit together")
        return segment


DTYPES = {"ids": "<i8", "lengths": "<i4", "terms": "<u8", "starts": "<i8", "peaks": "u1", "docs": "<u4", "freqs": "u1"}
ARRAYS = tuple(f.name for f in fields(Segment) if f.name in DTYPES)


def build(ids: Sequence[int] | IdArray, texts: Sequence[str]) -> Segment:
    """A segment of texts, in memory."""
    terms: list[Keys] = []
    counts: list[npt.NDArray[np.uint8]] = []
    lengths = np.zeros(len(texts), dtype=np.int32)
    for number, text in enumerate(texts):
        keys = term_keys(text)
        found, often = np.unique(keys, return_counts=True)
        terms.append(found)
        counts.append(np.minimum(often, 255).astype(np.uint8))
        lengths[number] = len(keys)
    docs = np.repeat(np.arange(len(texts), dtype=np.uint32), [len(t) for t in terms])
    flat = np.concatenate(terms) if terms else np.zeros(0, dtype=np.uint64)
    freqs = np.concatenate(counts) if counts else np.zeros(0, dtype=np.uint8)
    order = np.argsort(flat, kind="stable")
    flat = flat[order]
    first = np.flatnonzero(np.concatenate([np.ones(min(len(flat), 1), dtype=bool), flat[1:] != flat[:-1]]))
    sizes = np.diff(np.append(first, len(flat)))
    return _segment(np.asarray(ids, dtype=np.int64), lengths, flat[first], sizes, docs[order], freqs[order])


def merge(segments: Sequence[Segment], kept: Sequence[npt.NDArray[np.bool_]]) -> Segment:
    """One segment of several, in memory, without the documents whose ``kept`` is False."""
    vocabulary = np.unique(np.concatenate([s.terms for s in segments]))
    sizes = np.zeros(len(vocabulary), dtype=np.int64)
    for segment, keep in zip(segments, kept, strict=True):
        for first, last, part in _blocks(segment):
            live = keep[segment.docs[part]]
            sizes[np.searchsorted(vocabulary, segment.terms[first:last])] += _row_sums(segment, first, last, live)
    vocabulary, sizes = vocabulary[sizes > 0], sizes[sizes > 0]
    free = np.concatenate([[0], np.cumsum(sizes)])  # next free place of each row
    docs = np.empty(int(free[-1]), dtype=np.uint32)
    freqs = np.empty(len(docs), dtype=np.uint8)
    base = 0
    for segment, keep in zip(segments, kept, strict=True):
        renumbered = (np.cumsum(keep) - 1 + base).astype(np.uint32)
        for first, last, part in _blocks(segment):
            old = np.asarray(segment.docs[part])
            live = keep[old]
            counts = _row_sums(segment, first, last, live)
            some = counts > 0
            target = np.searchsorted(vocabulary, segment.terms[first:last][some])
            counts = counts[some]
            place = np.repeat(free[target] - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
            docs[place] = renumbered[old[live]]
            freqs[place] = segment.freqs[part][live]
            free[target] += counts
        base += int(keep.sum())
    ids = np.concatenate([s.ids[k] for s, k in zip(segments, kept, strict=True)])
    lengths = np.concatenate([s.lengths[k] for s, k in zip(segments, kept, strict=True)])
    return _segment(ids, lengths, vocabulary, sizes, docs, freqs)


def _blocks(segment: Segment) -> Iterator[tuple[int, int, slice]]:
    """Runs of whole rows, first to last, with the slice of their postings."""
    starts = np.asarray(segment.starts)
    first = 0
    while first < len(segment.terms):
        last = int(np.searchsorted(starts, starts[first] + _BLOCK, side="right")) - 1
        last = min(max(last, first + 1), len(segment.terms))
        yield first, last, slice(int(starts[first]), int(starts[last]))
        first = last


def _row_sums(segment: Segment, first: int, last: int, live: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many postings of each row are live; no row is empty."""
    sums: npt.NDArray[np.int64] = np.add.reduceat(
        live, segment.starts[first:last] - segment.starts[first], dtype=np.int64
    )
    return sums


def _segment(
    ids: IdArray, lengths: Any, vocabulary: Keys, sizes: npt.NDArray[np.int64], docs: Any, freqs: Any
) -> Segment:
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)])
    peaks = np.maximum.reduceat(freqs, starts[:-1]) if len(vocabulary) else np.zeros(0, dtype=np.uint8)
    return Segment(ids, lengths, vocabulary, starts, peaks, docs, freqs, name=uuid.uuid4().hex[:16])
