"""What both indexes share: immutable segments, a set of deleted ids, merging, saving by links."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from rag.index import files
from rag.ports import IdArray

LARGEST = 1 << 17
"""Segments of this many chunks are merged no further: it bounds the memory and time of a publish."""
FANOUT = 4
"""Each segment is at least this many times as large as the next: few to search, little rewriting."""
SMALL = 4096
"""Segments up to this size are rewritten as soon as something in them is deleted."""
DEAD_SHARE = 0.2
"""Larger ones, when more than this share of them is deleted."""

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
        held = [s.ids[alive] for s, alive in zip(self._segments, self._alive, strict=True)]
        self._ids = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *held]))

    @property
    def segments(self) -> tuple[S, ...]:
        """The segments, largest first."""
        return tuple(self._segments)

    def ids(self) -> IdArray:
        """The ids of all chunks that can be found, ascending."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def delete(self, ids: Sequence[int] | IdArray) -> None:
        """Take chunks out; ids that are not there are ignored."""
        gone = files.id_array(ids)
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

    def _compact(self) -> None:
        """Drop what is deleted where that is cheap, and merge small segments at the end."""
        segments: list[S] = []
        for segment in self._segments:
            kept = ~files.member(segment.ids, self._dead)
            dead = len(segment) - int(kept.sum())
            if dead == len(segment):
                continue
            if dead and (len(segment) <= SMALL or dead > DEAD_SHARE * len(segment)):
                segment = self._merge([segment], [kept])
            segments.append(segment)
        first = merge_from([len(s) for s in segments])
        if first < len(segments) - 1:
            last = segments[first:]
            segments[first:] = [self._merge(last, [~files.member(s.ids, self._dead) for s in last])]
        self._segments = segments
        held = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *(s.ids for s in segments)]))
        self._dead = self._dead[files.member(self._dead, held)]
        self._refresh()

    def save(self, path: Path) -> None:
        """Write to a new folder; segments that lie on the disk already are linked, not copied."""
        path.mkdir(parents=True)
        self._segments = [segment.save(path) for segment in self._segments]
        files.write_array(path / "dead.npy", self._dead)
        files.write_json(path / self.state_file, {"segments": [s.name for s in self._segments]})
        files.sync_folder(path)
        self._refresh()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Memory-map what `save` wrote.

        Raises:
            IndexUnavailable: a file is missing or damaged.
        """
        state = files.read_json(path / cls.state_file)
        segments = [cls.segment_type.open(path, name) for name in state["segments"]]
        return cls(segments=segments, dead=np.asarray(files.read_array(path / "dead.npy")))


def merge_from(sizes: Sequence[int]) -> int:
    """Index from which the segments at the end should become one."""
    first = max(len(sizes) - 1, 0)
    total = sizes[-1] if sizes else 0
    while first > 0 and sizes[first - 1] < FANOUT * total and sizes[first - 1] + total <= LARGEST:
        first -= 1
        total += sizes[first]
    return first
