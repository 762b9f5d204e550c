"""What a conversation's follow-ups become, and what they find.

    python benchmarks/followups.py [--shared ../shared] [--reader] [--json]

**Rewriting**: what `rag.rewrite` makes of a question by its history, against the gold rewrite; exact match and
ROUGE-L on characters, and how many questions that were complete stayed as they were. **Finding**: the turns of
authored_conversations after the first, as typed, as they are searched, and by gold rewrites, over their passages and
all authored ones, by both indexes and their fusion as `rag.retrieve` does it. Complete questions must not find less
than as they were typed. ``--reader`` lets the shipped model rewrite; rules alone without. docs/decisions/010 has the
history.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from gglm.metrics import exact_match, f1, rouge
from rag.evaluation.retrieval import scores
from rag.evaluation.rows import read_rows
from rag.fusion import FOCUSED, Focus, fuse, order, search_both, sharpen
from rag.rewrite import complete, standalone
from rag.types import Turn

DEPTH = 30
REWRITES = ("authored_rewrite_dev", "rewrite_acl19.heldout")
Queries = Sequence[tuple[str, float]]


class Pool:
    """Passages in both indexes."""

    def __init__(self, passages: list[tuple[str, str]]) -> None:
        from rag.embedders import load_embedder
        from rag.index.lexical import Bm25Index
        from rag.index.text import index_text
        from rag.index.vectors import FaissStore

        self.passages = passages
        self.embedder = load_embedder()
        self.lexical, self.vectors = Bm25Index(), FaissStore(self.embedder.dim)
        texts = [index_text(title, "", text) for title, text in passages]
        self.lexical.add(range(len(texts)), texts)
        for at in range(0, len(texts), 64):
            rows = self.embedder.encode_passages(texts[at : at + 64])
            self.vectors.add(np.arange(at, at + len(rows), dtype=np.int64), rows)

    def search(self, queries: Queries) -> list[int]:
        """Passages, by number, as `Retriever.find` ranks them."""
        found = []
        for text, weight in queries:
            vector = self.embedder.encode_queries([text])[0]
            found.append((weight, *search_both(text, vector, self.lexical, self.vectors, DEPTH)[:2]))
        fused = fuse(found)
        texts = {i: self.passages[i] for i in order(fused)[:FOCUSED]}
        return order(sharpen(fused, [(w, Focus.of(text, self.lexical)) for text, w in queries], texts))


def rewriting(shared: Path, reader: object = None) -> dict[str, Any]:
    """Exact match and ROUGE-L in percent by file; ``as_typed`` is the ROUGE-L of doing nothing."""
    found: dict[str, Any] = {}
    for name in REWRITES:
        pairs = [
            (row["question"], row["rewrite"], standalone(row["question"], _turns(row["history"]), reader).question)
            for row in read_rows(shared / "data" / "rewrite" / f"{name}.jsonl.zst")
        ]
        whole = [made == asked for asked, gold, made in pairs if asked == gold]
        found[name] = {
            "count": len(pairs),
            "em": 100 * fmean(exact_match(made, [gold]) for _, gold, made in pairs),
            "rouge_l": 100 * fmean(rouge(made, gold)["rougeL"] for _, gold, made in pairs),
            "as_typed": 100 * fmean(rouge(asked, gold)["rougeL"] for asked, gold, _ in pairs),
            "complete": len(whole),
            "complete_kept": sum(whole),
        }
    return found


def _turns(said: Sequence[str]) -> list[Turn]:
    """The last one is the assistant's, and they alternate."""
    return [Turn("assistant" if (len(said) - n) % 2 else "user", text) for n, text in enumerate(said)]


def conversations(shared: Path) -> tuple[list[dict[str, Any]], Pool, dict[tuple[str, str], int]]:
    """authored_conversations, their passages among all authored ones, and where each of these is."""
    data = shared / "data"
    talks = list(read_rows(data / "chat" / "authored_conversations.jsonl.zst"))
    names = ("authored_train", "authored_dev", "authored_docs_dev")
    rows = [*talks, *(row for name in names for row in read_rows(data / "qa" / f"{name}.jsonl.zst"))]
    passages = list(dict.fromkeys((row["title"], row["context"]) for row in rows))
    return talks, Pool(passages), {passage: i for i, passage in enumerate(passages)}


def finding(shared: Path, reader: object = None) -> dict[str, Any]:
    """Scores by kind of turn and what was searched with."""
    talks, pool, place = conversations(shared)
    ranks: dict[str, dict[str, list[list[int]]]] = {}
    gold: dict[str, list[set[int]]] = {}
    for talk in talks:
        history: list[Turn] = []
        for turn in talk["turns"]:
            question, kind = turn["question"], turn["kind"]
            if history and kind not in ("chat", "unanswerable"):
                group = "complete" if complete(question) and turn["rewrite"] == question else "follow-ups"
                gold.setdefault(group, []).append({place[talk["title"], talk["context"]]})
                ways = {
                    "as typed": [(question, 1.0)],
                    "as searched": standalone(question, history, reader).queries,
                    "gold rewrite": [(turn["rewrite"], 1.0)],
                }
                for way, queries in ways.items():
                    ranks.setdefault(group, {}).setdefault(way, []).append(pool.search(queries))
            history += [Turn("user", question), Turn("assistant", turn["answer"])]
    return {
        group: {"turns": len(gold[group]), **{way: scores(found, gold[group]) for way, found in ways.items()}}
        for group, ways in ranks.items()
    }


def answering(shared: Path) -> dict[str, Any]:
    """Follow-ups of authored_conversations answered, right and refused, by what is read in which order."""
    from gglm.engine import Engine
    from gglm.types import Source

    engine = Engine.load()
    talks, pool, _ = conversations(shared)
    orders: dict[str, list[tuple[bool, bool]]] = {}
    for talk in talks:
        history: list[Turn] = []
        for turn in talk["turns"]:
            asked = standalone(turn["question"], history)
            if asked.plain and turn["kind"] != "chat":
                sources = [Source(pool.passages[i][1], pool.passages[i][0]) for i in pool.search(asked.queries)[:4]]
                readings = engine.read_batch([(q, sources, ()) for q in (asked.plain, asked.question)], found=True)
                typed, rewritten = (r if r.answerable else None for r in readings)
                first = typed if typed and typed.candidates[0].span.source == 0 else None
                gold = turn["evidence"] if turn["kind"] in ("yesno", "abstractive") else turn["answer"]
                for name, said in {
                    "typed": typed, "rewritten": rewritten, "typed, rewritten": typed or rewritten,
                    "rewritten, typed": rewritten or typed, "typed in the first, rewritten": first or rewritten,
                }.items():  # fmt: skip
                    right = said is not None and bool(gold) and f1(said.answer, [gold]) >= 0.5
                    orders.setdefault(f"{name}{'' if gold else ', unanswerable'}", []).append((said is not None, right))
            history += [Turn("user", turn["question"]), Turn("assistant", turn["answer"])]
    return {
        name: {"turns": len(said), "answered": sum(a for a, _ in said), "right": sum(r for _, r in said)}
        for name, said in orders.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--reader", action="store_true")
    parser.add_argument("--answering", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    reader: object = None
    if arguments.reader:
        from rag.service import get_service

        reader = get_service().reader
    report = {"rewriting": rewriting(arguments.shared, reader), "finding": finding(arguments.shared, reader)}
    if arguments.answering:
        report["answering"] = answering(arguments.shared)
    print(json.dumps(report, ensure_ascii=False, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
