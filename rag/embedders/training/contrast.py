"""Contrastive training of the encoder on batches of hard in-batch negatives (see `packing` and `loss`)."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.embedders.training.encoder import MATRYOSHKA, features
from rag.embedders.training.loss import Memory, contrast
from rag.embedders.training.packing import Batch, Packer, bm25_neighbours
from rag.embedders.training.pairs import Corpus, Ids, Labelled, Similar
from rag.embedders.training.static import thin

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)
QUESTIONS, TITLES, SIMILAR = 0.62, 0.1, 0.06
"""Shares of a batch; the rest are pairs from running text."""
DROPPED = 0.1
"""Share of a query's pieces left out, so that no single word is relied on."""


class Feed:
    """Batches of about ``size`` pairs: questions, titles, sentences that mean the same, running text."""

    def __init__(
        self,
        corpus: Corpus,
        questions: Packer,
        titles: Labelled,
        similar: Similar,
        rng: np.random.Generator,
        thinned: float = 0.0,
    ) -> None:
        self.corpus, self.questions, self.titles, self.similar, self.rng = corpus, questions, titles, similar, rng
        self.thinned = thinned
        """Mean share of a passage's pieces left out, so that questions are not learned by heart."""

    def batch(self, size: int, crop: int) -> Batch:
        """Pairs whose passages are cut to ``crop`` pieces."""
        batch = self._batch(size, crop)
        batch.passages[:] = [thin(ids, self.thinned, self.rng) for ids in batch.passages]
        return batch

    def _batch(self, size: int, crop: int) -> Batch:
        rng, rows = self.rng, self.questions.rows
        batch = Batch([], [], [], [])
        for q in self.questions.batch(int(size * QUESTIONS)):
            batch.add(self._drop(rows.questions[q]), rows.crop(q, crop, rng), int(rows.passage[q]))
        key = len(rows.passages)
        titles, similar = self.titles, self.similar
        for index in rng.choice(len(titles.questions), int(size * TITLES), replace=False).tolist():
            batch.add(
                self._drop(titles.questions[index]), titles.crop(index, crop, rng), key + int(titles.passage[index])
            )
        key += len(titles.passages)
        for index in rng.choice(len(similar.first), int(size * SIMILAR), replace=False).tolist():
            batch.add(similar.first[index], similar.second[index], key + index)
            if len(others := similar.negatives[index]):
                batch.extra.append(similar.others[int(rng.choice(others))])
        key += len(similar.first)
        for index in rng.choice(len(self.corpus), size - len(batch.queries), replace=False).tolist():
            query, passage = self.corpus.pair(index, rng)
            batch.add(query[:48], passage[:crop], key + index)
        return batch

    def _drop(self, ids: Ids) -> Ids:
        return ids[self.rng.random(len(ids)) >= DROPPED] if len(ids) > 5 else ids


def embed(model: SentenceTransformer, texts: Sequence[Ids], limit: int, tokens: int = 4096) -> torch.Tensor:
    """Unit vectors (n, dim) with gradient, in parts of like length so that little padding is computed."""
    import torch

    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    parts, at = list[torch.Tensor](), 0
    while at < len(order):
        count = max(1, tokens // (min(limit, len(texts[order[at]])) + 1))
        part = features([texts[i] for i in order[at : at + count]], limit)
        parts.append(model(part)["sentence_embedding"])
        at += count
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(parts)[back]


class Average:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.kept = {name: p.detach().clone() for name, p in model.named_parameters()}

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 20))
        for name, p in self.model.named_parameters():
            self.kept[name].lerp_(p.detach(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside, its own parameters again afterwards."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            p.data.copy_(self.kept[name])
        try:
            yield
        finally:
            for name, p in self.model.named_parameters():
                p.data.copy_(own[name])


def optimizers(model: torch.nn.Module, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, Adam for the rest; each group's peak rate is kept in ``peak``.

    Piece vectors move at four times the rate: most rows have a gradient in few batches only.
    """
    import torch

    from gglm.training.optim import Muon

    layers, tables, small = list[torch.nn.Parameter](), list[torch.nn.Parameter](), list[torch.nn.Parameter]()
    for name, p in model.named_parameters():
        (small if p.ndim < 2 else tables if "embeddings" in name else layers).append(p)
    groups = [{"params": tables, "lr": 4 * lr}, {"params": small, "lr": lr}]
    found: list[torch.optim.Optimizer] = [
        torch.optim.Adam(groups, betas=(0.9, 0.98), fused=True),
        Muon(layers, lr=muon_lr, weight_decay=0.0),
    ]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return found


def train_encoder(
    model: SentenceTransformer,
    corpus: Corpus,
    questions: Labelled,
    titles: Labelled,
    similar: Similar,
    args: argparse.Namespace,
    exam: Callable[[], dict[str, dict[str, float]]],
) -> None:
    """Train for ``args.steps`` batches, or by the clock for ``args.minutes`` where that is 0.

    The averaged weights with the exam's best mean R@1 land in ``work/run/best``.
    """
    import torch

    from gglm.training.optim import set_rate, trapezoid
    from gglm.training.precision import fastest_dtype

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    near = bm25_neighbours(questions.questions, questions.passages, len(model.tokenizer))
    feed = Feed(corpus, Packer(questions, near, rng), titles, similar, rng, args.thin)
    found = optimizers(model, args.lr, args.muon_lr)
    average = Average(model, args.ema)
    memory = Memory(args.memory, model.get_embedding_dimension() or MATRYOSHKA[0])
    dtype = fastest_dtype()
    folder = Path(args.work) / args.run
    folder.mkdir(parents=True, exist_ok=True)
    best, mean, step, seen = -1.0, 0.0, 0, 0
    began = time.monotonic()
    shown = began

    def check() -> None:
        nonlocal best
        with average.applied():
            scores = exam()
            value = float(np.mean([s["R@1"] for s in scores.values()]))
            text = "  ".join(f"{n} {s['R@1']:.3f}/{s['R@5']:.3f}" for n, s in scores.items())
            minutes = (time.monotonic() - began) / 60
            log.info("%.1f min step %d pairs %d loss %.3f  %s", minutes, step, seen, mean, text)
            with (folder / "log.jsonl").open("a", encoding="utf-8") as out:
                record = {"minutes": minutes, "step": step, "pairs": seen, "loss": mean, "scores": scores}
                out.write(json.dumps(record) + "\n")
            model.save(str(folder / "last"), create_model_card=False)
            if value > best:
                best = value
                model.save(str(folder / "best"), create_model_card=False)
        model.train()

    check()

    def progress_now() -> float:
        return step / args.steps if args.steps else (time.monotonic() - began) / 60 / args.minutes

    while (progress := progress_now()) < 1:
        set_rate(found, trapezoid(progress, step, warmup=30, decay=0.7))
        # the last third sees longer crops, as passages are when they are searched
        crop = args.crop if progress < 2 / 3 else args.crop * 2
        batch = feed.batch(args.batch, crop)
        keys = torch.tensor(batch.keys + [-1 - i for i in range(len(batch.extra))])
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            q = embed(model, batch.queries, crop)
            p = embed(model, batch.passages + batch.extra, crop)
        loss = contrast(q.float(), p.float(), keys, memory, args.temperature)
        memory.push(p.float()[: len(batch.queries)], keys[: len(batch.queries)])
        for optimizer in found:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in found:
            optimizer.step()
        average.update()
        mean = loss.item() if not step else 0.97 * mean + 0.03 * loss.item()
        step, seen = step + 1, seen + len(batch.queries)
        if step % 10 == 0:
            log.info("step %d pairs %d loss %.3f", step, seen, mean)
        if time.monotonic() - shown > args.every * 60:
            check()
            shown = time.monotonic()
    check()
