"""A parsing process: one JSON request a line in, one JSON answer a line out. It also lists archives.

It is a process of its own so that a parser that hangs, eats memory or crashes costs one document
and not the ingestion.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ingest import limits
from ingest.errors import SourceError
from ingest.types import Block, ChunkSpan, Parsed


def work(file: str, name: str) -> dict[str, Any]:
    """Parse and cut one file; the answer is plain JSON. Never raises for a bad file."""
    from ingest.chunk import chunk
    from ingest.formats import parse, read
    from ingest.sidecars import described_by_sidecar
    from rag.minhash import signature

    own = limits.current()
    sizes = own.chunk_target, own.chunk_max, own.chunk_overlap
    answer: dict[str, Any] = {"status": "failed", "error": ""}
    with _answering(answer):
        data = read(Path(file))
        limits.more_time(own.parse_timeout_s_per_mb * len(data) / 1e6)
        answer |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        parsed, answer["sidecar_sha256"] = described_by_sidecar(parse(data, name), file)
        answer["signature"] = (signature(parsed.text) or b"").hex()
        answer["parsed"] = plain(parsed)
        answer["chunks"] = plain_chunks(chunk(parsed, *sizes))
        answer["status"] = "parsed"
    return answer


def members(file: str) -> dict[str, Any]:
    """List one archive; the answer is plain JSON. Never raises for a bad one."""
    from ingest import archives

    answer: dict[str, Any] = {"status": "failed", "error": ""}
    with _answering(answer):
        with contextlib.suppress(OSError):  # if it is gone, the listing says so
            limits.more_time(limits.current().parse_timeout_s_per_mb * os.path.getsize(file) / 1e6)
        answer["members"] = [(member.key, member.path, member.error) for member in archives.members(Path(file))]
        answer["status"] = "listed"
    return answer


@contextlib.contextmanager
def _answering(answer: dict[str, Any]) -> Iterator[None]:
    """Adds the time taken, and why it failed if it did."""
    began = time.perf_counter()
    try:
        yield
    except SourceError as error:
        answer |= {"status": error.status, "error": str(error), "passing": error.passing}
    except MemoryError:
        answer["error"] = (
            "parsing it needs more memory than the limit; split the file, or raise CHATGGLM_PARSE_MEMORY_MB"
        )
    except Exception as error:  # our own mistake: the document is listed, the batch goes on
        answer["error"] = f"unexpected {type(error).__name__}: {error}"[:300]
    answer["seconds"] = round(time.perf_counter() - began, 4)


def plain(parsed: Parsed) -> dict[str, Any]:
    """For JSON; `dataclasses.asdict` would copy each value."""
    own = {name: getattr(parsed, name) for name in Parsed.__slots__}
    return own | {"blocks": [(b.kind, b.start, b.end, b.level, b.header) for b in parsed.blocks]}


def plain_chunks(spans: Iterable[ChunkSpan]) -> list[tuple[int, int, str, int | None]]:
    """For JSON."""
    return [(span.char_start, span.char_end, span.heading, span.page) for span in spans]


def restore(answer: dict[str, Any]) -> tuple[Parsed | None, tuple[ChunkSpan, ...]]:
    """The value objects of an answer."""
    raw = answer.get("parsed")
    if answer["status"] != "parsed" or raw is None:
        return None, ()
    raw["blocks"] = tuple(Block(*block) for block in raw["blocks"])
    for name in ("pages", "tags"):
        raw[name] = tuple(raw[name])
    return Parsed(**raw), tuple(ChunkSpan(*span) for span in answer["chunks"])


def main(given: dict[str, Any] | None = None) -> None:
    """Serve requests from stdin until it closes, within the limits given; parsers may print what they like.

    An answer may be preceded by lines that ask for more seconds: ``{"more": 60.0}``.
    """
    limits.install(limits.Limits(**(given or {})))
    limit_process(limits.current().parse_memory_mb if given else 0)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")  # names may be no UTF-8
    os.dup2(2, 1)

    def write(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer, ensure_ascii=False) + "\n")
        answers.flush()

    limits.on_more_time(lambda seconds: write({"more": seconds}))
    for line in sys.stdin:
        request = json.loads(line)
        write(members(request["archive"]) if "archive" in request else work(request["file"], request["name"]))


def limit_process(memory_mb: int) -> None:
    """Ends this process with its parent, and holds it to ``memory_mb`` of address space (0: any), on Linux."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        import ctypes
        import resource

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphans after kill -9
        if memory_mb:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
