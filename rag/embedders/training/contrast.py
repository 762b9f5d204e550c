"""Contrastive training of the encoder on batches of hard in-batch negatives (see `packing`)."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.embedders.training.encoder import MATRYOSHKA, features
from rag.embedders.training.packing import Packer, bm25_neighbours
from rag.embedders.training.pairs import Corpus, Ids, Labelled

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)
Pair = tuple[Ids, Ids]


def feed(
    corpus: Corpus, questions: Packer, titles: Labelled, size: int, crop: int, rng: np.random.Generator
) -> list[Pair]:
    """One batch: two thirds questions, the rest pairs from running text and titles."""
    batch = [(questions.rows.questions[q], questions.rows.crop(q, crop, rng)) for q in questions.batch(size * 2 // 3)]
    for index in rng.choice(len(corpus), size - len(batch) - size // 12, replace=False):
        query, passage = corpus.pair(int(index), rng)
        if len(query) and len(passage):
            batch.append((query[:48], passage[:crop]))
    for index in rng.choice(len(titles.questions), size // 12, replace=False):
        batch.append((titles.questions[int(index)], titles.crop(int(index), crop, rng)))
    return batch


def train_encoder(
    model: SentenceTransformer,
    corpus: Corpus,
    questions: Labelled,
    titles: Labelled,
    args: argparse.Namespace,
    exam: Callable[[], dict[str, dict[str, float]]],
) -> None:
    """Train for ``args.minutes``; the best checkpoint by the exam's mean R@1 lands in ``work/run/best``."""
    import torch
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    near = bm25_neighbours(questions.questions, questions.passages, len(model.tokenizer))
    packer = Packer(questions, near, rng)
    inner = MultipleNegativesRankingLoss(model, scale=1 / args.temperature)
    loss_of = MatryoshkaLoss(model, inner, list(MATRYOSHKA), [1.0, 0.3, 0.1])
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            # the vectors have learned already, the layers begin from nothing
            {"params": [p for n, p in named if "embeddings" in n or p.ndim < 2], "rate": args.lr / 2},
            {"params": [p for n, p in named if "embeddings" not in n and p.ndim == 2], "rate": args.lr},
        ],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    folder = Path(args.work) / args.run
    folder.mkdir(parents=True, exist_ok=True)
    best, mean, step, seen = -1.0, 0.0, 0, 0
    began = time.monotonic()
    shown = began

    def check() -> None:
        nonlocal best
        scores = exam()
        value = float(np.mean([s["R@1"] for s in scores.values()]))
        text = "  ".join(f"{n} {s['R@1']:.3f}/{s['R@5']:.3f}" for n, s in scores.items())
        log.info("%.1f min step %d pairs %d loss %.3f  %s", (time.monotonic() - began) / 60, step, seen, mean, text)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": step, "pairs": seen, "loss": mean, "scores": scores}) + "\n")
        if value > best:
            best = value
            model.save(str(folder / "best"), create_model_card=False)
        model.train()

    check()
    while (spent := (time.monotonic() - began) / 60) < args.minutes:
        left = 1 - spent / args.minutes
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min(1.0, (step + 1) / 50) * max(0.02, min(1.0, left / 0.6))
        # the last quarter sees longer crops, as passages are when they are searched
        crop = args.crop if left > 0.25 else args.crop * 2
        batch = feed(corpus, packer, titles, args.batch if left > 0.25 else args.batch // 2, crop, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sides = [features([pair[side] for pair in batch], crop) for side in (0, 1)]
            loss = loss_of(sides, torch.empty(0))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = loss.item() if not step else 0.97 * mean + 0.03 * loss.item()
        step, seen = step + 1, seen + len(batch)
        if step % 10 == 0:
            log.info("step %d pairs %d loss %.3f", step, seen, mean)
        if time.monotonic() - shown > args.every * 60:
            check()
            shown = time.monotonic()
    check()
    model.save(str(folder / "last"), create_model_card=False)
