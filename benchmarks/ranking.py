"""How search results should be ranked: ways of fusing the two indexes, and the reader's relevance on top.

    python benchmarks/ranking.py [--shared ../shared] [--questions 200] [--no-reader] [--out ranking.json]

Pools: the CMRC 2018 trial paragraphs (without titles); and all authored passages (with titles), asked
with the questions of authored_dev and of authored_docs_dev. Learned fusion is a logistic regression,
fitted on two of the three sets of questions and scored on the third. The figures stand in
docs/decisions/008; run this again when the embedder or the reader changes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gglm.evaluation import logistic_regression
from rag.evaluation.retrieval import scores
from rag.evaluation.rows import read_rows
from rag.retrieve import DENSE_WEIGHT, NEAR, RELEVANCE_WEIGHT, by_id, fuse

DEPTH = 30
READ = 6
"""Passages a question that the reader judges here."""
Ranked = Sequence[int]
Scored = Mapping[int, float]


@dataclass
class Asked:
    """One question with what each index found, best first, and the reader's relevance of the first few."""

    question: str
    gold: int
    lexical: dict[int, float]
    dense: dict[int, float]
    relevance: dict[int, float] = field(default_factory=dict)

    @property
    def fused(self) -> dict[int, float]:
        return fuse([(1.0, self.lexical, self.dense)])


def order(scored: Scored) -> list[int]:
    """Ids by falling score."""
    return sorted(scored, key=lambda i: (-scored[i], i))


def collect(shared: Path, count: int, reader: bool) -> dict[str, list[Asked]]:
    """Search every question once; what follows only reorders."""
    from rag.embedders import load_embedder
    from rag.index.lexical import Bm25Index
    from rag.index.text import index_text
    from rag.index.vectors import FaissStore

    def rows(name: str) -> list[dict[str, Any]]:
        return list(read_rows(shared / "data" / "qa" / f"{name}.jsonl.zst"))

    trial, dev, docs = rows("cmrc2018_trial"), rows("authored_dev"), rows("authored_docs_dev")
    authored = [*rows("authored_train"), *dev, *docs]
    embedder = load_embedder()
    found = {}
    for pool, sets in (
        ([("", r["context"]) for r in trial], {"trial": trial}),
        ([(r["title"], r["context"]) for r in authored], {"dev": dev, "docs": docs}),
    ):
        passages = list(dict.fromkeys(pool))
        place = {p: i for i, p in enumerate(passages)}
        texts = [index_text(title, "", text) for title, text in passages]
        lexical, vectors = Bm25Index(), FaissStore(embedder.dim)
        lexical.add(list(range(len(texts))), texts)
        for at in range(0, len(texts), 64):
            batch = texts[at : at + 64]
            vectors.add(np.arange(at, at + len(batch), dtype=np.int64), embedder.encode_passages(batch))
        for name, questions in sets.items():
            answerable = [r for r in questions if r["answers"]]
            asked = random.Random(0).sample(answerable, min(count, len(answerable)))
            found[name] = [
                Asked(
                    r["question"],
                    place["" if name == "trial" else r["title"], r["context"]],
                    by_id(*lexical.search(r["question"], DEPTH)),
                    by_id(*vectors.search(embedder.encode_queries([r["question"]]), DEPTH)),
                )
                for r in asked
            ]
            if reader:
                judge(found[name], passages)
    return found


def judge(asked: Iterable[Asked], passages: Sequence[tuple[str, str]]) -> None:
    """Add the reader's relevance, 0…1, of the first few fused results."""
    from gglm.engine import Engine
    from gglm.types import Source

    engine = Engine.load()
    for one in asked:
        first = order(one.fused)[:READ]
        relevance = engine.relevance(one.question, [Source(passages[i][1], passages[i][0]) for i in first])
        one.relevance = dict(zip(first, relevance, strict=True))


def by_rank(one: Asked, dense_weight: float) -> Ranked:
    """Reciprocal rank fusion (Cormack et al. 2009), k = 60."""
    fused: dict[int, float] = {}
    for leg, weight in ((one.lexical, 1.0), (one.dense, dense_weight)):
        for rank, i in enumerate(leg, start=1):
            fused[i] = fused.get(i, 0.0) + weight / (60 + rank)
    return order(fused)


def by_score(one: Asked, dense_weight: float) -> Ranked:
    best = max(one.lexical.values(), default=0.0) or 1.0
    ids = one.lexical.keys() | one.dense.keys()
    return order({i: one.lexical.get(i, 0.0) / best + dense_weight * max(0.0, one.dense.get(i, 0.0)) for i in ids})


def features(one: Asked) -> tuple[list[int], np.ndarray]:
    """Ids, and for each: share of the best BM25, log BM25, cosine, its gap to the best, both ranks inverted."""
    best = max(one.lexical.values(), default=0.0) or 1.0
    nearest, farthest = max(one.dense.values(), default=0.0), min(one.dense.values(), default=0.0)
    word_rank, meaning_rank = ({i: r for r, i in enumerate(leg, 1)} for leg in (one.lexical, one.dense))
    ids = list(one.lexical.keys() | one.dense.keys())
    rows = []
    for i in ids:
        bm25, cosine = one.lexical.get(i, 0.0), one.dense.get(i, farthest)
        ranks = (1 / word_rank.get(i, 2 * DEPTH), 1 / meaning_rank.get(i, 2 * DEPTH))
        rows.append([bm25 / best, math.log1p(bm25), cosine, nearest - cosine, *ranks])
    return ids, np.array(rows)


def learned(train: Iterable[Asked], columns: Sequence[int]) -> Callable[[Asked], Ranked]:
    """Logistic regression on the chosen features: is this the gold passage?"""
    x, y = [], []
    for one in train:
        ids, rows = features(one)
        x.append(rows[:, columns])
        y += [float(i == one.gold) for i in ids]
    table = np.concatenate(x)
    mean, deviation = table.mean(0), table.std(0) + 1e-9
    weights = logistic_regression((table - mean) / deviation, np.array(y), ridge=1.0)[:-1]

    def rank(one: Asked) -> Ranked:
        ids, rows = features(one)
        logits = ((rows[:, columns] - mean) / deviation) @ weights
        return order(dict(zip(ids, logits.tolist(), strict=True)))

    return rank


def reranked(one: Asked, weight: float, near: float = NEAR, lead: float | None = None) -> tuple[Ranked, int]:
    """Relevance blended in for the passages near the best, unless the first leads clearly; windows read."""
    fused = one.fused
    ranked = order(fused)
    head = [i for i in ranked[:READ] if fused[i] >= near * fused[ranked[0]]]
    if len(head) < 2 or (lead is not None and fused[head[0]] - fused[head[1]] >= lead):
        return ranked, 0
    blended = {i: (1 - weight) * fused[i] + weight * one.relevance.get(i, 0.0) for i in head}
    return [*order(blended), *ranked[len(head) :]], len(head)


def report(found: dict[str, list[Asked]], reader: bool) -> dict[str, Any]:
    """Scores by way of ranking and set of questions."""
    ways: dict[str, Callable[[Asked], Ranked]] = {
        "lexical": lambda one: order(one.lexical),
        "dense": lambda one: order(one.dense),
        "RRF": lambda one: by_rank(one, 1.0),
        "RRF, dense at 0.2": lambda one: by_rank(one, 0.2),
        **{f"score, dense at {w}": (lambda one, w=w: by_score(one, w)) for w in (0.3, DENSE_WEIGHT, 0.8, 1.2)},
    }
    table: dict[str, dict[str, Any]] = {}

    def add(way: str, name: str, ranks: Sequence[Ranked], windows: float | None = None) -> None:
        measured: dict[str, Any] = scores(ranks, [{one.gold} for one in found[name]])
        if windows is not None:
            measured["windows"] = round(windows, 2)
        table.setdefault(way, {})[name] = measured

    for name, asked in found.items():
        for way, rank in ways.items():
            add(way, name, [rank(one) for one in asked])
        others = [one for other, questions in found.items() if other != name for one in questions]
        for way, columns in (("learned, 2 features", [0, 2]), ("learned, 6 features", list(range(6)))):
            rank = learned(others, columns)
            add(way, name, [rank(one) for one in asked])
        if reader:
            for weight in (0.2, 0.35, 0.5, 0.7):
                ranks = [reranked(one, weight) for one in asked]
                add(f"reranked at {weight}", name, [r for r, _ in ranks], float(np.mean([n for _, n in ranks])))
            for lead in (0.1, 0.2, 0.3):
                ranks = [reranked(one, RELEVANCE_WEIGHT, lead=lead) for one in asked]
                windows = float(np.mean([n for _, n in ranks]))
                add(f"reranked at {RELEVANCE_WEIGHT}, exit at a lead of {lead}", name, [r for r, _ in ranks], windows)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--questions", type=int, default=200, help="at most so many of each set")
    parser.add_argument("--no-reader", action="store_true", help="leave the reader's relevance out")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = collect(arguments.shared, arguments.questions, not arguments.no_reader)
    table = report(found, not arguments.no_reader)
    if arguments.out:
        arguments.out.write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{'R@1 / R@5 / MRR@10':44}" + "".join(f"{name + f' ({len(asked)})':28}" for name, asked in found.items()))
    for way, row in table.items():
        cells = [
            f"{m['r@1']:.3f} / {m['r@5']:.3f} / {m['mrr@10']:.3f}" + (f"  {m['windows']}" if "windows" in m else "")
            for m in row.values()
        ]
        print(f"{way:44}" + "".join(f"{cell:28}" for cell in cells))


if __name__ == "__main__":
    main()
