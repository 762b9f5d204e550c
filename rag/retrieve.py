"""From a question to passages: lexical and dense search, fusion, reranking, joined with SQL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from rag.errors import InvalidInput
from rag.filters import Filters, allowed_chunks
from rag.fusion import FOCUSED, Focus, fuse, order, search_both, sharpen
from rag.index.text import index_text
from rag.ports import Embedder, IdArray, Reader
from rag.settings import Settings
from rag.store.kbs import get_kb
from rag.store.models import Chunk, Document, DocumentVersion, KnowledgeBase
from rag.types import Passage, Scores

if TYPE_CHECKING:
    from rag.index.generations import IndexManager, KbIndex
    from rag.store.session import Database

RELEVANCE_WEIGHT = 0.35
"""Share of the reader's relevance in the final score of a reranked passage (docs/decisions/008)."""
LEAD = 0.1
"""A passage that leads the next by so much of the fused score (0…1) stays first: nothing is judged."""
NEAR = 0.5
"""Passages below this share of the best fused score are neither reranked nor read. Of the top four,
half are such; none of them held an answer on the development questions (docs/decisions/007)."""
MERGED_CHARS = 900
"""Neighbours are merged for reading up to this length."""
PER_DOCUMENT = 3
"""Passages of one document among those that are read, where others are as near (docs/decisions/008)."""
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Found:
    """What was retrieved, best first, and from which index generation."""

    passages: tuple[Passage, ...]
    generation: int
    empty: bool = False
    """Nothing at all is indexed."""


def merge_neighbours(passages: Sequence[Passage], texts: Mapping[int, str], limit: int = MERGED_CHARS) -> list[Passage]:
    """Join passages of one version that overlap or touch (white space between), up to ``limit`` characters.

    The joined passage takes the rank, id, page and scores of its best part.
    """
    merged: list[Passage] = []
    for passage in passages:
        for i, other in enumerate(merged):
            if (joined := _joined(other, passage, texts, limit)) is not None:
                merged[i] = joined
                break
        else:
            merged.append(passage)
    return merged


def _joined(best: Passage, other: Passage, texts: Mapping[int, str], limit: int) -> Passage | None:
    if best.version_id != other.version_id:
        return None
    start, end = min(best.char_start, other.char_start), max(best.char_end, other.char_end)
    text = texts.get(best.version_id, "")
    gap_start, gap_end = min(best.char_end, other.char_end), max(best.char_start, other.char_start)
    if text[gap_start:gap_end].strip() or end - start > limit or end > len(text):
        return None
    first = best if best.char_start <= other.char_start else other
    return replace(best, char_start=start, char_end=end, text=text[start:end], heading=first.heading, page=first.page)


def near_best(passages: Sequence[Passage]) -> list[Passage]:
    """The passages whose fused score is at least `NEAR` of the best one's, in their order."""
    best = max((p.scores.fused for p in passages), default=0.0)
    return [p for p in passages if p.scores.fused >= NEAR * best]


def diverse(passages: Sequence[Passage], k: int, limit: int = PER_DOCUMENT) -> list[Passage]:
    """The same passages, with at most ``limit`` of one document among the first ``k``, as long as others are
    near the best; what is set back comes next.
    """
    counts: Counter[str] = Counter()
    first: list[Passage] = []
    for passage in near_best(passages):
        if len(first) < k and counts[passage.document_id] < limit:
            counts[passage.document_id] += 1
            first.append(passage)
    taken = {p.chunk_id for p in first}
    return [*first, *(p for p in passages if p.chunk_id not in taken)]


class Retriever:
    """Finds passages in a knowledge base. The same function serves search, asking and evaluation."""

    def __init__(
        self,
        database: Database,
        index_manager: IndexManager,
        embedder: Embedder,
        reader: Reader | None,
        settings: Settings,
    ) -> None:
        self.database = database
        self.index_manager = index_manager
        self.embedder = embedder
        self.reader = reader
        self.settings = settings

    def search(
        self,
        question: str,
        kb: str = "default",
        k: int = 10,
        filters: Filters | None = None,
        rerank: bool = True,
    ) -> list[Passage]:
        """The ``k`` best chunks for a question, best first.

        Raises:
            NotFound: there is no such knowledge base.
            InvalidInput: the question is empty or longer than the settings allow.
        """
        question = usable_question(question, self.settings)
        if k < 1:
            raise InvalidInput("k must be at least 1.")
        needed = max(k, self.settings.rerank) if rerank else k
        found = self.find([(question, 1.0)], kb, max(k, self.settings.candidates), filters, needed)
        passages = found.passages
        if rerank:
            passages = self.rerank(question, passages)
        return list(passages[:k])

    def find(
        self,
        queries: Sequence[tuple[str, float]],
        kb: str = "default",
        k: int = 30,
        filters: Filters | None = None,
        needed: int | None = None,
    ) -> Found:
        """Fused results of weighted queries, without reranking. Only live chunks come out.

        Each index brings in ``k``; the best ``needed`` of them, or ``k``, are returned.
        """
        needed = k if needed is None else min(needed, k)
        with self.database.session() as session:
            base = get_kb(session, kb)
            if base.generation == 0:
                return Found((), 0, empty=True)
            index = self.index_manager.opened(base.id, base.generation) or self.index_manager.open(kb)
            allowed = allowed_chunks(session, base, filters) if filters else None
            depth = k
            while True:
                fused, lexical, dense, exhausted = self._ranked(index, queries, depth, allowed)
                passages = self._load(session, base, order(fused), max(needed, FOCUSED))
                if len(passages) >= needed or exhausted or depth >= 16 * k:
                    break
                depth *= 4
        fused = sharpen(
            fused,
            [(weight, Focus.of(text, index.lexical)) for text, weight in queries],
            {p.chunk_id: (index_text(p.title, p.heading, ""), p.text) for p in passages[:FOCUSED]},
        )
        passages = sorted(passages, key=lambda p: (-fused[p.chunk_id], p.chunk_id))[:needed]
        scored = [
            replace(
                p,
                score=fused[p.chunk_id],
                scores=Scores(lexical.get(p.chunk_id), dense.get(p.chunk_id), fused[p.chunk_id]),
            )
            for p in passages
        ]
        return Found(tuple(scored), index.generation, empty=not scored and not len(index.lexical.ids()))

    def generation(self, kb: str) -> int:
        """The visible index generation of a knowledge base; 0 before anything was indexed.

        Raises:
            NotFound: there is no such knowledge base.
        """
        with self.database.session() as session:
            return get_kb(session, kb).generation

    def rerank(self, question: str, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """Blend the reader's relevance into the scores of the passages near the best, where none leads clearly.

        At most `Settings.rerank` of them: a fixed number, not a time limit, bounds the latency, because
        the same index and settings must give the same result on a slow day too.
        """
        count = min(self.settings.rerank, len(near_best(passages)))
        if self.reader is None or count < 2 or passages[0].scores.fused - passages[1].scores.fused >= LEAD:
            return tuple(passages)
        head, tail = passages[:count], passages[count:]
        relevance = self.reader.relevance(question, head)
        blended = [
            replace(
                p,
                score=(1 - RELEVANCE_WEIGHT) * p.scores.fused + RELEVANCE_WEIGHT * r,
                scores=replace(p.scores, relevance=r),
            )
            for p, r in zip(head, relevance, strict=True)
        ]
        rest = [replace(p, score=(1 - RELEVANCE_WEIGHT) * p.scores.fused) for p in tail]
        return (*sorted(blended, key=lambda p: (-p.score, p.chunk_id)), *rest)

    def texts(self, versions: Sequence[int]) -> dict[int, str]:
        """Canonical texts of those versions that are live, by version id."""
        if not versions:
            return {}
        with self.database.session() as session:
            rows = session.execute(
                select(DocumentVersion.id, DocumentVersion.text)
                .join(Document, Document.id == DocumentVersion.document_id)
                .where(
                    DocumentVersion.id.in_(set(versions)),
                    DocumentVersion.deleted_at.is_(None),
                    Document.deleted_at.is_(None),
                )
            )
            return {row.id: row.text for row in rows}

    def _ranked(
        self,
        index: KbIndex,
        queries: Sequence[tuple[str, float]],
        k: int,
        allowed: IdArray | None,
    ) -> tuple[dict[int, float], dict[int, float], dict[int, float], bool]:
        searches = []
        vectors = self.embedder.encode_queries([text for text, _ in queries])
        exhausted = True
        for (text, weight), vector in zip(queries, vectors, strict=True):
            lexical, dense, ended = search_both(text, vector, index.lexical, index.vectors, k, allowed)
            exhausted &= ended
            searches.append((weight, lexical, dense))
        return fuse(searches), _best([s[1] for s in searches]), _best([s[2] for s in searches]), exhausted

    @staticmethod
    def _load(session: Session, base: KnowledgeBase, ranked: Sequence[int], needed: int) -> list[Passage]:
        """The first ``needed`` passages of the live chunks among ``ranked``, in that order."""
        found: dict[int, Passage] = {}
        step = min(needed, 500)
        for start in range(0, len(ranked), step):
            if len(found) >= needed:
                break
            some = list(ranked[start : start + step])
            rows = session.execute(_LIVE_CHUNKS, {"ids": some, "kb_id": base.id})
            for chunk_id, document_id, version_id, title, path, page, heading, char_start, char_end, text in rows:
                found[chunk_id] = Passage(
                    chunk_id=chunk_id,
                    document_id=document_id,
                    version_id=version_id,
                    title=title,
                    path=path,
                    page=page,
                    heading=heading,
                    char_start=char_start,
                    char_end=char_end,
                    text=text,
                )
        return [found[i] for i in ranked if i in found][:needed]


def usable_question(question: str, settings: Settings) -> str:
    """The question without characters that no encoder takes (lone surrogates, NUL).

    Raises:
        InvalidInput: empty, or longer than ``max_question_chars``.
    """
    if not question.strip():
        raise InvalidInput("问题是空的，请输入要问的内容。")
    if len(question) > settings.max_question_chars:
        raise InvalidInput(
            f"问题太长：{len(question)} 个字符，最多 {settings.max_question_chars} 个。请缩短后再问"
            "（上限由 CHATGGLM_MAX_QUESTION_CHARS 设置）。"
        )
    return _UNUSABLE.sub("\ufffd", question)


def _best(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The highest score of each id."""
    best: dict[int, float] = {}
    for scores in found:
        for chunk_id, score in scores.items():
            best[chunk_id] = max(score, best.get(chunk_id, score))
    return best


_LIVE_CHUNKS = (  # made once: putting it together takes longer than running it
    select(
        Chunk.id,
        Document.id,
        Chunk.version_id,
        Document.title,
        Document.path,
        Chunk.page,
        Chunk.heading,
        Chunk.char_start,
        Chunk.char_end,
        # the chunk's text; code points in SQLite and PostgreSQL alike, counted from 1
        func.substr(DocumentVersion.text, Chunk.char_start + 1, Chunk.char_end - Chunk.char_start),
    )
    .join(DocumentVersion, DocumentVersion.id == Chunk.version_id)
    .join(Document, Document.id == DocumentVersion.document_id)
    .where(
        Chunk.id.in_(bindparam("ids", expanding=True)),
        Document.kb_id == bindparam("kb_id"),
        Document.deleted_at.is_(None),
        DocumentVersion.deleted_at.is_(None),
    )
)
