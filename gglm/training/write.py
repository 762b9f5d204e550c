"""Training of the decoder on all writing tasks; the encoder and its heads can stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gglm.model import ChatGGLM
from gglm.tokenizer import EOS, Tokenizer
from gglm.training.finetune import check_tokenizer, from_checkpoint
from gglm.training.optim import make_optimizers
from gglm.training.trainer import RunSettings, Trainer, data_hashes
from gglm.training.writing import WritingSampler, WritingSource, heldout_loss


@dataclass
class WriteSettings:
    """init: checkpoint of the reader; decoder_init: one whose decoder is taken over, if given.

    With ``freeze_encoder`` reading stays exactly as it was; ``frozen`` are prefixes of further parameters that stay
    (``encoder.embedding.bigram``: a table that need not be stored twice, see `gglm.weights.save`).
    """

    run: RunSettings
    tokenizer: Path
    init: Path
    sources: Sequence[WritingSource]
    dev: Sequence[WritingSource] = ()
    decoder_init: Path | None = None
    freeze_encoder: bool = True
    frozen: Sequence[str] = ()
    micro: int = 6
    groups: int = 4
    lr: float = 1.5e-3
    muon_lr: float = 0.02


def write(settings: WriteSettings) -> ChatGGLM:
    """Train (or go on training) the decoder; see `Trainer` for what is written to ``settings.run.out``."""
    tokenizer = Tokenizer(settings.tokenizer)
    model = from_checkpoint(settings.init, dropout=0.0)
    check_tokenizer(settings.init, model, settings.tokenizer)
    with torch.no_grad():  # no corpus holds [EOS]: its unigram bias would keep every text from ending
        model.output_bias[EOS] = model.output_bias[EOS].clamp_min(-3.0)
    if settings.decoder_init:
        other = torch.load(settings.decoder_init, weights_only=True, map_location="cpu")["ema"]
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in other.items() if k.startswith("decoder.")}})
    trained = ("decoder.", "output_") if settings.freeze_encoder else ("",)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained) and not name.startswith(tuple(settings.frozen)))
    sampler = WritingSampler(settings.sources, tokenizer, settings.run.seed)
    files = [f for s in settings.sources for f in s.files]
    return Trainer(
        model,
        make_optimizers(model, settings.lr, settings.muon_lr),
        lambda step, progress: sampler.batch(step, settings.micro, settings.groups),
        {"write": 1.0},
        settings.run,
        heldout_loss(settings.dev, tokenizer) if settings.dev else None,
        {
            "data": data_hashes([*files, settings.tokenizer, settings.init, settings.decoder_init]),
            "write": {k: str(v) for k, v in vars(settings).items()},
        },
    ).run()
