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
from gglm.training.finetune import check_tokenizer, fresh_model, from_checkpoint
from gglm.training.mixture import PretrainingSampler
from gglm.training.optim import make_optimizers
from gglm.training.reading import micro_batches
from gglm.training.spans import Example
from gglm.training.trainer import RunSettings, Trainer, data_hashes


@dataclass
class PretrainSettings:
    """rows × size tokens a step, in micro-batches of ``micro`` rows (small ones stay in the CPU's cache).

    init: weights to go on from, in place of a new model of ``preset`` whose embeddings start from ``vectors``.
    Some 400 masked tokens a step; twice as many teach as much a token read, 200 beside labelled questions nothing
    (docs/log.md).
    """

    run: RunSettings
    tokenizer: Path
    shards: Path
    heldout: Path | None = None
    vectors: Path | None = None
    init: Path | None = None
    preset: str = "small"
    rows: int = 24
    micro: int = 4
    size: int = 256
    lr: float = 2e-3
    muon_lr: float = 0.02
    muon: bool = True


def heldout_evaluation(
    sampler: PretrainingSampler, questions: int, size: int
) -> Callable[[ChatGGLM], dict[str, float]]:
    """Mean losses on the same ``questions`` held-out ones every time."""
    rng = np.random.default_rng(9)
    batches = micro_batches([sampler.rows(rng, size) for _ in range(questions)], 8)

    def evaluate(model: ChatGGLM) -> dict[str, float]:
        sums: dict[str, torch.Tensor] = {}
        for examples in batches:
            for name, part in losses(model, collate(examples)).items():
                sums[name] = sums.get(name, torch.zeros(2)) + part
        return {name: float(s[0] / s[1]) for name, s in sums.items()}

    return evaluate


def pretrain(settings: PretrainSettings) -> ChatGGLM:
    """Train (or go on training) a base model; see `Trainer` for what is written to ``settings.run.out``."""
    tokenizer = Tokenizer(settings.tokenizer)
    shards = Shards(settings.shards)
    sampler = PretrainingSampler(shards, tokenizer)
    if settings.init:
        model = from_checkpoint(settings.init)
        check_tokenizer(settings.init, model, settings.tokenizer)
    else:
        model = fresh_model(settings.preset, tokenizer, settings.vectors, seed=settings.run.seed)
    seed = settings.run.seed

    def stream(step: int, progress: float) -> list[list[Example]]:
        rng = np.random.default_rng([seed, 13, step])
        return micro_batches([sampler.rows(rng, settings.size) for _ in range(settings.rows)], settings.micro)

    record = {
        "data": data_hashes([settings.tokenizer, settings.shards, settings.vectors, settings.init]),
        "pretrain": {k: str(v) for k, v in vars(settings).items()},
    }
    evaluate = None
    if settings.heldout:
        evaluate = heldout_evaluation(PretrainingSampler(Shards(settings.heldout), tokenizer), 96, settings.size)
    return Trainer(
        model,
        make_optimizers(model, settings.lr, settings.muon_lr, muon=settings.muon),
        stream,
        {"span": 1.0, "masked": 0.5, "relevance": 0.2, "verdict": 0.2},
        settings.run,
        evaluate,
        record,
    ).run()
