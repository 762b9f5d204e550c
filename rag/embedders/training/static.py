"""The static start: one vector per piece, from co-occurrence counts, then by contrast of averages.

Positive pointwise mutual information within a window, factored by a truncated SVD, gives pieces of
like use like vectors. Contrastive training of plain averages of them (minutes on one core, for an
average costs next to nothing) then learns how much each piece should weigh.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from rag.embedders.training.packing import Packer
from rag.embedders.training.pairs import Corpus, Ids, Labelled

log = logging.getLogger(__name__)
FloatMatrix = npt.NDArray[np.float32]


def ppmi_vectors(corpus: Corpus, vocab_size: int, dim: int, window: int = 6, seed: int = 0) -> FloatMatrix:
    """(vocab_size, dim) from pieces that occur at most ``window`` apart; rows of rare pieces are short."""
    from scipy.sparse import coo_matrix, csr_matrix
    from sklearn.utils.extmath import randomized_svd

    ids = corpus.sentences.ids.astype(np.int64)
    counts = csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for start in range(0, len(ids), 2_000_000):
        part = ids[start : start + 2_000_000]
        for distance in range(1, window + 1):
            a, b = part[:-distance], part[distance:]
            weight = np.full(len(a), 1 / distance, np.float32)
            counts = counts + coo_matrix((weight, (a, b)), shape=counts.shape).tocsr()
    counts = (counts + counts.T).tocoo()
    total = counts.data.sum()
    row = np.bincount(counts.row, counts.data, vocab_size) + 1e-6
    column = row**0.75
    column /= column.sum()
    value = np.log(counts.data / (row[counts.row] * column[counts.col]))
    keep = value > 0.3
    log.info("co-occurrence: %d pairs kept of %d, total weight %.0f", keep.sum(), len(value), total)
    matrix = csr_matrix((value[keep].astype(np.float32), (counts.row[keep], counts.col[keep])), shape=counts.shape)
    u, s, _ = randomized_svd(matrix, dim, n_iter=3, random_state=seed)
    vectors = (u * np.sqrt(s)).astype(np.float32)
    return vectors / (vectors.std() + 1e-9)


def weigh(vectors: FloatMatrix, corpus: Corpus) -> FloatMatrix:
    """Rows of one length times a smooth inverse frequency, so that averages start out sensible."""
    counts = np.bincount(corpus.sentences.ids, minlength=len(vectors)) + 1.0
    frequency = counts / counts.sum()
    weight = 1e-3 / (1e-3 + frequency)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.where(norm > 0, vectors / np.maximum(norm, 1e-9), 0)
    rng = np.random.default_rng(0)
    unit[norm[:, 0] == 0] = rng.normal(size=(int((norm == 0).sum()), vectors.shape[1])) * 0.02
    return (unit * weight[:, None] * np.sqrt(vectors.shape[1])).astype(np.float32)


def batches(
    corpus: Corpus, questions: Packer, titles: Labelled, size: int, rng: np.random.Generator
) -> Iterator[list[tuple[Ids, Ids]]]:
    """Endless batches of (query, passage): half from running text, the rest questions and a few titles."""
    while True:
        batch = []
        for index in rng.choice(len(corpus), size // 2, replace=False):
            query, passage = corpus.pair(int(index), rng)
            if len(query) and len(passage):
                batch.append((query, passage[:200]))
        batch += [
            (questions.rows.questions[q], questions.rows.crop(q, 200, rng)) for q in questions.batch(size * 2 // 5)
        ]
        for index in rng.choice(len(titles.questions), size // 10, replace=False):
            batch.append((titles.questions[int(index)], titles.crop(int(index), 200, rng)))
        yield batch


def train_static(
    vectors: FloatMatrix,
    feed: Iterator[list[tuple[Ids, Ids]]],
    minutes: float,
    lr: float = 0.05,
    scale: float = 20.0,
    report: Callable[[FloatMatrix], str] | None = None,
) -> FloatMatrix:
    """Contrastive training of averages with in-batch negatives (MultipleNegativesRankingLoss)."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    module = StaticEmbedding(Tokenizer(models.BPE()), embedding_weights=vectors)
    model = SentenceTransformer(modules=[module], device="cpu")
    loss_of = MultipleNegativesRankingLoss(model, scale=scale)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.98))
    began, step, shown = time.monotonic(), 0, 0.0
    mean = 0.0
    while (spent := (time.monotonic() - began) / 60) < minutes:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 30) * max(0.02, 1 - spent / minutes)
        batch = next(feed)
        features = [bag([pair[side] for pair in batch]) for side in (0, 1)]
        loss = loss_of(features, torch.empty(0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if not step else 0.97 * mean + 0.03 * loss.item()
        step += 1
        if time.monotonic() - shown > 45:
            shown = time.monotonic()
            weights = module.embedding.weight.detach().numpy()
            log.info("static %.1f min step %d loss %.3f %s", spent, step, mean, report(weights) if report else "")
    return module.embedding.weight.detach().numpy().copy()


def bag(texts: list[Ids]) -> dict[str, object]:
    """Features of `StaticEmbedding`: all ids in a row, and where each text starts."""
    import torch

    offsets = np.concatenate([[0], np.cumsum([len(t) for t in texts])[:-1]])
    ids = np.concatenate(texts).astype(np.int64)
    return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(offsets)}


def average(vectors: FloatMatrix, texts: list[Ids]) -> FloatMatrix:
    """Unit-length averages (n, dim)."""
    out = np.stack([vectors[t].mean(0) if len(t) else np.zeros(vectors.shape[1], np.float32) for t in texts])
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
