"""Which number format trains fastest on this machine."""

from __future__ import annotations

import functools
import time

import torch
import torch.nn.functional as F


@functools.cache
def fastest_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 on a GPU and on CPUs that compute it natively, float32 on the others.

    CPUs without AVX512-BF16 or AMX emulate bfloat16 at a fifth of their float32 speed and still
    call it supported, so one matrix product of each is timed (20 ms).
    """
    if device != "cpu":
        return torch.bfloat16
    return min((torch.bfloat16, torch.float32), key=_seconds)


def _seconds(dtype: torch.dtype, size: int = 512, repeats: int = 5) -> float:
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    F.linear(a, b)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        F.linear(a, b)
        best = min(best, time.perf_counter() - began)
    return best
