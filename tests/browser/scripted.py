"""A server whose reader does what a test tells it; everything else is real: store, index, API, pages."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import uvicorn

from api.app import create_app
from ingest.pipeline import ingest
from rag.ports import FloatMatrix
from rag.service import Service
from rag.settings import Settings
from rag.types import Passage, ReaderOutput, Span, Turn


class BigramEmbedder:
    """Hashed character bigrams: an embedder without weights."""

    id = "bigrams"
    dim = 256

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit vectors (n, dim)."""
        rows = np.full((len(texts), self.dim), 1e-6, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for pair in itertools.pairwise(text):
                row[zlib.crc32("".join(pair).encode()) % self.dim] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    encode_passages = encode_queries


class CueReader:
    """Copies what ``cues`` names for a word of the question, from wherever the passages hold it."""

    id = "cues"
    answerable_threshold = 0.5

    def __init__(self, cues: dict[str, list[str]]) -> None:
        self.cues = cues
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        """The first wording is the answer, the others are alternatives. «坏» fails."""
        self.entered.set()
        self.go_on.wait(30)
        if "坏" in question:
            raise RuntimeError("told to fail")
        wanted = next((texts for cue, texts in self.cues.items() if cue in question), [])
        found = [
            (i, Span(p.text.index(text), p.text.index(text) + len(text)))
            for text in wanted
            for i, p in enumerate(passages)
            if text in p.text
        ]
        relevance = tuple(0.9 if found else 0.3 for _ in passages)
        if not found:
            return ReaderOutput("", False, 0.05, 0.05, relevance)
        index, span = found[0]
        text = passages[index].text[span.start : span.end]
        others = tuple((0.9, i, s) for i, s in found[1:])
        return ReaderOutput(text, True, 0.95, 0.95, relevance, ((index, span, Span(0, len(text))),), others)

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        """All alike."""
        return [0.5] * len(passages)


@contextlib.contextmanager
def serving(home: Path, documents: Path, reader: CueReader) -> Iterator[str]:
    """The address of a running server over ``documents``."""
    settings = Settings(home=home)
    service = Service(settings, BigramEmbedder(), reader)
    service.database.migrate()
    report = ingest(service, [documents], workers=1)
    assert all(d.status == "indexed" for d in report.documents), report
    config = uvicorn.Config(create_app(settings, lambda _: service), port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        reader.go_on.set()
        server.should_exit = True
        thread.join(15)
        service.database.close()
