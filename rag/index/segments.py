"""What both indexes share: immutable segments, a set of deleted ids, merging, saving by links.

Small segments are *open*: whoever publishes merges them with one another and rewrites them when
something in them is deleted, which takes milliseconds. From `OPEN` chunks on a segment is *sealed*:
a publish links its files and masks what is deleted in it; only a merge in the background
(rag/index/merging.py) replaces it, as a whole, together with its neighbours in size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from rag.index import files
from rag.ports import IdArray

OPEN = 2048
"""Segments of fewer chunks are open, the others sealed."""
FANOUT = 4
"""Each segment is at least this many times as large as the next: few to search, little rewriting."""
DEAD_SHARE = 0.2
"""A sealed segment is rewritten when more than this share of it is deleted."""

Mask = npt.NDArray[np.bool_]


class Segment(Protocol):
    """Chunks that are indexed together; never changed, only replaced."""

    @property
    def ids(self) -> IdArray: ...

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def save(self, folder: Path) -> Self: ...

    @classmethod
    def open(cls, folder: Path, name: str) -> Self: ...


S = TypeVar("S", bound=Segment)


class Segmented(Generic[S]):
    """An index in segments. Reading is safe from several threads; change it from one only."""

    state_file: ClassVar[str]
    segment_type: ClassVar[type[Any]]
    largest: ClassVar[int]
    """Segments are merged up to this many chunks; it bounds the memory and time of a merge."""

    def __init__(self, segments: Sequence[S] = (), dead: IdArray | None = None) -> None:
        self._segments: list[S] = list(segments)
        self._dead = np.zeros(0, dtype=np.int64) if dead is None else dead
        self._refresh()

    @abstractmethod
    def _merge(self, segments: Sequence[S], kept: Sequence[Mask]) -> S:
        """One segment of several, without the chunks whose ``kept`` is False."""

    def _refresh(self) -> None:
        """Work out again what depends on the segments."""
        self._alive = [~files.member(s.ids, self._dead) for s in self._segments]
        self._ids: IdArray | None = None

    @property
    def segments(self) -> tuple[S, ...]:
        """The segments, in the order in which they are searched: large ones first."""
        return tuple(self._segments)

    def ids(self) -> IdArray:
        """The ids of all chunks that can be found, ascending."""
        if self._ids is None:
            held = [s.ids[alive] for s, alive in zip(self._segments, self._alive, strict=True)]
            self._ids = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *held]))
        return self._ids

    def __len__(self) -> int:
        return sum(int(alive.sum()) for alive in self._alive)

    def delete(self, ids: Sequence[int] | IdArray) -> None:
        """Take chunks out; ids that are not there are ignored."""
        gone = files.id_array(ids)
        if len(gone):
            self._dead = np.union1d(self._dead, gone)
            self._compact()

    def _check_new(self, ids: Sequence[int] | IdArray, count: int) -> None:
        """Raises ValueError unless there are ``count`` ids that were never used."""
        if len(ids) != count:
            raise ValueError(f"{len(ids)} ids for {count} chunks")
        new = files.id_array(ids)
        if len(new) != len(ids) or any(files.member(s.ids, new).any() for s in self._segments):
            raise ValueError("a chunk id can be indexed only once")

    def _masks(self, allowed: IdArray | None, excluded: IdArray | None) -> list[Mask]:
        """Which chunks of each segment may be found."""
        masks = self._alive
        if allowed is not None:
            wanted = files.id_array(allowed)
            masks = [m & files.member(s.ids, wanted) for m, s in zip(masks, self._segments, strict=True)]
        if excluded is not None:
            unwanted = files.id_array(excluded)
            masks = [m & ~files.member(s.ids, unwanted) for m, s in zip(masks, self._segments, strict=True)]
        return masks

    # -- within a publish -----------------------------------------------------------------------

    def _compact(self) -> None:
        """Drop what is wholly deleted, rewrite and merge what is open."""
        sealed: list[S] = []
        opened: list[S] = []
        for segment in self._segments:
            kept = ~files.member(segment.ids, self._dead)
            if not kept.any():
                continue
            if len(segment) >= OPEN:
                sealed.append(segment)
            else:
                opened.append(segment if kept.all() else self._merge([segment], [kept]))
        first = merge_from([len(s) for s in opened], self.largest)
        if first < len(opened) - 1:
            last = opened[first:]
            opened[first:] = [self._merge(last, [np.ones(len(s), dtype=bool) for s in last])]
        self._segments = sealed + opened
        self._forget_dead()

    def _forget_dead(self) -> None:
        """Keep those tombstones only that still mask something."""
        held = [s.ids[files.member(s.ids, self._dead)] for s in self._segments] if len(self._dead) else []
        self._dead = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *held]))
        self._refresh()

    # -- in the background ----------------------------------------------------------------------

    def due(self) -> tuple[str, ...]:
        """Names of the sealed segments that should become one new one; empty: none should."""
        pairs = [(s, int(a.sum())) for s, a in zip(self._segments, self._alive, strict=True) if len(s) >= OPEN]
        first = merge_from([alive for _, alive in pairs], self.largest)
        if first < len(pairs) - 1:
            return tuple(s.name for s, _ in pairs[first:])
        for segment, alive in pairs:
            if alive < (1 - DEAD_SHARE) * len(segment):
                return (segment.name,)
        return ()

    def merged(self, names: Collection[str]) -> S:
        """One segment, in memory, of those named, without what is deleted in them."""
        return self._merge(*self._chosen(names))

    def _chosen(self, names: Collection[str]) -> tuple[list[S], list[Mask]]:
        pairs = [(s, a) for s, a in zip(self._segments, self._alive, strict=True) if s.name in names]
        return [s for s, _ in pairs], [a for _, a in pairs]

    def replace(self, names: Collection[str], merged: S) -> bool:
        """Put ``merged`` where the segments were that it was made of. What was deleted from them
        meanwhile is masked in it.

        False, and nothing is changed: others hold its chunks by now, as after a rebuild.
        """
        at = [i for i, s in enumerate(self._segments) if s.name in names]
        rest = [s for s in self._segments if s.name not in names]
        ids = np.sort(merged.ids)
        if not at or any(files.member(s.ids, ids).any() for s in rest):
            return False
        self._dead = np.union1d(self._dead, ids[~files.member(ids, self.ids())])
        rest.insert(at[0], merged)
        self._segments = [s for s in rest if len(s)]
        self._forget_dead()
        return True

    # -- files ----------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write to a new folder; segments that lie on the disk already are linked, not copied."""
        path.mkdir(parents=True)
        self._segments = [segment.save(path) for segment in self._segments]
        files.write_array(path / "dead.npy", self._dead)
        files.write_json(path / self.state_file, {"segments": [s.name for s in self._segments]})
        files.sync_folder(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Memory-map what `save` wrote.

        Raises:
            IndexUnavailable: a file is missing or damaged.
        """
        state = files.read_json(path / cls.state_file)
        segments = [cls.segment_type.open(path, name) for name in state["segments"]]
        return cls(segments=segments, dead=np.asarray(files.read_array(path / "dead.npy")))


def merge_from(sizes: Sequence[int], largest: int) -> int:
    """Index from which the segments at the end should become one, of at most ``largest`` chunks."""
    first = max(len(sizes) - 1, 0)
    total = sizes[-1] if sizes else 0
    while first > 0 and sizes[first - 1] < FANOUT * total and sizes[first - 1] + total <= largest:
        first -= 1
        total += sizes[first]
    return first
