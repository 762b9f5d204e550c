"""Pretraining on plain text: recurring-span selection and masked tokens (see `gglm.training.spans`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gglm.model import ChatGGLM
from gglm.tokenizer import Tokenizer
from gglm.training.batch import collate, losses
from gglm.training.corpus import Shards
from gglm.training.finetune import fresh_model
from gglm.training.optim import make_optimizers
from gglm.training.reading import longest_first
from gglm.training.spans import Example, Lexicon, pretraining_example
from gglm.training.trainer import RunSettings, Trainer


@dataclass
class PretrainSettings:
    """rows × size tokens a step, in micro-batches of ``micro`` rows (small ones stay in the CPU's cache)."""

    run: RunSettings
    tokenizer: Path
    shards: Path
    heldout: Path | None = None
    vectors: Path | None = None
    preset: str = "small"
    rows: int = 24
    micro: int = 4
    size: int = 256
    lr: float = 2e-3
    muon_lr: float = 0.02
    muon: bool = True


def heldout_evaluation(
    shards: Shards, lexicon: Lexicon, rows: int, size: int
) -> Callable[[ChatGGLM], dict[str, float]]:
    """Mean losses on the same ``rows`` held-out examples every time."""
    rng = np.random.default_rng(9)
    examples = [pretraining_example(shards, lexicon, rng, size) for _ in range(rows)]

    def evaluate(model: ChatGGLM) -> dict[str, float]:
        sums: dict[str, torch.Tensor] = {}
        for at in range(0, rows, 8):
            for name, part in losses(model, collate(examples[at : at + 8])).items():
                sums[name] = sums.get(name, torch.zeros(2)) + part
        return {name: float(s[0] / s[1]) for name, s in sums.items()}

    return evaluate


def pretrain(settings: PretrainSettings) -> ChatGGLM:
    """Train (or go on training) a base model; see `Trainer` for what is written to ``settings.run.out``."""
    tokenizer = Tokenizer(settings.tokenizer)
    shards = Shards(settings.shards)
    lexicon = Lexicon.build(tokenizer, shards)
    model = fresh_model(settings.preset, tokenizer, settings.vectors, seed=settings.run.seed)
    seed = settings.run.seed

    def stream(step: int, progress: float) -> list[list[Example]]:
        rng = np.random.default_rng([seed, 13, step])
        rows = longest_first(pretraining_example(shards, lexicon, rng, settings.size) for _ in range(settings.rows))
        return [rows[i : i + settings.micro] for i in range(0, len(rows), settings.micro)]

    evaluate = None
    if settings.heldout:
        evaluate = heldout_evaluation(Shards(settings.heldout), lexicon, 96, settings.size)
    return Trainer(
        model,
        make_optimizers(model, settings.lr, settings.muon_lr, muon=settings.muon),
        stream,
        {"span": 1.0, "masked": 0.5, "relevance": 0.2},
        settings.run,
        evaluate,
        {"settings_pretrain": {k: str(v) for k, v in vars(settings).items()}},
    ).run()
