"""Real `chatgglm` processes that start at once: forked from one that has imported everything and loaded the models.

What runs in the fork is the command line itself, on the real store; only the seconds for imports are saved. Run as
a module this is that first process: one JSON request a line on stdin; the child's process id, and when it has ended
its exit code, a line each on stdout.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open"}
"""Audit events of the interpreter at which a process may die; ``open`` counts when writing."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (−9: killed), seconds, what it printed, the steps it took."""

    code: int
    seconds: float
    stdout: str
    stderr: str
    steps: int
    settled: int
    """The most documents that its progress display had called done: what a person saw acknowledged."""

    def json(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Command:
    """One command line with its environment.

    ``die_at``: SIGKILL by itself at that step. ``batch``: documents that an ingestion writes at once. ``seal``: chunks
    from which on index segments are merged in the background. ``file_bytes``: no file may grow beyond (RLIMIT_FSIZE).
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    scratch: Path
    die_at: int = -1
    batch: int = 0
    seal: int = 0
    file_bytes: int = 0


class Zygote:
    """The process that forks. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._read() == {"ready": True}

    def start(self, command: Command) -> int:
        """Forks; the child's process id. `wait` must follow."""
        assert self._process.stdin is not None
        self._command = command
        command.scratch.mkdir(parents=True, exist_ok=True)
        request = {
            "argv": command.argv,
            "environment": command.environment,
            "scratch": str(command.scratch),
            "die_at": command.die_at,
            "batch": command.batch,
            "seal": command.seal,
            "file_bytes": command.file_bytes,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._read()["pid"])

    def wait(self) -> Ended:
        """The end of the child that was started last."""
        done = self._read()
        folder = self._command.scratch
        settled = [int(line) for line in _text(folder / "settled").split()]
        return Ended(
            done["code"], done["seconds"], _text(folder / "stdout"), _text(folder / "stderr"),
            len(_text(folder / "steps")), max(settled, default=0),
        )  # fmt: skip

    def run(self, command: Command, kill_after: float | None = None) -> Ended:
        """Runs a command to its end, or to SIGKILL after so many seconds."""
        child = self.start(command)
        if kill_after is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended before
                handle = os.pidfd_open(child)
                try:
                    time.sleep(kill_after)
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)
        return self.wait()

    def close(self) -> None:
        """Ends the process; a child that still runs ends by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the forking process died; its traceback is on stderr")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


# -- what runs in the first process and in its forks ------------------------------------------------------------------


def _serve() -> None:
    """Imports, then forks for each request. Replies go to a copy of stdout, so that no import disturbs them."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _preload()

    def reply(value: dict[str, Any]) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            _become(request)
        reply({"pid": child})
        _, status = os.waitpid(child, 0)
        reply({"code": os.waitstatus_to_exitcode(status), "seconds": time.perf_counter() - began})


def _preload() -> None:
    import alembic.command
    import faiss
    import rich.progress
    import torch

    import api.cli
    import ingest.pipeline
    import rag.readers
    import rag.retrieve
    from rag.embedders import load_embedder
    from rag.settings import Settings

    torch.set_num_threads(1)
    load_embedder().encode_passages(["预热"])
    reader = rag.readers.load_reader(Settings())
    rag.readers.load_reader = lambda _: reader  # read once, as the embedder is
    assert alembic.command
    assert faiss
    assert rich.progress
    assert api.cli
    assert ingest.pipeline
    assert rag.retrieve


def _become(request: dict[str, Any]) -> None:
    """In the fork: be that command, and never return."""
    code = 1
    try:
        scratch = Path(request["scratch"])
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            target = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, descriptor)
            os.close(target)
        for name in [name for name in os.environ if name.startswith("CHATGGLM_") and "TEST" not in name]:
            del os.environ[name]
        os.environ.update(request["environment"])
        _watch(scratch, request["die_at"])
        if request["batch"]:
            from ingest import work

            work.FLUSH_DOCUMENTS = request["batch"]
        if request["seal"]:
            from rag.index import segments

            segments.OPEN = request["seal"]
        if request["file_bytes"]:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
        from api.cli import main

        sys.argv = ["chatgglm", *request["argv"]]
        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # the merging thread gives up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(scratch: Path, die_at: int) -> None:
    """Counts the steps at which the process may die, dies at the given one, and notes what was acknowledged."""
    from rich.progress import Progress
    from sqlalchemy import Engine, event

    steps = os.open(scratch / "steps", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    settled = os.open(scratch / "settled", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen = 0

    def step() -> None:
        nonlocal seen
        if seen == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        os.write(steps, b".")

    def audit(name: str, arguments: tuple[object, ...]) -> None:
        if name in STEPS and (name != "open" or "r" not in str(arguments[1] or "w")):
            step()

    shown = Progress.update

    def update(self: Any, task: Any, *arguments: Any, **fields: Any) -> None:
        shown(self, task, *arguments, **fields)
        if fields.get("completed") is not None:
            os.write(settled, b"%d\n" % fields["completed"])

    Progress.update = update  # type: ignore[method-assign]
    sys.addaudithook(audit)
    event.listen(Engine, "commit", lambda _: step())
    event.listen(Engine, "after_cursor_execute", lambda *a: step() if a[2][:6] in ("UPDATE", "INSERT") else None)


if __name__ == "__main__":
    _serve()
