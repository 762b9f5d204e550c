"""The composition root: one place that makes the parts and hands them to one another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from rag.index.generations import IndexManager
from rag.ports import Embedder, Reader
from rag.settings import Settings, get_settings
from rag.store.originals import Originals
from rag.store.session import Database

if TYPE_CHECKING:
    from gglm.engine import Engine
    from gglm.tasks import Task
    from rag.answer import Answerer
    from rag.retrieve import Retriever

T = TypeVar("T")


class Service:
    """Everything that answers questions, shared by CLI and API. Safe to share between threads.

    ``database`` and ``indexes`` are there at once and cost nothing; models load on first use.
    ``embedder`` and ``reader`` replace those that the settings name.
    """

    def __init__(self, settings: Settings, embedder: Embedder | None = None, reader: Reader | None = None) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.indexes = IndexManager(self.database, settings, embedder)
        self.originals = Originals(self.database, settings)
        self._made: dict[str, Any] = {"reader": reader} if reader is not None else {}
        self._locks = {name: threading.Lock() for name in ("reader", "retriever", "answerer", "engine", "translator")}

    @property
    def index_manager(self) -> IndexManager:
        """The same as ``indexes``."""
        return self.indexes

    @property
    def embedder(self) -> Embedder:
        """The embedder of questions and chunks.

        Raises:
            InvalidInput: the settings name none that can be loaded.
        """
        return self.indexes.embedder

    @property
    def reader(self) -> Reader:
        """What reads the passages.

        Raises:
            InvalidInput: the settings name no reader.
            WeightsError: its weights cannot be loaded.
        """

        def make() -> Reader:
            from rag.readers import load_reader

            return load_reader(self.settings)

        return self._once("reader", make)

    @property
    def retriever(self) -> Retriever:
        """Search."""

        def make() -> Retriever:
            from rag.retrieve import Retriever

            return Retriever(self.database, self.indexes, self.embedder, self.reader, self.settings)

        return self._once("retriever", make)

    @property
    def answerer(self) -> Answerer:
        """Questions to answers."""

        def make() -> Answerer:
            from rag.answer import Answerer

            return Answerer(self.retriever, self.reader, self.settings)

        return self._once("answerer", make)

    @property
    def engine(self) -> Engine:
        """GGLM itself, for summaries: the reader's own if that is GGLM.

        Raises:
            WeightsError: its weights cannot be loaded.
        """

        def make() -> Engine:
            if "reader" in self._made or self.settings.reader.strip() == "gglm":
                own = getattr(self.reader, "engine", None)
                if own is not None:
                    return cast("Engine", own)
            from gglm.engine import Engine

            return Engine.load(self.settings.reader_weights, threads=self.settings.threads)

        return self._once("engine", make)

    def translator(self, direction: Literal["zh-en", "en-zh"] = "zh-en") -> Engine:
        """GGLM for translations: ``translator_weights``, else the reader's own where they can, else the shipped ones.

        Raises:
            WeightsError: its weights cannot be loaded.
        """
        from gglm.weights import SPECIALISTS, default_folder, read_config

        task: Task = "翻译" if direction == "zh-en" else "英译中"
        folder = self.settings.translator_weights
        if folder is None:
            own = task in read_config(self.settings.reader_weights or default_folder()).get("tasks", ())
            if own or task not in SPECIALISTS:
                return self.engine

        def make() -> Engine:
            from gglm.engine import Engine

            return Engine.load(folder or default_folder(task), threads=self.settings.threads)

        return self._once("translator", make)

    def warm(self) -> None:
        """Load the models and open the indexes now rather than at the first question."""
        from rag.errors import IndexUnavailable
        from rag.store.kbs import list_kbs

        self.embedder.encode_queries(["预热"])
        _ = self.answerer
        with self.database.session() as session:
            slugs = [kb.slug for kb in list_kbs(session)]
        for slug in slugs:
            try:
                self.indexes.open(slug)
            except IndexUnavailable:  # told to whoever asks it; the others must answer
                continue

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._made:
            with self._locks[name]:
                if name not in self._made:
                    self._made[name] = make()
        return cast("T", self._made[name])


_services: dict[str, Service] = {}
_lock = threading.Lock()


def get_service(settings: Settings | None = None) -> Service:
    """The service for these settings (the process's own without), with the database brought up to date.

    Raises:
        StoreUnavailable: the database cannot be opened.
    """
    settings = settings or get_settings()
    key = settings.model_dump_json()
    with _lock:
        if key not in _services:
            _services[key] = Service(settings)
        service = _services[key]
    service.database.migrate()
    return service
