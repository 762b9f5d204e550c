"""Where parsing runs: processes of this machine (`local`) or of a Ray cluster (`ray`); the pipeline is the same."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from ingest.limits import Limits
from ingest.types import ChunkSpan, Parsed

if TYPE_CHECKING:
    from rag.ports import FloatMatrix


class RunnerName(StrEnum):
    """Where parsing runs."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Task:
    """One file to parse and cut."""

    key: int
    file: str
    name: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Its result: a parsed document with chunks, or a status with the reason in plain words."""

    key: int
    sha256: str = ""
    size_bytes: int = 0
    parsed: Parsed | None = None
    chunks: tuple[ChunkSpan, ...] = ()
    status: str = "failed"
    error: str = ""
    seconds: float = 0.0
    passing: bool = False
    """Whether the cause of a failure may pass by itself."""
    sidecar_sha256: str | None = None
    signature: str = ""
    """`rag.minhash.signature` in hex digits."""
    vectors: FloatMatrix | None = None
    """Of its chunks, float32 (chunks, dim), where the runner embeds too."""


class Runner(Protocol):
    """Parses and cuts. One outcome a task, in any order; ``tasks`` is read as there is room for more."""

    def run(self, tasks: Iterable[Task]) -> Generator[Outcome, None, None]: ...


def make_runner(name: RunnerName, workers: int, limits: Limits, embedder: str = "") -> Runner:
    """The runner of that name; ``workers`` processes, 0: as many as there are processors for it. One on other machines
    embeds there too, if an ``embedder`` is named."""
    if name is RunnerName.RAY:
        from ingest.runners.ray import RayRunner

        return RayRunner(workers, limits, embedder)
    from ingest.runners.local import LocalRunner

    return LocalRunner(workers, limits)
