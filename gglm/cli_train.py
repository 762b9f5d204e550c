"""`chatgglm train …`: thin commands around `gglm.training`, in the order in which they are used.

train tokenizer  TEXTS -o tokenizer.model
train shards     TEXTS --tokenizer tokenizer.model -o shards/
train vectors    shards/ --tokenizer tokenizer.model -o vectors.npz
train questions  WRITTEN.md … -o questions.jsonl
train pretrain   shards/ --tokenizer … --vectors … -o runs/base --minutes 60
train finetune   QA.jsonl … --tokenizer … --init runs/base/checkpoint.pt -o runs/reader --minutes 60
train write      --source dialogue=chat.jsonl … --init runs/reader/checkpoint.pt -o runs/writer --minutes 30
train export     runs/writer --tokenizer … -o weights/mine --name mine-0.1
train calibrate  DEV.jsonl … --weights weights/mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, progress
from gglm.errors import DataError

Texts = Annotated[Path, typer.Argument(metavar="TEXTS", help='Folder of .jsonl or .jsonl.zst with a "text" field.')]
ShardFolder = Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder made by `train shards`.")]
TokenizerFile = Annotated[Path, typer.Option("--tokenizer", help="A tokenizer.model.")]
Run = Annotated[Path, typer.Option("-o", "--out", help="Run folder; a run that was stopped goes on from it.")]
Minutes = Annotated[float, typer.Option(min=0, help="Time budget; the learning rate follows it.")]
Steps = Annotated[int, typer.Option(min=0, help="Budget in steps, instead of minutes.")]
Preset = Annotated[str, typer.Option(help="tiny, small or base.")]
Vectors = Annotated[Path | None, typer.Option(help="Start the embeddings from these (`train vectors`).")]
Seed = Annotated[int, typer.Option(help="Same seed, same run.")]
Threads = Annotated[int, typer.Option(min=1, max=64, help="Torch threads.")]
_SOURCE = typer.Option(
    "--source",
    metavar="KIND[:WEIGHT]=FILE[,FILE…]",
    help="What the decoder learns from (repeatable); kinds: answers, dialogue, rewriting, summary, translation, "
    "back_translation. The weight is its share of the steps.",
)
Sources = Annotated[list[str] | None, _SOURCE]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
_COMPILE = "Compile the encoder's layers first (40 s; needs a C++ compiler)."
Compile = Annotated[bool, typer.Option("--compile", help=_COMPILE)]


def register(group: typer.Typer) -> None:
    """Add the commands to the `train` group."""
    for command in (tokenizer, shards, vectors, questions, pretrain, finetune, write, export, calibrate, plot):
        group.command()(command)


def _settings(
    out: Path,
    minutes: float,
    steps: int,
    seed: int,
    device: str,
    threads: int,
    decay: float = 0.6,
    compile: bool = False,
) -> Any:
    import torch

    from gglm.training.trainer import RunSettings

    if (minutes > 0) == (steps > 0):
        raise typer.BadParameter("give either --minutes or --steps")
    if device != "cpu" and not torch.cuda.is_available():
        raise typer.BadParameter(f"--device {device}: this machine has no GPU that torch can use")
    torch.set_num_threads(threads)
    return RunSettings(out=out, minutes=minutes, steps=steps, seed=seed, device=device, decay=decay, compile=compile)


def _sources(texts: list[str]) -> list[Any]:
    """``KIND[:WEIGHT]=FILE,…`` to a `WritingSource` each."""
    from gglm.training.writing import WritingSource

    sources = []
    for text in texts:
        kind, _, files = text.partition("=")
        kind, _, weight = kind.partition(":")
        try:
            share = float(weight or 1)
        except ValueError:
            raise typer.BadParameter(f"--source {text}: the weight {weight!r} is not a number") from None
        if not files or share <= 0:
            raise typer.BadParameter(f"--source {text}: expected KIND[:WEIGHT]=FILE[,FILE…], the weight above 0")
        sources.append(WritingSource(kind, tuple(Path(f) for f in files.split(",")), share))
    return sources


def _init(path: Path) -> Path:
    """A path, or the name of shipped weights."""
    from gglm.weights import SHIPPED

    shipped = SHIPPED / path
    return shipped if not path.exists() and shipped.is_dir() else path


def _preset(name: str) -> str:
    from gglm.config import PRESETS

    if name not in PRESETS:
        raise typer.BadParameter(f"--preset {name!r}: one of {', '.join(PRESETS)}")
    return name


@friendly_errors
def tokenizer(
    texts: Texts,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .model file to write.")],
    han: Annotated[int, typer.Option(min=100, help="Han characters with a piece of their own.")] = 7600,
    latin: Annotated[int, typer.Option(min=10, help="Sub-word pieces for everything else.")] = 3600,
    seed: Seed = 0,
) -> None:
    """Learn a tokenizer: one piece per Han character and digit, sub-words for Latin script."""
    from gglm.tokenizer import train
    from gglm.training.corpus import documents

    learnt = train(documents(texts, seed), out, han=han, latin=latin)
    err_console.print(f"{out}: {len(learnt)} pieces")


@friendly_errors
def shards(
    texts: Texts,
    tokenizer: TokenizerFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    threads: Threads = 2,
    seed: Seed = 0,
) -> None:
    """Turn texts into token shards for pretraining and vectors."""
    from gglm.tokenizer import Tokenizer
    from gglm.training.corpus import build_shards, documents

    count = build_shards(documents(texts, seed), Tokenizer(tokenizer), out, seed=seed, threads=threads)
    err_console.print(f"{out}: {count:,} tokens")


@friendly_errors
def vectors(
    shards: ShardFolder,
    tokenizer: TokenizerFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="The .npz file to write.")],
    words: Annotated[
        Path | None,
        typer.Option(help="Take vectors from this Word2Vec or GloVe file, or Transformers model folder, instead."),
    ] = None,
    preset: Preset = "small",
    seed: Seed = 0,
) -> None:
    """Character and bigram vectors from the texts themselves (PPMI and SVD): a start for the embeddings."""
    import numpy as np

    from gglm.config import PRESETS
    from gglm.interop import word_vectors
    from gglm.tokenizer import Tokenizer
    from gglm.training.corpus import Shards
    from gglm.training.vectors import train

    pieces = Tokenizer(tokenizer)
    config = PRESETS[_preset(preset)]
    if not config.bigrams:
        raise typer.BadParameter(f"--preset {preset} has no bigram table to start")
    vocab = (len(pieces) + 63) // 64 * 64
    sizes = {"vocab": vocab, "bigrams": config.bigrams, "dim": config.d_model}
    with err_console.status("Counting …"):
        if words is None:
            made = train(Shards(shards), pieces, seed=seed, **sizes)
        else:
            found = word_vectors.huggingface(str(words), pieces) if words.is_dir() else word_vectors.read(words)
            made = word_vectors.start(found, Shards(shards), pieces, **sizes)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, tokens=made["tokens"], bigrams=made["bigrams"], keys=made["keys"], counts=made["counts"])
    err_console.print(f"{out}: {len(made['tokens'])} tokens and {len(made['bigrams'])} bigrams")


@friendly_errors
def questions(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Documents with their questions, or folders.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            help="The .jsonl file to write; a name without an ending: a new folder of documents and questions, as "
            "`eval answers` asks them.",
        ),
    ],
) -> None:
    """Documents with questions written beneath them to rows for `train finetune` (format: docs/finetuning.md)."""
    import json

    from gglm.training.written import Problem, parse, write_folder

    found = [p for f in files for p in (sorted(f.rglob("*.md")) if f.is_dir() else [f])]
    rows: list[dict[str, Any]] = []
    problems = 0
    for path in found:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from None
        for row in parse(text):
            if isinstance(row, Problem):
                problems += 1
                err_console.print(f"{path}: {row}", style="yellow", markup=False)
            else:
                rows.append({"id": f"{path.stem}-{len(rows)}", **row})
    if not rows:
        raise DataError("no questions found: «# title», the text, a line «---», then questions that begin with «? »")
    if out.suffix:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        write_folder(rows, out)
    err_console.print(f"{out}: {len(rows)} questions" + (f", {problems} left out" if problems else ""))


@friendly_errors
def pretrain(
    shards: ShardFolder,
    tokenizer: TokenizerFile,
    out: Run,
    minutes: Minutes = 0,
    steps: Steps = 0,
    preset: Preset = "small",
    vectors: Vectors = None,
    heldout: Annotated[Path | None, typer.Option(help="Shards of held-out texts, for the curves.")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
    compile: Compile = False,
) -> None:
    """Learn to find and copy from texts alone: recurring spans and masked tokens, no labels."""
    from gglm.training.pretrain import PretrainSettings
    from gglm.training.pretrain import pretrain as train

    run = _settings(out, minutes, steps, seed, device, threads, compile=compile)
    train(PretrainSettings(run, tokenizer, shards, heldout, vectors, _preset(preset)))


@friendly_errors
def finetune(
    questions: Annotated[
        list[Path] | None, typer.Argument(metavar="QA.jsonl…", help="Questions with paragraph and answers.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="The same, as an option.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.model; without, that of the weights folder one starts from.")
    ] = None,
    out: Run = Path("runs/reader"),
    minutes: Minutes = 0,
    steps: Steps = 0,
    init: Annotated[
        Path | None, typer.Option(help="Start from this checkpoint.pt or weights folder (gglm-small: the shipped one).")
    ] = None,
    lora: Annotated[
        int, typer.Option(min=0, max=256, metavar="RANK", help="Train adapters of this rank instead of all weights.")
    ] = 0,
    rdrop: Annotated[
        float, typer.Option("--r-drop", min=0, help="Weight of R-Drop: two passes have to agree (twice the time).")
    ] = 0.0,
    preset: Preset = "small",
    shards: Annotated[Path | None, typer.Option(help="Mix in recurring-span examples from these shards.")] = None,
    mixed: Annotated[float, typer.Option(min=0, max=0.9, help="Share of rows that come from the shards.")] = 0.33,
    vectors: Vectors = None,
    answers: Annotated[
        float, typer.Option(min=0, max=1, help="Share of questions whose answer the decoder learns to write too.")
    ] = 0.0,
    source: Sources = None,
    rows: Annotated[int, typer.Option(min=1, help="Questions (and recurring-span rows) a step.")] = 24,
    rate: Annotated[float, typer.Option(min=1e-6, help="Peak learning rate of AdamW.")] = 1.5e-3,
    muon_rate: Annotated[float, typer.Option(min=1e-5, help="Peak learning rate of Muon.")] = 0.015,
    decay: Annotated[float, typer.Option(min=0.01, max=1, help="Last part of the run, in which the rates fall.")] = 0.6,
    dev: Annotated[list[Path] | None, typer.Option(help="Questions to score on while training.")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
    compile: Compile = False,
) -> None:
    """Learn to read from questions with answers; rows are like CMRC 2018's."""
    from gglm.training.finetune import FinetuneSettings
    from gglm.training.finetune import finetune as train

    files = [*(questions or []), *(data or [])]
    if not files:
        raise typer.BadParameter("name at least one file of questions")
    run = _settings(out, minutes, steps, seed, device, threads, decay, compile)
    init = _init(init) if init else _init(Path("gglm-small")) if lora else None
    if tokenizer is None:
        tokenizer = init / "tokenizer.model" if init and init.is_dir() else Path("tokenizer.model")
    settings = FinetuneSettings(
        run, tokenizer, files, shards, vectors, init, preset=_preset(preset), pretraining=mixed, dev=dev or [],
        rows=rows, lr=rate, muon_lr=muon_rate, answers=answers, writing=_sources(source or []),
        lora=lora, rdrop=rdrop,
    )  # fmt: skip
    train(settings)


@friendly_errors
def write(
    source: Annotated[list[str], _SOURCE],
    tokenizer: TokenizerFile,
    init: Annotated[Path, typer.Option(help="checkpoint.pt of the reader's run.")],
    out: Run = Path("runs/writer"),
    minutes: Minutes = 0,
    steps: Steps = 0,
    decoder: Annotated[Path | None, typer.Option(help="checkpoint.pt whose decoder to start from.")] = None,
    unfreeze: Annotated[bool, typer.Option("--unfreeze", help="Train the encoder too; reading changes.")] = False,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Teach the decoder to write: answers, small talk, stand-alone questions, summaries, translations."""
    from gglm.training.write import WriteSettings
    from gglm.training.write import write as train

    run = _settings(out, minutes, steps, seed, device, threads)
    train(WriteSettings(run, tokenizer, init, _sources(source), decoder_init=decoder, freeze_encoder=not unfreeze))


@friendly_errors
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with a checkpoint.pt.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Weights folder to write.")],
    name: Annotated[str, typer.Option(help="What answers carry as their model, e.g. mine-0.1.")],
    tokenizer: Annotated[Path | None, typer.Option(help="A tokenizer.model.")] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="Weights folder whose tokenizer, calibration and tasks are kept (gglm-small: the shipped)."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task whose decoder may be used (repeatable).")] = None,
    card: Annotated[Path | None, typer.Option(help="Model card (Markdown) to put beside the weights.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Store the matrices as int8: half the size.")] = False,
) -> None:
    """Make a weights folder of a run: its averaged weights, tokenizer, config, checksums and card."""
    import json

    from gglm import weights
    from gglm.tasks import TASKS
    from gglm.training.finetune import from_checkpoint

    checkpoint = run / "checkpoint.pt" if run.is_dir() else run
    if not checkpoint.is_file():
        raise DataError(f"{checkpoint} does not exist: the run has saved nothing yet")
    if unknown := set(task or []) - set(TASKS):
        raise typer.BadParameter(f"--task {', '.join(sorted(unknown))}: one of {', '.join(TASKS)}")
    tasks, kept = task or [], {}
    if like:
        like = _init(like)
        before = weights.read_config(like)
        tokenizer, tasks = tokenizer or like / weights.TOKENIZER, task or before["tasks"]
        kept = {"reader": before["reader"]}
    if tokenizer is None:
        raise typer.BadParameter("name a --tokenizer, or a weights folder to be --like")
    record = checkpoint.with_name("run.json")
    meta = {"run": json.loads(record.read_text(encoding="utf-8"))} if record.is_file() else {}
    text = card.read_text(encoding="utf-8") if card else ""
    model = from_checkpoint(checkpoint, dropout=0.0)
    weights.save(out, model, tokenizer, name, tasks=tasks, card=text, meta=meta, int8=int8)
    weights.update_config(out, **kept)
    err_console.print(f"{out}: {name}. Next: chatgglm train calibrate DEV.jsonl --weights {out}, then eval calibrate")


@friendly_errors
def calibrate(
    files: Annotated[list[Path], typer.Argument(metavar="DEV…", help="Questions with and without an answer.")],
    weights: Annotated[Path, typer.Option("--weights", help="Weights folder whose config.json is updated.")],
    refuse: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of a file's answerable questions refused at most.")
    ] = 0.09,
    others: Annotated[
        int, typer.Option(min=0, max=9, help="Other passages beside the own one, for answers from several sources.")
    ] = 3,
    limit: Annotated[int, typer.Option(min=0, help="A random sample of N questions of each file; 0: all.")] = 0,
    threads: Threads = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fit how sure an answer must be, on questions that were not trained on."""
    import random
    from dataclasses import asdict
    from functools import partial

    from gglm.calibration import calibrate as fit
    from gglm.cli import load_engine
    from gglm.evaluation import load_items
    from gglm.weights import update_config

    sets = [load_items(f) for f in files]
    if limit:
        sets = [random.Random(0).sample(items, min(limit, len(items))) for items in sets]
    engine = load_engine(weights, threads)
    with progress() as bar:
        task = bar.add_task("Reading", total=sum(map(len, sets)) * (2 if others else 1))
        settings = fit(engine, sets, refuse, others, partial(bar.advance, task))
    update_config(weights, reader=settings)
    limits = f"{settings.alone.threshold:.3f} for one source, {settings.several.threshold:.3f} for several"
    err_console.print(f"{weights / 'config.json'}: threshold {limits}")
    if as_json:
        print_json(asdict(settings))


@friendly_errors
def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with a metrics.jsonl.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Picture to write.")] = None,
) -> None:
    """Draw a run's losses, scores and speed."""
    from gglm.training.plots import plot_run

    err_console.print(str(plot_run(run, out)))
