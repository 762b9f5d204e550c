"""Where parsing runs: processes of this machine (`local`); the pipeline is the same for all."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.types import ChunkSpan, Parsed


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
