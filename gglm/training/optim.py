"""AdamW for embeddings, heads and gains; Muon (Jordan et al. 2024) for the hidden matrices."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from gglm.training.precision import fastest_dtype

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(x: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices of x (N, rows, columns) by Newton–Schulz iteration (bf16 is enough)."""
    a, b, c = _NEWTON_SCHULZ
    x = x.to(fastest_dtype(x.device.type))
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Matrices of one shape are treated in one batch."""

    def __init__(
        self, params: list[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, params in shapes.items():
                ahead = []
                for p in params:
                    assert p.grad is not None
                    state = self.state[p]
                    buffer = state.setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    ahead.append(p.grad.lerp(buffer, group["momentum"]))
                update = orthogonalize(torch.stack(ahead)).float()
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, u in zip(params, update, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-group["lr"] * scale)


def make_optimizers(
    model: nn.Module, lr: float, muon_lr: float, weight_decay: float = 0.02, muon: bool = True
) -> list[torch.optim.Optimizer]:
    """Muon for two-dimensional weights inside encoder and decoder layers, AdamW for all else.

    Only parameters that require gradients take part. Each group keeps its peak rate in ``peak``.
    """
    hidden: list[nn.Parameter] = []
    tables: list[nn.Parameter] = []
    small: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if muon and p.ndim == 2 and ".layers." in name and "conv" not in name:
            hidden.append(p)
        else:
            (tables if p.ndim >= 2 else small).append(p)
    groups = [{"params": tables, "weight_decay": weight_decay}, {"params": small, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.98), fused=True)
    ]
    if hidden:
        optimizers.append(Muon(hidden, lr=muon_lr))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's learning rate to ``factor`` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def trapezoid(progress: float, step: int, warmup: int = 100, decay: float = 0.6, floor: float = 0.01) -> float:
    """Learning-rate factor: linear warm-up, flat, linear fall over the last ``decay`` of the run.

    The warm-up takes ``warmup`` steps or a tenth of the run, whichever ends first.
    """
    warm = min(1.0, max((step + 1) / max(1, warmup), 10 * progress))
    return warm * (1.0 if progress < 1 - decay else max(floor, (1 - progress) / decay))
