"""Parsing in processes of this machine, each killable by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from ingest.archives import Member
from ingest.errors import SourceError
from ingest.limits import Limits
from ingest.runners import Outcome, Task
from ingest.runners.worker import restore

_ROOT = Path(__file__).resolve().parents[2]
_BOOT = "import sys; sys.path.insert(0, {root!r}); from ingest.runners.worker import main; main({limits!r})"


class LocalRunner:
    """Runs tasks over ``workers`` processes; outcomes come as they are ready, in any order."""

    def __init__(self, workers: int = 0, limits: Limits | None = None) -> None:
        self.workers = workers or max(1, min(4, os.cpu_count() or 1))
        self.limits = limits or Limits()

    def run(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]:
        """One outcome a task. At most a few results wait for the consumer, so memory stays bounded."""
        todo = iter(tasks)
        lock = threading.Lock()
        done: queue.Queue[Outcome | BaseException | None] = queue.Queue(maxsize=2 * self.workers)
        stop = threading.Event()

        def take() -> Task | None:
            with lock:
                return None if stop.is_set() else next(todo, None)

        workers: list[ParsingProcess] = []

        def serve() -> None:
            worker = ParsingProcess(self.limits)
            workers.append(worker)
            try:
                while (task := take()) is not None:
                    _put(done, worker.run(task), stop)
            except BaseException as error:  # the task iterable's own error belongs to the consumer
                _put(done, error, stop)
            finally:
                worker.close()
                _put(done, None, stop)

        threads = [threading.Thread(target=serve, name=f"parse-{i}", daemon=True) for i in range(self.workers)]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                outcome = done.get()
                if outcome is None:
                    running -= 1
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    yield outcome
        finally:
            stop.set()
            for worker in workers:
                worker.kill()  # nobody waits for what it parses now
            for thread in threads:
                thread.join(timeout=self.limits.parse_timeout_s)


def _put(
    target: queue.Queue[Outcome | BaseException | None],
    item: Outcome | BaseException | None,
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        with contextlib.suppress(queue.Full):
            target.put(item, timeout=0.2)
            return


class _Watchdog:
    """Kills a process that is not done in time."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.process = process
        self.allowed = seconds
        self.late = False
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(max(0.0, self._left())):
            if self._left() <= 0:
                self.late = True
                self.process.kill()
                return

    def _left(self) -> float:
        return self._began + self.allowed - time.monotonic()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


class ParsingProcess:
    """One parsing process, started when first needed and again after it died."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.process: subprocess.Popen[str] | None = None
        self._killed = False

    def run(self, task: Task) -> Outcome:
        """Parses and cuts."""
        answer = self._asked({"file": task.file, "name": task.name}, "parsing")
        parsed, chunks = restore(answer)
        return Outcome(
            task.key,
            answer.get("sha256", ""),
            answer.get("size_bytes", 0),
            parsed,
            chunks,
            answer["status"],
            answer["error"],
            answer.get("seconds", 0.0),
            answer.get("passing", False),
            answer.get("sidecar_sha256"),
            answer.get("signature", ""),
        )

    def members(self, archive: Path) -> list[Member]:
        """`ingest.archives.members`; raises `SourceError`, also where it takes too long or too much memory."""
        answer = self._asked({"archive": str(archive)}, "listing the archive")
        if answer["status"] != "listed":
            raise SourceError(answer["error"])
        return [Member(*member) for member in answer["members"]]

    def _asked(self, request: dict[str, str], what: str) -> dict[str, Any]:
        """The answer to a request, with ``status`` and ``error``."""
        if self._killed:
            return {"status": "failed", "error": f"{what} was stopped", "passing": True}
        process = self._started()
        if self._killed:  # while it was being started, so that `kill` had nothing to end
            process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = _Watchdog(process, self.limits.parse_timeout_s)
        line = ""
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            while (line := process.stdout.readline()).startswith('{"more":'):
                watchdog.allowed += json.loads(line)["more"]
        except (BrokenPipeError, OSError):
            pass
        finally:
            watchdog.close()
        if not line.endswith("\n"):
            self.close()
            if watchdog.late:
                error = f"{what} took longer than {watchdog.allowed:.0f} s and was stopped; "
                return {"status": "failed", "error": error + "split the file, or raise CHATGGLM_PARSE_TIMEOUT_S"}
            return {
                "status": "failed",
                "error": "the parser crashed on this file: it is damaged, or needs more memory than "
                f"CHATGGLM_PARSE_MEMORY_MB allows ({self.limits.parse_memory_mb})",
                "passing": True,  # or the machine was short of memory
            }
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT.format(root=str(_ROOT), limits=dataclasses.asdict(self.limits))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("CHATGGLM_DEBUG") else subprocess.DEVNULL,
                encoding="utf-8",
                errors="surrogatepass",
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
            )
        return self.process

    def kill(self) -> None:
        """Ends the process for good, from any thread; `run` returns then."""
        self._killed = True
        if (process := self.process) is not None:
            process.kill()

    def close(self) -> None:
        if self.process is None:
            return
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process = None
