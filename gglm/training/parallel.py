"""Data-parallel training with `torchrun`: every process holds the model and takes its share of each step's batches.

Gradients are summed over the processes before the optimizer steps, so all of them take the same step and N processes
give what one gives (up to rounding). Without torchrun there is one process and nothing here does anything:

    torchrun --no-python --nproc-per-node 2 chatgglm train finetune …   (each process has one thread, or one GPU)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among all: ``rank`` 0 … ``size`` − 1. Rank 0 logs, evaluates and saves."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str = "cpu") -> Group:
        """The group that `torchrun` started (its environment says so), else a group of one."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if device != "cpu":
            torch.cuda.set_device(device_of(device))
        if not dist.is_initialized():
            dist.init_process_group("gloo" if device == "cpu" else "nccl")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[tuple[int, T]]:
        """Every ``size``-th item, with its number among all."""
        return list(enumerate(items))[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes the sum over the processes, in one message; a missing one counts as zero."""
        if self.size == 1:
            return
        wanted = [p for p in parameters if p.requires_grad]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in wanted])
        used = torch.tensor([float(p.grad is not None) for p in wanted], device=flat.device)
        dist.all_reduce(flat)
        dist.all_reduce(used)  # what no process has stays missing, so that optimizers skip it as they do alone
        at = 0
        for p, count in zip(wanted, used.tolist(), strict=True):
            part = flat[at : at + p.numel()].view_as(p)
            p.grad = part.clone() if count else None
            at += p.numel()

    def total(self, value: float) -> float:
        """The sum of a number over the processes."""
        if self.size == 1:
            return value
        numbers: list[float] = [0.0] * self.size
        dist.all_gather_object(numbers, value)
        return sum(numbers)

    def of_first(self, value: float) -> float:
        """Rank 0's number, for all."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def start_alike(self, model: nn.Module) -> None:
        """Every process takes over rank 0's weights."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def device_of(name: str) -> str:
    """``cuda`` as this process's own GPU under torchrun."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name
