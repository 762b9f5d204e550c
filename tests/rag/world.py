"""A small world for tests of answering: a real store and real indexes, a reader without weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rag.index.generations import IndexManager
from rag.index.text import index_text
from rag.ports import FloatMatrix
from rag.settings import Settings
from rag.store.documents import NewChunk, NewVersion, delete_document, replace_version
from rag.store.kbs import get_or_create_kb
from rag.store.session import Database
from rag.text import sentences, terms
from rag.types import Passage, ReaderOutput, Span, Turn


class BigramEmbedder:
    """Unit vectors of hashed terms: deterministic, and near where wording is shared."""

    id = "bigrams"
    dim = 64

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        return self.encode_passages(texts)

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        rows = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 1e-3
            for term in terms(text):
                row[hashlib.sha256(term.encode("utf-8")).digest()[0] % self.dim] += 1
            row /= np.linalg.norm(row)
        return rows


class SentenceReader:
    """Answers with the clause that shares most terms with the question; sure as far as it covers them."""

    id = "sentences"
    answerable_threshold = 0.5

    def __init__(self) -> None:
        self.questions: list[str] = []

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        self.questions.append(question)
        wanted = terms(re.sub("多少|多久|什么|几|吗|呢|怎么|有|是|[？?，]", " ", question))
        found = []
        for index, passage in enumerate(passages):
            for span in sentences(passage.text):
                text = passage.text[span.start : span.end].rstrip("。；！？")
                held = terms(f"{passage.title} {text}")
                score = len(wanted & held) / len(wanted) if wanted else 0.0
                found.append((score, index, Span(span.start, span.start + len(text))))
        found.sort(key=lambda f: (-f[0], f[1], f[2].start))
        if not found:
            return ReaderOutput("", False, 0.0, 0.0, tuple(0.0 for _ in passages))
        score, index, source = found[0]
        text = passages[index].text[source.start : source.end]
        return ReaderOutput(
            text=text,
            answerable=score >= self.answerable_threshold,
            p_answerable=score,
            confidence=score,
            relevance=tuple(self.relevance(question, passages)),
            spans=((index, source, Span(0, len(text))),),
            alternatives=tuple(found[1:8]),
        )

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        wanted = terms(question)
        return [len(wanted & terms(f"{p.title} {p.text}")) / max(1, len(wanted)) for p in passages]


class World:
    """A store and an index in a folder; documents are put in paragraph by paragraph."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.settings = Settings(home=home, **settings)  # type: ignore[arg-type]
        self.database = Database(self.settings)
        self.database.migrate()
        self.embedder = BigramEmbedder()
        self.indexes = IndexManager(self.database, self.settings, self.embedder)
        with self.database.session() as session:
            get_or_create_kb(session, "default", embedder=self.embedder.id)

    def put(
        self,
        documents: Mapping[str, str],
        kb: str = "default",
        tags: Sequence[str] = (),
        meta: Mapping[str, object] | None = None,
    ) -> dict[str, str]:
        """Store and index texts by path; the documents' ids by path. A heading line starts with #."""
        ids = {}
        added: list[int] = []
        texts: list[str] = []
        with self.database.session() as session:
            base = get_or_create_kb(session, kb, embedder=self.embedder.id)
            for path, text in documents.items():
                new = NewVersion(
                    hashlib.sha256(text.encode()).hexdigest(),
                    "text/plain",
                    len(text),
                    text,
                    tags=tags,
                    meta=dict(meta or {}),
                )
                title, chunks, heading, at = path.rsplit(".", 1)[0], [], "", 0
                for paragraph in text.split("\n\n"):
                    if paragraph.startswith("#"):
                        heading = paragraph.lstrip("# ")
                    elif paragraph.strip():
                        chunks.append(NewChunk(at, at + len(paragraph), heading, at // 200 + 1))
                    at += len(paragraph) + 2
                document, version, chunk_ids = replace_version(session, base, path, title, new, chunks)
                ids[path] = document.id
                added += chunk_ids
                texts += [index_text(title, c.heading, version.text[c.char_start : c.char_end]) for c in chunks]
        self.indexes.publish(kb, (added, texts, self.embedder.encode_passages(texts)), [])
        return ids

    def delete(self, document_id: str) -> None:
        """Tombstone a document, leaving the index files as they are."""
        with self.database.session() as session:
            delete_document(session, document_id)

    def text(self, version_id: int) -> str:
        """The stored canonical text of a version."""
        from rag.store.models import DocumentVersion

        with self.database.session() as session:
            version = session.get(DocumentVersion, version_id)
            assert version is not None
            return version.text
