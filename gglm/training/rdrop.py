"""R-Drop (Wu et al. 2021): two passes with different dropout have to agree about where the answer is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gglm.model import ChatGGLM
from gglm.training.batch import TrainBatch, losses


def rdrop_losses(model: ChatGGLM, batch: TrainBatch, teacher_forcing_ratio: float = 1.0) -> dict[str, Tensor]:
    """`losses`, the mean of two passes, and ``rdrop``: how far apart they are.

    ``rdrop`` is the symmetric Kullback–Leibler divergence of the span head's start and end distributions, summed over
    the slots asked. It needs dropout above 0, and a step takes twice as long.
    """
    passes = [model.encode(batch.tokens, batch.segments, batch.matches) for _ in range(2)]
    first, second = (losses(model, batch, teacher_forcing_ratio, hidden) for hidden in passes)
    out = {name: (first[name] + second[name]) / 2 for name in first}
    if batch.asked.any():
        heads = [model.span_head(hidden, batch.slots, batch.allowed) for hidden in passes]
        apart = torch.stack([_symmetric(a[batch.asked], b[batch.asked]) for a, b in zip(*heads, strict=True)]).sum()
        out["rdrop"] = torch.stack([apart, apart.new_tensor(float(batch.asked.sum()))])
    return out


def _symmetric(a: Tensor, b: Tensor) -> Tensor:
    """(KL(a‖b) + KL(b‖a)) / 2 of logits (N, L), summed over rows."""
    x, y = a.log_softmax(-1), b.log_softmax(-1)
    both = F.kl_div(x, y, reduction="sum", log_target=True) + F.kl_div(y, x, reduction="sum", log_target=True)
    return both / 2
