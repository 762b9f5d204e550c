"""How search results should be ranked: ways of fusing the two indexes, and the reader's relevance on top.

    python benchmarks/ranking.py [--shared ../shared] [--questions 200] [--no-reader] [--out ranking.json]
    python benchmarks/ranking.py --terms [--shared ../shared] [--questions 1300]

Pools: the CMRC 2018 trial, CMRC 2018 dev and DRCD dev paragraphs (without titles); and all authored passages
(with titles), asked with the questions of authored_dev and of authored_docs_dev. Learned fusion is a logistic
regression, fitted on the questions of trial and scored on the other sets: the embedder was trained on the training
questions, so a fit on those trusts it too much. ``--terms`` instead compares BM25's parameters on training
questions, which the words know as little as any. The figures stand in docs/decisions/008; run this again when the
embedder or the reader changes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gglm.calibration import logistic_regression
from rag.evaluation.retrieval import scores
from rag.evaluation.rows import read_rows
from rag.fusion import DENSE_WEIGHT, FOCUS_WEIGHT, FOCUSED, Focus, Sentences, fuse, order, search_both
from rag.retrieve import NEAR, RELEVANCE_WEIGHT

DEPTH = 30
READ = 8
"""Passages a question that the reader judges here, as in `Settings.rerank`."""
SETS = ("trial", "cmrc dev", "drcd dev", "authored dev", "authored docs dev")
Ranked = Sequence[int]
Scored = Mapping[int, float]
Rows = list[dict[str, Any]]


@dataclass
class Asked:
    """One question with what each index found, best first, and the reader's opinion of the first few."""

    question: str
    gold: int
    lexical: dict[int, float]
    dense: dict[int, float]
    """Exact for what only the words found, which comes after the nearest."""
    near: frozenset[int]
    """What the vectors alone brought in."""
    focus: dict[int, float]
    relevance: dict[int, float] = field(default_factory=dict)
    span: dict[int, float] = field(default_factory=dict)
    """Probability of the best span that was found in a passage, over all that were read."""

    @property
    def found_near(self) -> dict[int, float]:
        return {i: c for i, c in self.dense.items() if i in self.near}

    @property
    def fused(self) -> dict[int, float]:
        """As the product ranks them."""
        return blend(self, DENSE_WEIGHT, FOCUS_WEIGHT)


def collect(shared: Path, count: int, reader: bool, wanted: Sequence[str]) -> dict[str, list[Asked]]:
    """Search every question once; what follows only reorders."""
    from rag.embedders import load_embedder
    from rag.index.lexical import Bm25Index
    from rag.index.text import index_text
    from rag.index.vectors import FaissStore

    def rows(name: str) -> Rows:
        return list(read_rows(shared / "data" / "qa" / f"{name}.jsonl.zst"))

    dev, docs = rows("authored_dev"), rows("authored_docs_dev")
    plain = {"trial": rows("cmrc2018_trial"), "cmrc dev": rows("cmrc2018_dev"), "drcd dev": rows("drcd_dev")}
    pools = [({name: some}, [("", r["context"]) for r in some]) for name, some in plain.items()]
    authored = [(r["title"], r["context"]) for r in (*rows("authored_train"), *dev, *docs)]
    pools.append(({"authored dev": dev, "authored docs dev": docs}, authored))
    embedder = load_embedder()
    found: dict[str, list[Asked]] = {}
    for sets, pool in pools:
        if not any(name in wanted for name in sets):
            continue
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
            some = random.Random(0).sample(answerable, min(count, len(answerable)) if count else len(answerable))
            found[name] = []
            for row in some:
                question = row["question"]
                vector = embedder.encode_queries([question])[0]
                words, meaning, _ = search_both(question, vector, lexical, vectors, DEPTH)
                focus = Focus.of(question, lexical)
                first = order(fuse([(1.0, words, meaning)]))[:FOCUSED]
                found[name].append(
                    Asked(
                        question,
                        place["" if name in plain else row["title"], row["context"]],
                        words,
                        meaning,
                        frozenset(list(meaning)[:DEPTH]),
                        dict(zip(first, focus(Sentences([passages[i] for i in first])).tolist(), strict=True)),
                    )
                )
            if reader:
                judge(found[name], passages)
    return found


def judge(asked: Iterable[Asked], passages: Sequence[tuple[str, str]]) -> None:
    """Add the reader's relevance, 0…1, of the first few that are near the best, and where its best spans lie."""
    from gglm.engine import Engine
    from gglm.types import Source

    engine = Engine.load()
    for one in asked:
        fused = one.fused
        ranked = order(fused)
        first = [i for i in ranked[:READ] if fused[i] >= NEAR * fused[ranked[0]]]
        read = engine.read(one.question, [Source(passages[i][1], passages[i][0]) for i in first])
        one.relevance = dict(zip(first, read.relevance, strict=True))
        for candidate in read.candidates:
            i = first[candidate.span.source]
            one.span[i] = max(one.span.get(i, 0.0), math.exp(candidate.score))


def blend(one: Asked, dense: float, focus: float) -> dict[int, float]:
    """The product's fusion, with other weights."""
    best, nearest = max(one.lexical.values(), default=0.0) or 1.0, max(one.dense.values(), default=0.0) or 1.0
    total = 1 + dense + focus
    return {
        i: (
            one.lexical.get(i, 0.0) / best
            + dense * max(0.0, one.dense.get(i, 0.0)) / nearest
            + focus * one.focus.get(i, 0.0)
        )
        / total
        for i in one.lexical.keys() | one.dense.keys()
    }


def by_rank(one: Asked, dense_weight: float) -> Ranked:
    """Reciprocal rank fusion (Cormack et al. 2009), k = 60."""
    fused: dict[int, float] = {}
    for leg, weight in ((one.lexical, 1.0), (one.found_near, dense_weight)):
        for rank, i in enumerate(leg, start=1):
            fused[i] = fused.get(i, 0.0) + weight / (60 + rank)
    return order(fused)


def by_cosine(one: Asked, dense_weight: float) -> Ranked:
    """What was used before: the cosine itself, 0 where the vectors did not bring a passage in."""
    best, near = max(one.lexical.values(), default=0.0) or 1.0, one.found_near
    ids = one.lexical.keys() | near.keys()
    return order({i: one.lexical.get(i, 0.0) / best + dense_weight * max(0.0, near.get(i, 0.0)) for i in ids})


def features(one: Asked) -> tuple[list[int], np.ndarray]:
    """Ids, and for each: shares of the best BM25 and cosine, focus, log BM25, cosine, product of the shares."""
    best, nearest = max(one.lexical.values(), default=0.0) or 1.0, max(one.dense.values(), default=0.0) or 1.0
    ids = list(one.lexical.keys() | one.dense.keys())
    rows = []
    for i in ids:
        bm25, cosine = one.lexical.get(i, 0.0), max(0.0, one.dense.get(i, 0.0))
        shares = (bm25 / best, cosine / nearest)
        rows.append([*shares, one.focus.get(i, 0.0), math.log1p(bm25), cosine, shares[0] * shares[1]])
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


def reranked(
    one: Asked, weight: float, near: float = NEAR, lead: float | None = None, first: int = READ, by: str = "relevance"
) -> tuple[Ranked, int]:
    """The reader's opinion blended in for the passages near the best, unless the first leads clearly; how many."""
    fused = one.fused
    ranked = order(fused)
    head = [i for i in ranked[:first] if fused[i] >= near * fused[ranked[0]]]
    if len(head) < 2 or (lead is not None and fused[head[0]] - fused[head[1]] >= lead):
        return ranked, 0
    opinion: dict[int, float] = getattr(one, by)
    blended = {i: (1 - weight) * fused[i] + weight * opinion.get(i, 0.0) for i in head}
    return [*order(blended), *ranked[len(head) :]], len(head)


def report(found: dict[str, list[Asked]], reader: bool) -> dict[str, Any]:
    """Scores by way of ranking and set of questions."""
    ways: dict[str, Callable[[Asked], Ranked]] = {
        "words": lambda one: order(one.lexical),
        "dense": lambda one: order(one.found_near),
        **{f"RRF, dense at {w}": (lambda one, w=w: by_rank(one, w)) for w in (1.0, 0.2)},
        "as shipped": lambda one: order(one.fused),
        "cosine at 0.5 (before)": lambda one: by_cosine(one, 0.5),
        **{f"shares, dense at {d}": (lambda one, d=d: order(blend(one, d, 0.0))) for d in (0.2, 0.35, 0.5, 0.7)},
        **{
            f"shares, dense at {d}, focus at {f}": (lambda one, d=d, f=f: order(blend(one, d, f)))
            for d in (0.35, 0.5)
            for f in (0.25, 0.5, 0.75, 1.0)
        },
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
        for way, columns in (
            ("learned, 2 features (shares)", [0, 1]),
            ("learned, 3 features (and focus)", [0, 1, 2]),
            ("learned, 6 features", list(range(6))),
        ):
            rank = learned(found["trial"], columns)
            add(way, name, [rank(one) for one in asked])
        if reader and asked[0].relevance:
            for lead, weight in ((None, 0.2), (None, 0.35), (None, 0.5), (0.1, 0.35), (0.2, 0.35), (0.2, 0.5)):
                ranks = [reranked(one, weight, lead=lead) for one in asked]
                exit_at = f", exit at a lead of {lead}" if lead else ""
                add(f"relevance at {weight}{exit_at}", name, [r for r, _ in ranks], _mean(n for _, n in ranks))
            for first in (2, 4):
                ranks = [reranked(one, RELEVANCE_WEIGHT, first=first) for one in asked]
                label = f"relevance at {RELEVANCE_WEIGHT}, first {first}"
                add(label, name, [r for r, _ in ranks], _mean(n for _, n in ranks))
            for weight in (0.2, 0.35, 0.999):
                ranks = [reranked(one, weight, by="span") for one in asked]
                add(f"best span at {weight}", name, [r for r, _ in ranks], _mean(n for _, n in ranks))
    return table


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))


def terms(shared: Path, count: int) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """BM25 alone on training questions with several parameters, one by one around what is used."""
    from rag.index import lexical
    from rag.index.text import index_text

    chosen = {"K1": lexical.K1, "B": lexical.B, "CHARACTER": lexical.CHARACTER, "WORD": lexical.WORD}
    before = {"K1": 1.2, "B": 0.75, "CHARACTER": 1.0, "WORD": 1.0}
    others = {"K1": (0.6, 1.2, 1.6), "B": (0.3, 0.75), "CHARACTER": (0.5, 1.0), "WORD": (1.0, 1.5, 3.0)}
    settings = [before, chosen, *({**chosen, name: v} for name, values in others.items() for v in values)]
    sets = []
    for name in ("cmrc2018_train", "drcd_train_subset", "authored_train"):
        rows = list(read_rows(shared / "data" / "qa" / f"{name}.jsonl.zst"))
        titled = name == "authored_train"
        texts = [index_text(r["title"] if titled else "", "", r["context"]) for r in rows]
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        index = lexical.Bm25Index()
        index.add(range(len(place)), list(place))
        answerable = [(r["question"], place[t]) for r, t in zip(rows, texts, strict=True) if r["answers"]]
        sets.append((name, index, random.Random(0).sample(answerable, min(count, len(answerable)))))
    for setting in settings:
        for name, value in setting.items():
            setattr(lexical, name, value)
        found = {}
        for name, index, asked in sets:
            index._refresh()  # the norms hold K1 and B
            ranks = [[i for i in index.search(question, 10)[0].tolist() if i >= 0] for question, _ in asked]
            found[name] = scores(ranks, [{gold} for _, gold in asked])
        yield ", ".join(f"{name} {value}" for name, value in setting.items()), found
    for name, value in chosen.items():
        setattr(lexical, name, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--questions", type=int, default=200, help="at most so many of each set; 0: all")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="trial, to fit on, and these")
    parser.add_argument("--no-reader", action="store_true", help="leave the reader's relevance out")
    parser.add_argument("--terms", action="store_true", help="compare BM25's parameters on training questions")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.terms:
        for setting, measured in terms(arguments.shared, arguments.questions):
            show(setting, measured)
        return
    wanted = {"trial", *arguments.sets}
    found = collect(arguments.shared, arguments.questions, not arguments.no_reader, [n for n in SETS if n in wanted])
    table = report(found, not arguments.no_reader)
    if arguments.out:
        arguments.out.write_text(json.dumps(table, ensure_ascii=False, indent=1), encoding="utf-8")
    print(f"{'R@1 / R@5 / MRR@10':48}" + "".join(f"{name + f' ({len(asked)})':28}" for name, asked in found.items()))
    for way, row in table.items():
        show(way, row)


def show(way: str, row: Mapping[str, Mapping[str, float]]) -> None:
    """One line of a table."""
    cells = [
        f"{m['r@1']:.3f} / {m['r@5']:.3f} / {m['mrr@10']:.3f}" + (f"  {m['windows']}" if "windows" in m else "")
        for m in row.values()
    ]
    print(f"{way:48}" + "".join(f"{cell:28}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
