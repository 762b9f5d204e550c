"""The mean of several runs' weights, often better than each («model soups», Wortsman et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from gglm.errors import DataError
from gglm.training.finetune import from_checkpoint


def average(parts: Sequence[tuple[Path, float]], out: Path) -> Path:
    """Write ``out/checkpoint.pt``, which other runs start from and `train export` reads.

    It means something only for runs that began with the same weights.

    Args:
        parts: checkpoints or weights folders with their shares, any positive numbers.

    Raises:
        DataError: fewer than two parts, a share not above 0, or models of different shapes.
    """
    if len(parts) < 2 or any(share <= 0 for _, share in parts):
        raise DataError("a mean takes two or more checkpoints, with shares above 0")
    models = [from_checkpoint(path, dropout=0.0) for path, _ in parts]
    if any(model.config != models[0].config for model in models):
        raise DataError("these checkpoints are of different shapes: their weights have no mean")
    total = sum(share for _, share in parts)
    states = [model.state_dict() for model in models]
    mean = {
        key: sum(share / total * state[key] for (_, share), state in zip(parts, states, strict=True))
        if first.is_floating_point()
        else first
        for key, first in states[0].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / "checkpoint.tmp"
    torch.save({"config": models[0].config.to_dict(), "ema": mean}, temporary)
    return temporary.replace(out / "checkpoint.pt")
