"""Retrieval scores on labelled questions: every paragraph of a set is searched for each question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gglm.training.corpus import read_jsonl
from rag.embedders.training.pairs import similar_rows


@dataclass(frozen=True)
class Task:
    """``gold[q]`` is the index in ``passages`` that question q belongs to."""

    name: str
    questions: list[str]
    passages: list[str]
    gold: npt.NDArray[np.int64]


def task(name: str, data: Path, files: tuple[str, ...], asked: tuple[str, ...] | None = None) -> Task:
    """Answerable questions of the files named in ``asked`` (all by default) over the passages of ``files``."""
    passages: dict[str, int] = {}
    questions, gold = list[str](), list[int]()
    for file in files:
        for row in read_jsonl(data / f"qa/{file}.jsonl.zst"):
            index = passages.setdefault(row["context"], len(passages))
            if row.get("answerable", True) and (asked is None or file in asked):
                questions.append(row["question"])
                gold.append(index)
    return Task(name, questions, list(passages), np.array(gold))


def tasks(data: Path) -> list[Task]:
    """The sets to choose by (trial, authored) and to report (CMRC dev, DRCD dev, invented documents)."""
    authored = ("authored_dev", "authored_train")
    return [
        task("cmrc_trial", data, ("cmrc2018_trial",)),
        task("authored_dev", data, authored, ("authored_dev",)),
        task("cmrc_dev", data, ("cmrc2018_dev",)),
        task("drcd_dev", data, ("drcd_dev",)),
        task(
            "authored_docs_dev", data, ("authored_docs_dev", "authored_dev", "authored_train"), ("authored_docs_dev",)
        ),
    ]


def similarity(data: Path) -> list[tuple[str, list[str], list[str], npt.NDArray[np.bool_]]]:
    """(name, sentences, other sentences, whether each two mean the same) of sets that are only measured.

    The held-out similarity pairs set a sentence's match against ones chosen to resemble it; PAWS-X pairs
    share nearly all their words.
    """
    held_out = [
        (query, text, text == positive)
        for query, positive, negatives in similar_rows(data, held_out=True)
        for text in (positive, *negatives)
    ]
    paws = [(row["a"], row["b"], bool(row["label"])) for row in read_jsonl(data / "retrieval/pawsx_zh_dev.jsonl.zst")]
    sets = {"held-out similarity pairs": held_out, "PAWS-X zh dev": paws}
    return [
        (name, [r[0] for r in rows], [r[1] for r in rows], np.array([r[2] for r in rows]))
        for name, rows in sets.items()
    ]


def ranks(
    queries: npt.NDArray[np.float32], passages: npt.NDArray[np.float32], gold: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Rank of the gold passage for each query, from 1; ties count against it."""
    scores = queries @ passages.T
    own = scores[np.arange(len(gold)), gold]
    return (scores >= own[:, None]).sum(1).astype(np.int64)


def summary(rank: npt.NDArray[np.int64]) -> dict[str, float]:
    """R@1, R@5, R@10, MRR@10 and nDCG@10 (one relevant passage per question)."""
    within = rank <= 10
    return {
        "R@1": float((rank <= 1).mean()),
        "R@5": float((rank <= 5).mean()),
        "R@10": float(within.mean()),
        "MRR@10": float(np.where(within, 1 / rank, 0).mean()),
        "nDCG@10": float(np.where(within, 1 / np.log2(1 + rank), 0).mean()),
    }
