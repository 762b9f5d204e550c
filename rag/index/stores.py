"""Where vectors lie: in files of the generation (FAISS), or in Milvus, as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rag.errors import IndexUnavailable
from rag.index.vectors import FaissStore

if TYPE_CHECKING:
    from rag.index.milvus import MilvusStore
    from rag.settings import Settings


class VectorStores(Protocol):
    """Makes, opens and tidies the vector stores of knowledge bases."""

    def new(self, kb_id: int) -> FaissStore | MilvusStore:
        """An empty store."""

    def open(self, path: Path, kb_id: int) -> FaissStore | MilvusStore:
        """What its ``save`` wrote. Raises `IndexUnavailable`."""

    def sweep(self, kb_id: int, folder: Path) -> None:
        """Remove what no generation in ``folder`` needs."""

    def drop(self, kb_id: int) -> None:
        """Remove all that belongs to a knowledge base which is deleted."""


class FaissStores:
    """All in the generation's own folder: there is nothing else to tidy."""

    def new(self, kb_id: int) -> FaissStore:
        return FaissStore()

    def open(self, path: Path, kb_id: int) -> FaissStore:
        if not (path / FaissStore.state_file).exists() and (path / "milvus.json").exists():
            raise IndexUnavailable(moved("Milvus", "in files"))
        return FaissStore.open(path)

    def sweep(self, kb_id: int, folder: Path) -> None:
        pass

    def drop(self, kb_id: int) -> None:
        pass


def vector_stores(settings: Settings) -> VectorStores:
    """Those that ``CHATGGLM_MILVUS_URI`` chooses."""
    if not settings.milvus_uri:
        return FaissStores()
    from rag.index.milvus import MilvusStores

    return MilvusStores(settings.milvus_uri, settings.milvus_token.get_secret_value(), settings.milvus_prefix)


def moved(was: str, now: str) -> str:
    """The message where the settings were changed."""
    return (
        f"The vectors of this knowledge base are in {was}, the settings want them {now}: "
        "run `chatgglm kb rebuild`, or set CHATGGLM_MILVUS_URI back."
    )
