"""What one document or archive may cost, and how it is cut. All are settings; each refusal says which one to raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.errors import SourceError

if TYPE_CHECKING:
    from rag.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in MiB. The names of the settings are those of `rag.settings.Settings`."""

    max_document_mb: int = 512
    """A file, a member of an archive, or what an Office file expands to."""
    max_pages: int = 20_000
    max_archive_mb: int = 4096
    """All that an archive expands to, archives within it included."""
    max_archive_files: int = 50_000
    max_archive_depth: int = 3
    """1: an archive within an archive is refused."""
    parse_timeout_s: float = 180.0
    """Seconds that parsing one document may take …"""
    parse_timeout_s_per_mb: float = 60.0
    """… and as many more for each MB of it: long documents on a busy machine are no hang."""
    parse_memory_mb: int = 4096
    """Address space of a parsing process."""
    ocr: bool = True
    """Read pictures, and pages that are nothing else, where the extra is installed."""
    chunk_target: int = 380
    chunk_max: int = 480
    chunk_overlap: int = 0
    """Sizes of chunks in tokens of the generator."""

    @classmethod
    def of(
        cls, settings: Settings, parse_timeout_s: float | None = None, sizes: Mapping[str, int] | None = None
    ) -> Limits:
        """The settings' limits, with another time limit or sizes of chunks if any are given."""
        found = {name: getattr(settings, name) for name in cls.__slots__}
        return cls(**(found | ({"parse_timeout_s": parse_timeout_s} if parse_timeout_s else {}) | dict(sizes or {})))


class TooLarge(SourceError):
    """Beyond a limit; says which one and how to raise it."""

    def __init__(self, what: str, found: int, unit: str, setting: str) -> None:
        limit = getattr(current(), setting)
        super().__init__(
            f"{what} {found} {unit}, more than the limit of {limit}; split it, or raise CHATGGLM_{setting.upper()}"
        )


_DEFAULTS = Limits()
_current: ContextVar[Limits] = ContextVar("limits")


def current() -> Limits:
    """The limits that hold here; the defaults unless someone set others."""
    return _current.get(_DEFAULTS)


def install(limits: Limits) -> None:
    """Makes ``limits`` those of this process (a parsing process calls it once)."""
    _current.set(limits)


@contextmanager
def applied(limits: Limits) -> Iterator[None]:
    """``limits`` hold within the block."""
    token = _current.set(limits)
    try:
        yield
    finally:
        _current.reset(token)


_grant: Callable[[float], None] | None = None


def on_more_time(grant: Callable[[float], None]) -> None:
    """Has ``grant`` called when a parser knows that its document needs more seconds (see `more_time`)."""
    global _grant
    _grant = grant


def more_time(seconds: float) -> None:
    """Asks whoever watches the clock for more: a page to be read by OCR is no hang."""
    if _grant:
        _grant(seconds)


def check_size(size: int, what: str = "the file has") -> None:
    """Raises `TooLarge` for a document of more bytes than the limit."""
    if size > current().max_document_mb << 20:
        raise TooLarge(what, -(-size >> 20), "MiB", "max_document_mb")


def check_pages(count: int) -> None:
    """Raises `TooLarge` for a document of more pages than the limit."""
    if count > current().max_pages:
        raise TooLarge("the file has", count, "pages", "max_pages")
