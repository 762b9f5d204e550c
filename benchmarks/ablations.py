"""What each part of the model and of its training is worth: short runs of equal time, one change each.

    python benchmarks/ablations.py DATA SHARDS --tokenizer FILE --vectors FILE --out FOLDER [--minutes 6]

DATA: folder of the question files (cmrc2018_train, authored_train; cmrc2018_trial and authored_dev are the dev sets).
Every variant trains for the same processor time on one thread, from the same seed and over the same questions, and is
scored alike; three seeds of the first one show what is chance. A finished variant is not run again, so the command may
be interrupted. A run this short says which parts help early; it does not say what they are worth after a day.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gglm.model import ChatGGLM
from gglm.tokenizer import Tokenizer
from gglm.training.corpus import Shards
from gglm.training.finetune import FinetuneSettings, fresh_model, make_evaluation, make_stream
from gglm.training.mixture import PretrainingSampler
from gglm.training.optim import make_optimizers
from gglm.training.reading import micro_batches
from gglm.training.spans import Example
from gglm.training.trainer import RunSettings, Trainer
from gglm.training.vectors import start_from
from gglm.training.writing import WritingSource, heldout_loss

SHAPE: dict[str, Any] = {"d_model": 160, "num_heads": 4, "kv_heads": 2, "encoder_layers": 4, "decoder_layers": 1,
                         "d_ff": 432, "dropout": 0.1}  # fmt: skip
"""A quarter of `small`'s work a token, so that some minutes say something."""
ROWS = 12
"""Questions a step: small steps, so that there are many of them."""
WEIGHTS = {"span": 1.0, "masked": 0.4, "relevance": 0.3, "write": 0.3}
Prepare = Callable[[ChatGGLM], None]


@dataclass(frozen=True)
class Variant:
    """One change against the first variant.

    shape: changes of `SHAPE`; prepare: done to the fresh model; weights: changes of the losses' weights;
    pretraining: share of the time spent on plain text first, with ``before`` as the losses' weights;
    answers: share of questions whose answer the decoder writes.
    """

    shape: dict[str, Any] = field(default_factory=dict)
    prepare: Prepare | None = None
    vectors: bool = True
    muon: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    pretraining: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    answers: float = 0.0
    seed: int = 0


def _without_match(model: ChatGGLM) -> None:
    weight = model.encoder.embedding.match.weight
    weight.requires_grad_(False).zero_()


def _without_pointer(model: ChatGGLM) -> None:
    """A gate that never copies."""
    model.decoder.gate.weight.requires_grad_(False).zero_()
    assert model.decoder.gate.bias is not None
    model.decoder.gate.bias.requires_grad_(False).fill_(30.0)


VARIANTS = {
    "all parts": Variant(),
    "another seed": Variant(seed=1),
    "a third seed": Variant(seed=2),
    "random embeddings": Variant(vectors=False),
    "no bigram embedding": Variant({"bigrams": 0}),
    "no convolution": Variant({"conv_width": 0}),
    "no match features": Variant(prepare=_without_match),
    "ReLU² feed-forward of equal size": Variant({"feed_forward": "relu2", "d_ff": 648}),
    "deeper, narrower (8 × 112)": Variant({"encoder_layers": 8, "d_model": 112, "d_ff": 304}),
    "shallower, wider (2 × 224)": Variant({"encoder_layers": 2, "d_model": 224, "d_ff": 600}),
    "AdamW alone": Variant(muon=False),
    "half the time on masked tokens first": Variant(pretraining=0.5, before={"masked": 1.0}),
    "half the time on masked tokens and recurring spans first": Variant(
        pretraining=0.5, before={"masked": 0.4, "span": 1.0, "relevance": 0.3}
    ),
    "answers written too": Variant(answers=1.0),
    "answers written, no pointer": Variant(answers=1.0, prepare=_without_pointer),
    "answers written, no span head": Variant(answers=1.0, weights={"span": 0.0}),
}


@dataclass(frozen=True)
class Setup:
    """Data and time that all variants share."""

    data: Path
    shards: Path
    tokenizer: Path
    vectors: Path
    out: Path
    minutes: float


def run(name: str, variant: Variant, setup: Setup) -> dict[str, Any]:
    """Train and score one variant; figures of the EMA weights."""
    tokenizer = Tokenizer(setup.tokenizer)
    seed = variant.seed
    folder = setup.out / name.replace(" ", "-").replace("/", "-")
    shape = {**SHAPE, **variant.shape}
    model = fresh_model("small", tokenizer, None, seed, **shape)
    start_from(model, _vectors(setup.vectors, shape["d_model"], variant.vectors, seed))
    if variant.prepare:
        variant.prepare(model)
    minutes = setup.minutes
    steps = tokens = 0
    if variant.pretraining:
        spent = RunSettings(
            folder / "pretraining", minutes=minutes * variant.pretraining, seed=seed, ema=0.99, processor_time=True
        )
        plain = Trainer(model, _optimizers(model, variant), _plain(setup, tokenizer, seed), variant.before, spent)
        model = plain.run().train()
        minutes -= spent.minutes
        steps, tokens = plain.step, plain.tokens
    files = [setup.data / f"{n}.jsonl.zst" for n in ("cmrc2018_train", "authored_train")]
    dev = [setup.data / f"{n}.jsonl.zst" for n in ("cmrc2018_trial", "authored_dev")]
    settings = FinetuneSettings(
        RunSettings(
            folder / "reading", minutes=minutes, seed=seed, ema=0.99, evaluate_minutes=1e9, processor_time=True
        ),
        setup.tokenizer, files, rows=ROWS, answers=variant.answers,
    )  # fmt: skip
    looks: list[Callable[[ChatGGLM], dict[str, float]]] = [make_evaluation(dev, tokenizer, rows=600)]
    if variant.answers:
        looks.append(heldout_loss([WritingSource("answers", (dev[0],), 1)], tokenizer, batches=40))
    trainer = Trainer(
        model,
        _optimizers(model, variant),
        make_stream(settings, tokenizer),
        {**WEIGHTS, **variant.weights},
        settings.run,
    )
    model = trainer.run()
    with torch.inference_mode():
        scores = {k: v for look in looks for k, v in look(model).items()}
    return {
        "parameters": model.count_parameters(), "minutes": setup.minutes, "seed": seed,
        "steps": steps + trainer.step, "tokens": tokens + trainer.tokens, "scores": scores,
    }  # fmt: skip


def _vectors(file: Path, width: int, known: bool, seed: int) -> dict[str, npt.NDArray[Any]]:
    """The first ``width`` columns (singular vectors come strongest first), or noise of the same size."""
    vectors = dict(np.load(file))
    rng = np.random.default_rng(seed)
    for name in ("tokens", "bigrams"):
        table = vectors[name][:, :width]
        table = table / table.std()
        there = np.abs(table).sum(1, keepdims=True) > 0
        vectors[name] = table if known else rng.standard_normal(table.shape, dtype=np.float32) * there
    return vectors


def _optimizers(model: ChatGGLM, variant: Variant) -> list[torch.optim.Optimizer]:
    return make_optimizers(model, 2e-3, 0.02, muon=variant.muon)


def _plain(setup: Setup, tokenizer: Tokenizer, seed: int) -> Callable[[int, float], list[list[Example]]]:
    sampler = PretrainingSampler(Shards(setup.shards), tokenizer)

    def stream(step: int, progress: float) -> list[list[Example]]:
        rng = np.random.default_rng([seed, 13, step])
        return micro_batches([sampler.rows(rng, 224) for _ in range(ROWS)], 4)

    return stream


def table(results: dict[str, dict[str, Any]]) -> Table:
    """The variants beside each other."""
    out = Table("variant", "tokens (M)", "trial F1 / EM", "authored span F1", "AUROC", "answers, loss a token")
    for name, result in results.items():
        s = result["scores"]
        loss = s.get("answers/cmrc2018_trial")
        out.add_row(
            name, f"{result['tokens'] / 1e6:.2f}",
            f"{s['cmrc2018_trial/span/f1']:.1f} / {s['cmrc2018_trial/span/em']:.1f}",
            f"{s['authored_dev/span/f1']:.1f}", f"{s['authored_dev/auroc']:.3f}", f"{loss:.2f}" if loss else "",
        )  # fmt: skip
    return out


def plot(results: dict[str, dict[str, Any]], out: Path) -> None:
    """F1 of each variant as bars, the spread of the first one's seeds as a band."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = {"cmrc2018_trial/span/f1": "CMRC 2018 trial, F1", "authored_dev/auroc": "authored_dev, refusal AUROC"}
    figure, axes = plt.subplots(1, len(sets), figsize=(11, 0.3 * len(results) + 1.2), sharey=True)
    seeds = [name for name, variant in VARIANTS.items() if replace(variant, seed=0) == Variant() and name in results]
    for axis, (key, title) in zip(axes, sets.items(), strict=True):
        values = [r["scores"][key] for r in results.values()]
        spread = [results[name]["scores"][key] for name in seeds]
        axis.axvspan(min(spread), max(spread), color="tab:blue", alpha=0.15)
        axis.barh(list(results), values, color=["tab:blue" if name in seeds else "tab:grey" for name in results])
        axis.set(title=title, xlim=(0.9 * min(values), None))
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True, help="made by `chatgglm train vectors`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--plot", type=Path, help="picture of the results to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    setup = Setup(a.data, a.shards, a.tokenizer, a.vectors, a.out, a.minutes)
    a.out.mkdir(parents=True, exist_ok=True)
    file = a.out / "results.json"
    results: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if any(r["minutes"] != a.minutes for r in results.values()):
        parser.error(f"{file} holds runs of other lengths: take another --out")
    console = Console(stderr=True)
    for name in track([n for n in a.only if n not in results], "variants", console=console):
        results[name] = run(name, VARIANTS[name], setup)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, ensure_ascii=False, indent=1), "utf-8")
        temporary.replace(file)
    Console().print(table(results))
    if a.plot:
        plot(results, a.plot)


if __name__ == "__main__":
    main()
