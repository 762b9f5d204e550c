"""The contrastive loss (InfoNCE), with negatives of four kinds, none of them encoded for that alone:

- the other passages of the batch, made hard by what is put together (see `packing`);
- the passages of the last few batches, kept as vectors (cross-batch memory, Wang et al. 2020);
- for sentences that mean the same: sentences that only resemble them;
- and, in the other direction, the batch's other questions for each passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag.embedders.training.encoder import MATRYOSHKA

if TYPE_CHECKING:
    import torch

MATRYOSHKA_WEIGHTS = (1.0, 0.3, 0.1)
BOTH_WAYS = 0.3
"""Weight of passage → question beside question → passage."""


class Memory:
    """The last ``size`` passages as vectors without gradient, with their keys."""

    def __init__(self, size: int, dim: int) -> None:
        import torch

        self.size = size
        self.vectors, self.keys = torch.zeros(0, dim), torch.zeros(0, dtype=torch.long)

    def push(self, vectors: torch.Tensor, keys: torch.Tensor) -> None:
        import torch

        self.vectors = torch.cat([vectors.detach(), self.vectors])[: self.size]
        self.keys = torch.cat([keys, self.keys])[: self.size]


def contrast(
    queries: torch.Tensor,
    passages: torch.Tensor,
    keys: torch.Tensor,
    memory: Memory,
    temperature: float,
    dims: Sequence[int] = MATRYOSHKA,
) -> torch.Tensor:
    """InfoNCE over all Matryoshka ``dims``, weighted.

    Args:
        queries: (n, dim).
        passages: (m, dim), m ≥ n; row i belongs to query i, rows from n on to no query.
        keys: (m,); passages that share a key are never negatives of one another's queries.
    """
    import torch
    from torch.nn import functional as F

    count = len(queries)
    others, all_keys = torch.cat([passages, memory.vectors]), torch.cat([keys, memory.keys])
    same = keys[:count, None] == all_keys[None]
    same[torch.arange(count), torch.arange(count)] = False
    target = torch.arange(count)
    total = queries.new_zeros(())
    for dim, weight in zip(dims, MATRYOSHKA_WEIGHTS, strict=True):
        q, p = F.normalize(queries[:, :dim], dim=1), F.normalize(others[:, :dim], dim=1)
        scores = (q @ p.T / temperature).masked_fill(same, float("-inf"))
        loss = F.cross_entropy(scores, target) + BOTH_WAYS * F.cross_entropy(scores[:, :count].T, target)
        total = total + weight * loss
    return total
