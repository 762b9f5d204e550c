"""LangChain with FAISS and Haystack's in-memory store, over the texts and vectors of index_scale.py.

    python benchmarks/peers.py [100000] [--json]

Neither is a dependency of ours: `pip install langchain-community haystack-ai` for this benchmark alone.
Each runs in a process of its own. Times are CPU times, throughput (dense search) is not. Both keep everything in
memory; LangChain's store searches vectors only, Haystack's also has BM25 over single characters.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from index_scale import CLIENTS, throughput
from synthetic import Language, vectors

from rag.ports import FloatMatrix

DIM = 256
K = 10
QUERIES = 50
SLOW_QUERIES = 5
"""For a search that takes a second."""
Figures = dict[str, Any]


def langchain(texts: list[str], rows: FloatMatrix, points: FloatMatrix, questions: list[str]) -> Figures:
    """`langchain_community.vectorstores.FAISS`, an exact index and a dictionary of texts."""
    from langchain_community.vectorstores import FAISS
    from langchain_core.embeddings import FakeEmbeddings

    began = time.process_time()
    store = FAISS.from_embeddings(zip(texts, rows.tolist(), strict=True), FakeEmbeddings(size=DIM))
    figures: Figures = {"build_cpu_s": time.process_time() - began}
    figures["dense"] = _times(
        [lambda p=p: store.similarity_search_with_score_by_vector(p, k=K) for p in points.tolist()]
    )
    figures["per_s"] = _per_s(points, lambda p: store.similarity_search_with_score_by_vector(p, k=K))
    return figures


def haystack(texts: list[str], rows: FloatMatrix, points: FloatMatrix, questions: list[str]) -> Figures:
    """`haystack.document_stores.in_memory`."""
    from haystack import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    began = time.process_time()
    store = InMemoryDocumentStore(shared=False)
    documents = zip(texts, rows.tolist(), strict=True)
    store.write_documents([Document(id=str(i), content=t, embedding=v) for i, (t, v) in enumerate(documents)])
    figures: Figures = {"build_cpu_s": time.process_time() - began}
    some = points[:SLOW_QUERIES].tolist()
    figures["dense"] = _times([lambda p=p: store.embedding_retrieval(p, top_k=K) for p in some])
    figures["per_s"] = _per_s(points, lambda p: store.embedding_retrieval(p, top_k=K))
    figures["lexical"] = _times([lambda q=q: store.bm25_retrieval(q, top_k=K) for q in questions[:SLOW_QUERIES]])
    return figures


PEERS: dict[str, Callable[[list[str], FloatMatrix, FloatMatrix, list[str]], Figures]] = {
    "langchain": langchain,
    "haystack": haystack,
}


def _per_s(points: FloatMatrix, search: Callable[[list[float]], object]) -> dict[str, float]:
    """Answers a second by number of clients."""
    return {str(n): throughput(n, points.tolist(), search) for n in CLIENTS}


def _times(searches: list[Callable[[], object]]) -> Figures:
    times = []
    searches[0]()
    for search in searches:
        began = time.process_time()
        search()
        times.append(1000 * (time.process_time() - began))
    return {"p50_ms": float(np.percentile(times, 50)), "p95_ms": float(np.percentile(times, 95))}


def _measured(name: str, count: int) -> Figures:
    language = Language()
    texts = [text for _, some in language.batches(count, 2048) for text in some]
    rows = np.concatenate([vectors(min(2048, count - at), DIM, seed=at) for at in range(0, count, 2048)])
    questions = [text[40:58] for text in texts[:: max(1, count // QUERIES)]][:QUERIES]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        figures = PEERS[name](texts, rows, vectors(QUERIES, DIM, seed=99), questions)
    except ImportError:
        return {"not_measured": "not installed"}
    figures["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return figures


def compare(count: int) -> Figures:
    """Every peer that is installed."""
    report: Figures = {}
    for name in PEERS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            report[name] = pool.apply(_measured, (name, count))
    return report


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = compare(arguments.count)
    print(json.dumps(report) if arguments.json else json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
