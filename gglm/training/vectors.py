"""Token and bigram vectors from a corpus: directional PPMI counts, then a truncated SVD.

The embedding tables start from them (Levy & Goldberg 2014 for PPMI against word2vec; Halko et al.
2011 for the randomised SVD). Vectors that others made can take their place: `gglm.interop.word_vectors`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from gglm.model import ChatGGLM
from gglm.tokenizer import EOS, SPECIAL, Tokenizer
from gglm.training.corpus import Shards

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def token_stream(shards: Shards, limit: int) -> Ints:
    """Up to ``limit`` tokens, a 0 at each document start so that no pair crosses it."""
    ids = np.asarray(shards.ids[:limit]).astype(np.int64)
    starts = shards.offsets[(shards.offsets > 0) & (shards.offsets < len(ids))]
    ids[starts] = 0
    return ids


def common_bigrams(ids: Ints, content: npt.NDArray[np.bool_], vocab: int, size: int) -> Ints:
    """Sorted keys ``previous * vocab + current`` of the ``size - 1`` commonest content pairs, −1 first."""
    good = content[ids[:-1]] & content[ids[1:]]
    keys, counts = np.unique(ids[:-1][good] * vocab + ids[1:][good], return_counts=True)
    kept = np.sort(keys[np.argsort(-counts, kind="stable")[: size - 1]])
    padding = np.full(size - len(kept), -1, np.int64)
    return np.concatenate([padding, kept])


def _counts(rows: Ints, ids: Ints, height: int, contexts: Ints, width: int, span: int) -> Floats:
    """Co-occurrence of ``rows`` (−1: none) with context columns on each side, weighted 1/distance."""
    table = np.zeros((height, 2 * width), np.float32)
    columns = contexts[ids]
    for distance in (1, 2, 3, 4):
        after = (rows[: len(ids) - span - distance + 1], columns[span + distance - 1 :])
        before = (rows[distance:], columns[: len(rows) - distance])
        for side, (r, c) in enumerate((before, after)):
            n = min(len(r), len(c))
            keep = (r[:n] >= 0) & (c[:n] >= 0)
            flat = np.bincount(r[:n][keep] * width + c[:n][keep], minlength=height * width)
            table[:, side * width : (side + 1) * width] += flat.reshape(height, width) / distance
    return table


def train(
    shards: Shards,
    tokenizer: Tokenizer,
    *,
    vocab: int,
    bigrams: int,
    dim: int,
    limit: int = 60_000_000,
    contexts: int = 6000,
    seed: int = 0,
) -> dict[str, npt.NDArray]:
    """Vectors of unit standard deviation.

    Returns:
        tokens float32 (vocab, dim), bigrams float32 (bigrams, dim), keys int64 (bigrams,),
        counts int64 (vocab,).
    """
    ids, contexts = token_stream(shards, limit), min(contexts, vocab)
    content = np.zeros(vocab, bool)
    content[: len(tokenizer)] = tokenizer.is_content
    counts = np.bincount(ids, minlength=vocab)
    keys = common_bigrams(ids, content, vocab, bigrams)
    pair = ids[:-1] * vocab + ids[1:]
    row = np.minimum(np.searchsorted(keys, pair), bigrams - 1)
    row = np.where(keys[row] == pair, row, -1)
    column = np.full(vocab, -1, np.int64)
    commonest = np.argsort(-counts * (np.arange(vocab) >= len(SPECIAL)), kind="stable")[:contexts]
    column[commonest] = np.arange(contexts)
    singles = np.where(ids >= len(SPECIAL), ids, -1)
    table = np.concatenate(
        [_counts(singles, ids, vocab, column, contexts, 1), _counts(row, ids, bigrams, column, contexts, 2)]
    )
    matrix = torch.from_numpy(_ppmi(table))
    vectors = _svd(matrix, dim, seed)
    vectors /= vectors[len(SPECIAL) :].std() + 1e-8
    return {"tokens": vectors[:vocab], "bigrams": vectors[vocab:], "keys": keys, "counts": counts}


def _ppmi(table: Floats, smooth: float = 0.75, shift: float = 0.5) -> Floats:
    """Positive pointwise mutual information in place, context counts smoothed by ``smooth``."""
    rows = table.sum(1, keepdims=True) + 1e-6
    context = table.sum(0, keepdims=True) ** smooth
    context /= context.sum()
    for start in range(0, len(table), 2048):
        part = table[start : start + 2048]
        np.log(np.maximum(part, 1e-9) / (rows[start : start + 2048] * context + 1e-12), out=part)
        np.maximum(part - shift, 0, out=part)
    return table


def _svd(matrix: torch.Tensor, dim: int, seed: int) -> Floats:
    generator = torch.Generator().manual_seed(seed)
    y = matrix @ torch.randn(matrix.shape[1], dim + 32, generator=generator)
    for _ in range(3):
        basis, _ = torch.linalg.qr(y)
        y = matrix @ (matrix.T @ basis)
    basis, _ = torch.linalg.qr(y)
    small = basis.T @ matrix
    u, squares, _ = torch.linalg.svd(small @ small.T)
    return ((basis @ u[:, :dim]) * squares[:dim].sqrt().sqrt()).numpy().astype(np.float32)


@torch.no_grad()
def start_from(model: ChatGGLM, vectors: dict[str, npt.NDArray], scale: float = 0.3) -> None:
    """Fill the embedding tables and the output bias of a fresh model."""
    embedding = model.encoder.embedding
    table = torch.from_numpy(np.asarray(vectors["tokens"])) * scale
    known = table.abs().sum(1) > 0
    embedding.token.weight[known] = table[known]
    if hasattr(embedding, "bigram"):
        embedding.bigram.weight.copy_(torch.from_numpy(np.asarray(vectors["bigrams"])) * scale)
        embedding.bigram.weight[0].zero_()
        embedding.bigram_keys.copy_(torch.from_numpy(np.asarray(vectors["keys"])))
    counts = np.asarray(vectors["counts"]) + 1.0
    counts[EOS] = counts.sum() / 30  # texts end too, though no shard holds the token
    model.output_bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    model.output_gain.fill_(0.1)
