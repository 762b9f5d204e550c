"""How near training comes to what the machine could do: floating-point operations per token over the measured peak."""

from __future__ import annotations

import time

import torch

from gglm.config import GGLMConfig


def matmul_peak(device: str = "cpu", dtype: torch.dtype = torch.float32, repeats: int = 5) -> float:
    """FLOP/s of the fastest of some square matrix products, with torch's threads; takes a tenth of a second."""
    size = 768 if device == "cpu" else 8192
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))

    def seconds() -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        a @ b
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    return float(2 * size**3 / min(seconds() for _ in range(repeats + 1)))


def training_flops(config: GGLMConfig, length: float) -> float:
    """Of one encoder token, forward and backward, in inputs of ``length`` tokens.

    Six for every weight of the layers' matrices and the span head's keys (two forward, four backward), and the
    attention scores. Embeddings, norms and heads over few positions are left out, and so is the decoder: a lower bound.
    """
    d = config.d_model
    hidden = 3 * d * config.d_ff  # gated, and ReLU² at equal size
    weights = config.encoder_layers * (4 * d * d + hidden) + 2 * d * d
    return float(6 * weights + 12 * config.encoder_layers * d * length)
