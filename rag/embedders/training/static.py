"""The static start: one vector per piece, from co-occurrence counts, then by contrast of averages.

Positive pointwise mutual information within a window, factored by a truncated SVD, gives pieces of
like use like vectors. Contrastive training of plain averages of them (minutes on one core, for an
average costs next to nothing) then learns how much each piece should weigh.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag.embedders.training.encoder import MATRYOSHKA
from rag.embedders.training.loss import Memory, contrast
from rag.embedders.training.packing import Batch
from rag.embedders.training.pairs import Corpus, Ids, Labelled, Similar

if TYPE_CHECKING:
    import torch

    from rag.embedders.training.distil import ListBatch

log = logging.getLogger(__name__)
FloatMatrix = npt.NDArray[np.float32]
THINNED = (0.15, 0.25)
"""Mean share of pieces left out of a query and of a passage."""


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


def thin(ids: Ids, share: float, rng: np.random.Generator) -> Ids:
    """The text without a random share of its pieces, up to twice ``share``; short texts stay whole.

    Piece vectors alone learn the training questions by heart within minutes; thinned texts are never the same.
    """
    return ids[rng.random(len(ids)) >= 2 * share * rng.random()] if len(ids) > 5 else ids


def batches(
    corpus: Corpus,
    questions: Labelled,
    titles: Labelled,
    similar: Similar,
    size: int,
    rng: np.random.Generator,
    balance: float = 0,
) -> Iterator[Batch]:
    """Endless batches: two fifths questions, a few titles and sentences of one meaning, the rest running text.

    With ``balance`` questions of passages that are asked much are drawn less (`Labelled.chances`).
    """
    short, long = THINNED
    chances = {id(rows): rows.chances(balance) for rows in (questions, titles)}
    while True:
        batch = Batch([], [], [], [])
        key = 0
        for rows, count, limit in ((questions, size * 2 // 5, 400), (titles, size // 12, 300)):
            for index in rng.choice(len(rows.questions), count, replace=False, p=chances[id(rows)]).tolist():
                passage = thin(rows.crop(index, limit, rng), long, rng)
                batch.add(thin(rows.questions[index], short, rng), passage, key + int(rows.passage[index]))
            key += len(rows.passages)
        for index in rng.choice(len(similar.first), size // 24, replace=False).tolist():
            batch.add(similar.first[index], similar.second[index], key + index)
            if len(others := similar.negatives[index]):
                batch.extra.append(similar.others[int(rng.choice(others))])
        key += len(similar.first)
        for index in rng.choice(len(corpus), size - len(batch.queries), replace=False).tolist():
            query, passage = corpus.pair(index, rng)
            batch.add(thin(query[:64], short, rng), thin(passage[:300], long, rng), key + index)
        batch.extra = [ids for ids in batch.extra if len(ids)]
        yield batch


def train_static(
    vectors: FloatMatrix,
    feed: Iterator[Batch],
    steps: int,
    lr: float = 0.02,
    temperature: float = 0.05,
    report: Callable[[FloatMatrix], str] | None = None,
    lists: Iterator[ListBatch] | None = None,
    weight: float = 1.0,
) -> FloatMatrix:
    """Contrastive training of averages; the rate falls to nothing over ``steps`` batches.

    With ``lists`` the divergence from their teacher (see `distil`), times ``weight``, is added to each step's loss.
    """
    import torch

    from rag.embedders.training.distil import divergence

    table = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(vectors.copy()), freeze=False, mode="mean")
    optimizer = torch.optim.Adam(table.parameters(), lr=lr, betas=(0.9, 0.98), fused=True)
    memory = Memory(0, vectors.shape[1])
    shown, mean = time.monotonic(), 0.0

    def averages(texts: list[Ids]) -> torch.Tensor:
        starts = np.cumsum([0, *map(len, texts[:-1])])
        return table(torch.from_numpy(np.concatenate(texts).astype(np.int64)), torch.from_numpy(starts))

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20) * max(0.01, 1 - step / steps)
        batch = next(feed)
        keys = torch.tensor(batch.keys + [-1 - i for i in range(len(batch.extra))])
        dims = (vectors.shape[1], *MATRYOSHKA[1:])
        loss = contrast(
            averages(batch.queries), averages(batch.passages + batch.extra), keys, memory, temperature, dims
        )
        if lists is not None:
            part = next(lists)
            loss = loss + weight * divergence(averages(part.queries), averages(part.passages), part.target, temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.item() if not step else 0.97 * mean + 0.03 * loss.item()
        if time.monotonic() - shown > 300:
            shown = time.monotonic()
            weights = table.weight.detach().numpy()
            log.info("static step %d of %d loss %.3f %s", step + 1, steps, mean, report(weights) if report else "")
    return table.weight.detach().numpy().copy()


def average(vectors: FloatMatrix, texts: list[Ids]) -> FloatMatrix:
    """Unit-length averages (n, dim)."""
    out = np.stack([vectors[t].mean(0) if len(t) else np.zeros(vectors.shape[1], np.float32) for t in texts])
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
