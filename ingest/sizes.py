"""How large chunks are: what was asked for, else what the knowledge base has, else the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from rag.errors import InvalidInput
from rag.settings import CHUNK_LEAST, CHUNK_MOST

if TYPE_CHECKING:
    from rag.settings import Settings


@dataclass(frozen=True, slots=True)
class ChunkSizes:
    """In tokens of the generator. Raises InvalidInput for sizes that make no sense."""

    chunk_target: int
    chunk_max: int
    chunk_overlap: int

    def __post_init__(self) -> None:
        if not CHUNK_LEAST <= self.chunk_max <= CHUNK_MOST:
            raise InvalidInput(f"The maximum chunk size {self.chunk_max} must lie within {CHUNK_LEAST}…{CHUNK_MOST}.")
        if not CHUNK_LEAST <= self.chunk_target <= self.chunk_max:
            raise InvalidInput(
                f"The target chunk size {self.chunk_target} must lie within {CHUNK_LEAST}…{self.chunk_max}, "
                "the maximum; change both together."
            )
        if not 0 <= self.chunk_overlap <= self.chunk_target // 2:
            raise InvalidInput(
                f"The chunk overlap {self.chunk_overlap} must lie within 0…{self.chunk_target // 2}, half the target."
            )

    def to_dict(self) -> dict[str, int]:
        """As it is stored with a knowledge base."""
        return asdict(self)


def chunk_sizes(
    settings: Settings, stored: Mapping[str, int] | None = None, asked: Mapping[str, int | None] | None = None
) -> ChunkSizes:
    """The sizes that hold.

    Args:
        settings: where neither of the others says anything.
        stored: those of the knowledge base, if any were ever asked for.
        asked: some or all of ``chunk_target``, ``chunk_max`` and ``chunk_overlap``; None: not asked for.

    Raises:
        InvalidInput: they do not fit together.
    """
    sizes = ChunkSizes(settings.chunk_target, settings.chunk_max, settings.chunk_overlap)
    if stored:
        sizes = ChunkSizes(**stored)
    wanted = {name: value for name, value in (asked or {}).items() if value is not None}
    return replace(sizes, **wanted) if wanted else sizes
