"""One process of a data-parallel run: ``python -m tests.gglm.parallel_run TOKENIZER OUT`` (see test_parallel.py)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from gglm.model import ChatGGLM
from gglm.tokenizer import Tokenizer
from gglm.training.optim import make_optimizers
from gglm.training.spans import Example
from gglm.training.trainer import RunSettings, Trainer
from tests.gglm.conftest import examples, others, tiny


def trainer(tokenizer: Tokenizer, out: Path, rdrop: float = 0.0) -> Trainer:
    """Six steps of one to three micro-batches, with dropout."""
    rows = [*examples(tokenizer), *others(tokenizer)]
    model = ChatGGLM(replace(tiny(tokenizer).config, dropout=0.1))

    def stream(step: int, progress: float) -> list[list[Example]]:
        first = 4 * step % 8
        return [rows[first : first + 3], rows[first + 3 : first + 7], rows[8:11]][: 1 + step % 3]

    return Trainer(
        model, make_optimizers(model, 1e-3, 0.01), stream,
        {"span": 1.0, "relevance": 0.2, "write": 0.5, "rdrop": rdrop}, RunSettings(out, steps=6),
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = trainer(Tokenizer(Path(sys.argv[1])), Path(sys.argv[2]))
    model = run.run()
    total = sum(float(p.detach().double().sum()) for p in model.parameters())
    print(f"rank {run.group.rank} of {run.group.size}: {run.tokens} tokens, {total:.3f}")
