"""Low-rank adapters (Hu et al. 2021): fine-tune a small model by a few per cent of its weights.

Each projection W of the layers and the span head becomes W + s·B·A with A (rank × in) random and B (out × rank) zero:
training starts exactly where the weights stood, and only A and B move. Merged, they cost nothing in use.
"""

from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gglm.model import ChatGGLM, Linear

TARGETS = ("encoder.layers.", "decoder.layers.", "span_head.")
"""Prefixes of the modules whose projections get adapters: attention, feed-forward, span head."""


class LoraLinear(Linear):
    """A frozen `Linear` with an adapter beside it; ``weight`` keeps its name in the state dict."""

    lora_scale: Tensor

    def __init__(self, linear: Linear, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.weight = linear.weight
        self.weight.requires_grad_(False)
        self.lora_a = nn.Parameter(
            torch.randn(rank, linear.in_features, generator=generator) / math.sqrt(linear.in_features)
        )
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.register_buffer("lora_scale", torch.tensor(alpha / rank))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_a.to(x.dtype))
        return super().forward(x) + F.linear(low, self.lora_b.to(x.dtype)) * self.lora_scale.to(x.dtype)


def add(model: ChatGGLM, rank: int = 8, alpha: float | None = None, seed: int = 0) -> ChatGGLM:
    """Freeze the model and put adapters on the projections of `TARGETS`, in place.

    The relevance head (a vector) is trained as it is, so that refusal can follow.

    Args:
        rank: 1 or more; 4–16 suit a few hundred questions.
        alpha: the adapters' sum is scaled by ``alpha / rank``; twice the rank by default.

    Raises:
        ValueError: the rank is below 1, or the model has adapters already.
    """
    if rank < 1:
        raise ValueError("the rank of LoRA adapters must be 1 or more")
    if any(isinstance(m, LoraLinear) for m in model.modules()):
        raise ValueError("the model has LoRA adapters already: merge them first")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, Linear) and f"{name}.{child_name}".startswith(TARGETS):
                setattr(module, child_name, LoraLinear(child, rank, 2.0 * rank if alpha is None else alpha, generator))
    model.relevance_head.requires_grad_(True)
    return model


def merge(model: ChatGGLM) -> ChatGGLM:
    """Fold the adapters into the weights, in place; the model is plain again and wholly trainable."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoraLinear):
                plain = Linear(child.in_features, child.out_features)
                plain.weight = nn.Parameter(_merged(child.weight, child.lora_a, child.lora_b, child.lora_scale))
                setattr(module, name, plain)
    model.requires_grad_(True)
    return model


def merge_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a model with adapters as that of a plain one; others come back as they are."""
    out = {k: v for k, v in state.items() if ".lora_" not in k}
    for key in state:
        if key.endswith(".lora_a"):
            at = key.removesuffix("lora_a")
            out[f"{at}weight"] = _merged(
                state[f"{at}weight"], state[key], state[f"{at}lora_b"], state[f"{at}lora_scale"]
            )
    return out


@torch.no_grad()
def _merged(weight: Tensor, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    return weight + scale * (b @ a)


def trainable(model: nn.Module) -> int:
    """How many numbers training moves."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
