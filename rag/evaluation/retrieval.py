"""Retrieval measured: does the context of a question come back, and at which rank?

`evaluate` indexes the contexts of a file of questions and compares the legs of the search;
`evaluate_search` asks a knowledge base, just as a user's question would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from rag.errors import InvalidInput
from rag.evaluation.answers import Question, percentiles, same_document
from rag.fusion import FOCUSED, Focus, by_id, fuse, order, search_both, sharpen
from rag.ports import Embedder, LexicalIndex, VectorStore
from rag.text import key
from rag.types import Passage

CUTS = (1, 5, 10)
MEASURES = (*(f"r@{k}" for k in CUTS), "mrr@10", "ndcg@10")
DEPTH = 30
"""Results of each index that enter the fusion, as in `Settings.candidates`."""


def recall_at(ranked: Sequence[int], relevant: Collection[int], k: int) -> float:
    """Share of the relevant ids among the first ``k``."""
    return len(set(ranked[:k]) & set(relevant)) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[int], relevant: Collection[int], k: int = 10) -> float:
    """1 / rank of the first relevant id among the first ``k``, 0 where none comes back."""
    return next((1 / rank for rank, i in enumerate(ranked[:k], start=1) if i in relevant), 0.0)


def ndcg_at(ranked: Sequence[int], relevant: Collection[int], k: int) -> float:
    """Normalised discounted cumulative gain at ``k``, gains 0 or 1 (Järvelin & Kekäläinen 2002)."""
    gain = sum(1 / math.log2(rank + 1) for rank, i in enumerate(ranked[:k], start=1) if i in relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return gain / ideal if ideal else 0.0


def scores(rankings: Sequence[Sequence[int]], relevant: Sequence[Collection[int]]) -> dict[str, float]:
    """Mean R@1, R@5, R@10, MRR@10 and nDCG@10 over queries, each 0…1."""
    pairs = list(zip(rankings, relevant, strict=True))
    count = max(1, len(pairs))
    report = {f"r@{k}": sum(recall_at(r, g, k) for r, g in pairs) / count for k in CUTS}
    report["mrr@10"] = sum(reciprocal_rank(r, g) for r, g in pairs) / count
    report["ndcg@10"] = sum(ndcg_at(r, g, 10) for r, g in pairs) / count
    return {name: round(value, 4) for name, value in report.items()}


class Searcher(Protocol):
    """What searches a knowledge base: `rag.retrieve.Retriever`."""

    def search(self, question: str, kb: str = "default", k: int = 10, *, rerank: bool = True) -> list[Passage]: ...


def evaluate_search(
    searcher: Searcher,
    items: Iterable[Question],
    kb: str = "default",
    rerank: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Search with every question that has a document: is that document found, and the passage?

    ``documents`` ranks the documents of the ten best passages, each by its first one. ``passages``
    ranks passages; the right one is the first of the gold document that holds the evidence or an
    answer, punctuation and spaces aside.

    Raises:
        InvalidInput: no question has a document.
        NotFound: there is no such knowledge base.
    """
    asked = [item for item in items if item.doc is not None]
    if not asked:
        raise InvalidInput('No question names its document in "doc".')
    by_document: list[list[int]] = []
    by_passage: list[list[int]] = []
    times = []
    for done, item in enumerate(asked, start=1):
        start = time.perf_counter()
        found = searcher.search(item.question, kb, 10, rerank=rerank)
        times.append(1000 * (time.perf_counter() - start))
        documents = list(dict.fromkeys(p.path for p in found))
        by_document.append([int(same_document(path, item.doc)) for path in documents])
        by_passage.append([int(_holds(p, item)) for p in found])
        if progress is not None:
            progress(done, len(asked))
    return {
        "questions": len(asked),
        "reranked": rerank,
        "documents": _first_hits(by_document),
        "passages": _first_hits(by_passage),
        "latency_ms": percentiles(times),
    }


def _holds(passage: Passage, item: Question) -> bool:
    if not same_document(passage.path, item.doc):
        return False
    held = key(passage.text)
    return any(wanted in held for text in (item.evidence, *item.answers) if (wanted := key(text)))


def _first_hits(hits: Sequence[Sequence[int]]) -> dict[str, float]:
    """`scores` where the first hit of each list of 0 and 1 is the one relevant result."""
    return scores([list(range(len(row))) for row in hits], [{row.index(1)} if 1 in row else {-1} for row in hits])


def questions_and_contexts(rows: Iterable[dict[str, Any]]) -> tuple[list[str], list[int], list[str]]:
    """(questions, index of each one's context, distinct contexts).

    Raises:
        InvalidInput: a row lacks "question" or "context", or there are none.
    """
    contexts: dict[str, int] = {}
    questions, gold = [], []
    for number, row in enumerate(rows, start=1):
        question, context = row.get("question"), row.get("context")
        if not isinstance(question, str) or not isinstance(context, str) or not context.strip():
            raise InvalidInput(f'Row {number}: "question" and "context" are needed.')
        questions.append(question)
        gold.append(contexts.setdefault(context, len(contexts)))
    if not questions:
        raise InvalidInput("The file holds no rows.")
    return questions, gold, list(contexts)


def evaluate(
    rows: Iterable[dict[str, Any]],
    embedder: Embedder | None,
    lexical: LexicalIndex,
    vectors: VectorStore | None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Index the distinct contexts, search with every question, score lexical, dense and hybrid.

    Titles stay out: they would give the answer away on encyclopedia paragraphs. Without an
    embedder only the lexical index is scored.
    """
    questions, gold, contexts = questions_and_contexts(rows)
    relevant = [{g} for g in gold]
    report: dict[str, Any] = {"questions": len(questions), "contexts": len(contexts)}
    start = time.perf_counter()
    lexical.add(list(range(len(contexts))), contexts)
    report["lexical_index_s"] = round(time.perf_counter() - start, 2)
    by_words, times = [], []
    for done, question in enumerate(questions, start=1):
        start = time.perf_counter()
        by_words.append(by_id(*lexical.search(question, DEPTH)))
        times.append(1000 * (time.perf_counter() - start))
        if progress is not None:
            progress("lexical", done, len(questions))
    report["lexical"] = {**scores([list(found) for found in by_words], relevant), "latency_ms": percentiles(times)}
    if embedder is None or vectors is None:
        return report
    report["embedder"] = embedder.id
    start = time.perf_counter()
    for first in range(0, len(contexts), 64):
        batch = contexts[first : first + 64]
        ids = np.arange(first, first + len(batch), dtype=np.int64)
        vectors.add(ids, embedder.encode_passages(batch))
        if progress is not None:
            progress("embed", first + len(batch), len(contexts))
    report["embed_contexts_per_s"] = round(len(contexts) / (time.perf_counter() - start), 1)
    by_meaning, times = [], []
    for done, question in enumerate(questions, start=1):
        start = time.perf_counter()
        by_meaning.append(by_id(*vectors.search(embedder.encode_queries([question]), DEPTH)))
        times.append(1000 * (time.perf_counter() - start))
        if progress is not None:
            progress("dense", done, len(questions))
    report["dense"] = {**scores([list(found) for found in by_meaning], relevant), "latency_ms": percentiles(times)}
    hybrid, times = [], []
    for done, question in enumerate(questions, start=1):
        start = time.perf_counter()
        hybrid.append(ranked(question, contexts, embedder, lexical, vectors))
        times.append(1000 * (time.perf_counter() - start))
        if progress is not None:
            progress("hybrid", done, len(questions))
    report["hybrid"] = {**scores(hybrid, relevant), "latency_ms": percentiles(times)}
    return report


def ranked(
    question: str, contexts: Sequence[str], embedder: Embedder, lexical: LexicalIndex, vectors: VectorStore
) -> list[int]:
    """Contexts, by number, as `Retriever.find` would rank them."""
    vector = embedder.encode_queries([question])[0]
    words, meaning, _ = search_both(question, vector, lexical, vectors, DEPTH)
    fused = fuse([(1.0, words, meaning)])
    texts = {i: ("", contexts[i]) for i in order(fused)[:FOCUSED]}
    return order(sharpen(fused, [(1.0, Focus.of(question, lexical))], texts))
