"""What changes in the watched folders, collected in a thread from the start on."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from gglm.errors import UserError
from ingest.sidecars import described, is_sidecar

QUIET_MS = 1000
"""A change is told when no other has come for so long …"""
LONGEST_MS = 10_000
"""… or when the first one is so old: a folder that never rests is no reason to wait for ever."""


class Watcher:
    """Watches while it is open, a context manager. A file named by itself is watched through its folder, because
    editors replace files.

    Raises:
        UserError: a path is not there.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._folders: set[Path] = set()
        self._single: set[Path] = set()
        for given in paths:
            path = Path(os.path.abspath(given))
            if not path.exists():
                raise UserError(f"{given} cannot be watched: there is no such file or folder.")
            (self._folders if path.is_dir() else self._single).add(path)
        self._changed: queue.Queue[set[Path] | BaseException] = queue.Queue()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(10)

    def changes(self) -> Iterator[set[Path]]:
        """Files and folders that were written, moved or deleted since, batch by batch; waits for each."""
        while True:
            batch = self._next()
            while not self._changed.empty():
                batch |= self._next()
            yield batch

    def _next(self) -> set[Path]:
        found = self._changed.get()
        if isinstance(found, BaseException):
            raise UserError(f"The folders cannot be watched any more: {found}") from found
        return found

    def _watch(self) -> None:
        from watchfiles import watch

        tops = self._folders | {path.parent for path in self._single}
        try:
            batches = watch(
                *tops,
                watch_filter=lambda _, name: self._wanted(_document(name)),
                debounce=LONGEST_MS,
                step=QUIET_MS,
                rust_timeout=500,  # how soon it sees that it shall end
                stop_event=self._end,
            )
            for batch in batches:
                self._changed.put({_document(name) for _, name in batch})
        except Exception as error:  # for whoever waits
            self._changed.put(error)

    def _wanted(self, path: Path) -> bool:
        return path in self._single or any(folder in path.parents for folder in self._folders)


def _document(name: str) -> Path:
    """The file, or the document that a side-car describes."""
    return Path(described(name) if is_sidecar(name) else name)
