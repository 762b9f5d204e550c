"""Fine-tuning of the reader, alone or together with recurring-span pretraining."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gglm.config import PRESETS, GGLMConfig
from gglm.errors import DataError
from gglm.interop import lora
from gglm.metrics import auroc, exact_match, f1
from gglm.model import ChatGGLM
from gglm.tasks import encode_task, pad_batch
from gglm.tokenizer import Tokenizer
from gglm.training import vectors
from gglm.training.corpus import Shards, read_jsonl
from gglm.training.mixture import Forms, PretrainingSampler
from gglm.training.optim import make_optimizers
from gglm.training.precision import fastest_dtype
from gglm.training.reading import Passages, QuestionSampler, hard_distractors, load_questions, micro_batches
from gglm.training.spans import Example
from gglm.training.trainer import RunSettings, Trainer, data_hashes
from gglm.training.writing import WritingSampler, WritingSource, heldout_loss
from gglm.weights import TOKENIZER
from gglm.weights import load as load_weights


@dataclass
class FinetuneSettings:
    """What to train on and how.

    questions: CMRC-like JSON lines; passages: what they are read over; pretraining: share of rows that are
    made from plain text (needs ``shards``), in which ``forms``; crop: tokens of an input for the first
    ``1 - full`` of the run, ``window`` after it; answers: share of questions whose answer the decoder
    writes too; writing: other tasks of the decoder, a micro-batch of them every ``writing_every`` steps;
    lora: rank of the adapters that are trained in place of all weights (`gglm.interop.lora`), 0: all
    weights; rdrop: weight of the consistency of `rdrop_losses`, 0: off.
    """

    run: RunSettings
    tokenizer: Path
    questions: list[Path]
    shards: Path | None = None
    vectors: Path | None = None
    init: Path | None = None
    preset: str = "small"
    pretraining: float = 0.33
    forms: Forms = field(default_factory=Forms)
    rows: int = 24
    micro: int = 6
    crop: int = 224
    window: int = 448
    full: float = 0.2
    lr: float = 1.5e-3
    muon_lr: float = 0.015
    dropout: float = 0.1
    passages: Passages = field(default_factory=Passages)
    answers: float = 0.0
    writing: Sequence[WritingSource] = ()
    writing_every: int = 1
    dev: list[Path] = field(default_factory=list)
    dev_rows: int = 300
    dev_writing: Sequence[WritingSource] = ()
    lora: int = 0
    rdrop: float = 0.0


def fresh_model(
    preset: str, tokenizer: Tokenizer, vector_file: Path | None = None, seed: int = 0, **changes: Any
) -> ChatGGLM:
    """A new model of a preset, its embeddings from vectors if given; computes in `fastest_dtype`."""
    torch.manual_seed(seed)
    values = {**PRESETS[preset].to_dict(), **changes, "vocab_size": tokenizer.padded_size}
    model = ChatGGLM(GGLMConfig.from_dict(values))
    if vector_file:
        vectors.start_from(model, dict(np.load(vector_file)))
    model.compute_dtype = fastest_dtype()
    return model


def from_checkpoint(path: Path, **changes: Any) -> ChatGGLM:
    """The EMA model of a `Trainer` checkpoint, or the model of a weights folder; computes in `fastest_dtype`."""
    if path.is_dir():
        source = load_weights(path).model
        config, state = source.config.to_dict(), source.state_dict()
    else:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        config, state = saved["config"], lora.merge_state(saved["ema"])
    model = ChatGGLM(GGLMConfig.from_dict({**config, **changes}))
    model.load_state_dict(state)
    model.compute_dtype = fastest_dtype()
    return model


def check_tokenizer(init: Path, model: ChatGGLM, tokenizer: Path) -> None:
    """Weights mean nothing with another tokenizer than theirs.

    Raises:
        DataError: a weights folder has another one, or a checkpoint's vocabulary is of another size.
    """
    other = init.is_dir() and (init / TOKENIZER).read_bytes() != tokenizer.read_bytes()
    if other or Tokenizer(tokenizer).padded_size != model.config.vocab_size:
        raise DataError(f"{init} was trained with another tokenizer than {tokenizer}; name its own with --tokenizer")


def make_stream(settings: FinetuneSettings, tokenizer: Tokenizer) -> Callable[[int, float], list[list[Example]]]:
    """The mixture of labelled questions and recurring spans, by step."""
    questions, passages = load_questions(settings.questions, tokenizer)
    if not questions:
        raise DataError("no usable questions in the files given")
    encoded = [tokenizer.encode(p).astype(np.int64) for p in passages]
    seed = settings.run.seed
    distractors = None
    if (settings.passages.beside or settings.passages.instead) and len(passages) > 8:
        texts = [tokenizer.decode(q.question) for q in questions]
        distractors = hard_distractors(texts, passages, [q.context for q in questions])
    sampler = QuestionSampler(
        questions, distractors, encoded, tokenizer, seed, settings.passages, write=settings.answers
    )
    writing = WritingSampler(settings.writing, tokenizer, seed) if settings.writing else None
    unlabelled = PretrainingSampler(Shards(settings.shards), tokenizer, settings.forms) if settings.shards else None
    plain = round(settings.rows * settings.pretraining) if unlabelled else 0
    labelled = settings.rows - plain

    def stream(step: int, progress: float) -> list[list[Example]]:
        size = settings.crop if progress < 1 - settings.full else settings.window
        rows = [sampler.example(step * labelled + i, size) for i in range(labelled)]
        rng = np.random.default_rng([seed, 13, step])
        if unlabelled is not None:
            rows += [unlabelled.rows(rng, settings.crop + 32) for _ in range(plain)]
        step_micro = settings.micro if size == settings.crop else max(1, settings.micro // 2)
        batches = micro_batches(rows, step_micro)
        if writing is not None and step % settings.writing_every == 0:
            batches += writing.batch(step, max(1, settings.micro // 2), groups=1)
        return batches

    return stream


def make_evaluation(
    files: Sequence[Path], tokenizer: Tokenizer, rows: int, size: int = 640
) -> Callable[[ChatGGLM], dict[str, float]]:
    """A quick look at dev files while training: EM and F1 of best spans, AUROC of refusal.

    Passages are cut to ``size`` tokens; the shipped figures come from `gglm.evaluation` instead.
    """
    sets: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        every = list(read_jsonl(file))
        random.Random(1).shuffle(every)
        sets[file.name.split(".")[0]] = every[:rows]

    def best(model: ChatGGLM, rows: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
        out: list[tuple[str, float]] = [("", 0.0)] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["context"]))
        for at in range(0, len(order), 8):
            part = order[at : at + 8]
            items = [
                encode_task(
                    "问答", tokenizer, rows[i]["question"], rows[i].get("title") or "", rows[i]["context"][:size]
                )
                for i in part
            ]
            tokens, segments, matches, passage = map(torch.from_numpy, pad_batch(items))
            starts, ends = model.span_logits(model.encode(tokens, segments, matches), passage)
            for i, item, s, e in zip(part, items, starts, ends, strict=True):
                n = len(item.tokens) - item.base
                score = s[item.base : item.base + n, None] + e[None, item.base : item.base + n]
                score = score.masked_fill(~torch.ones(n, n, dtype=torch.bool).triu().tril(149), -1e9)
                first, last = divmod(int(score.argmax()), n)
                _, a, b = tokenizer.encode_with_offsets(rows[i]["context"][:size])
                text = rows[i]["context"][a[first] : b[last]]
                out[i] = (text, float(score.max() - s[0] - e[0]))
        return out

    def evaluate(model: ChatGGLM) -> dict[str, float]:
        figures: dict[str, float] = {}
        for name, rows in sets.items():
            said = best(model, rows)
            golds = [[a["text"] for a in r["answers"]] if r.get("answerable", True) else [] for r in rows]
            for kind in sorted({r.get("type", "span") for r in rows} & {"span", "long"}):
                picked = [(t, g) for (t, _), g, r in zip(said, golds, rows, strict=True)
                          if g and r.get("type", "span") == kind]  # fmt: skip
                figures[f"{name}/{kind}/f1"] = 100 * float(np.mean([f1(t, g) for t, g in picked]))
                figures[f"{name}/{kind}/em"] = 100 * float(np.mean([exact_match(t, g) for t, g in picked]))
            if not all(golds):
                yes = [s for (_, s), g in zip(said, golds, strict=True) if g]
                no = [s for (_, s), g in zip(said, golds, strict=True) if not g]
                figures[f"{name}/auroc"] = auroc(yes, no)
        return figures

    return evaluate


def finetune(settings: FinetuneSettings) -> ChatGGLM:
    """Train (or go on training) a reader; see `Trainer` for what is written to ``settings.run.out``."""
    tokenizer = Tokenizer(settings.tokenizer)
    changes = {"dropout": settings.dropout, "window": settings.window}
    if settings.init:
        model = from_checkpoint(settings.init, **changes)
        check_tokenizer(settings.init, model, settings.tokenizer)
    else:
        model = fresh_model(settings.preset, tokenizer, settings.vectors, settings.run.seed, **changes)
    if settings.lora:
        lora.add(model, settings.lora, seed=settings.run.seed)
    looks = [make_evaluation(settings.dev, tokenizer, settings.dev_rows)] if settings.dev else []
    if settings.dev_writing:
        looks.append(heldout_loss(settings.dev_writing, tokenizer))
    files = [*settings.questions, *(f for s in settings.writing for f in s.files)]
    others = [settings.tokenizer, settings.shards, settings.vectors, settings.init]
    trainer = Trainer(
        model,
        make_optimizers(model, settings.lr, settings.muon_lr, muon=not settings.lora),
        make_stream(settings, tokenizer),
        {"span": 1.0, "masked": 0.4, "relevance": 0.3, "verdict": 0.3, "write": 0.3, "rdrop": settings.rdrop},
        settings.run,
        (lambda model: {k: v for look in looks for k, v in look(model).items()}) if looks else None,
        {"data": data_hashes([*files, *others]), "finetune": {k: str(v) for k, v in vars(settings).items()}},
    )
    return lora.merge(trainer.run())
