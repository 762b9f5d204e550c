"""Which number format trains fastest on this machine."""

from __future__ import annotations

import functools

import torch

from gglm.training.speed import matmul_peak


@functools.cache
def fastest_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 on a GPU and on CPUs that compute it natively, float32 on the others.

    CPUs without AVX512-BF16 or AMX emulate bfloat16 at a fifth of their float32 speed and still
    call it supported, so matrix products of both are timed.
    """
    if device != "cpu":
        return torch.bfloat16
    return max((torch.bfloat16, torch.float32), key=lambda dtype: matmul_peak(device, dtype))
