"""`chatgglm train …`: thin commands around `gglm.training`, in the order in which they are used.

Those that make data (the first four below) are in `gglm.cli_train_data`.

train tokenizer  TEXTS -o tokenizer.model
train shards     TEXTS --tokenizer tokenizer.model -o shards/
train vectors    shards/ --tokenizer tokenizer.model -o vectors.npz
train questions  WRITTEN.md … -o questions.jsonl
train pretrain   shards/ --tokenizer … --vectors … -o runs/base --minutes 60
train finetune   QA.jsonl … --init runs/base/checkpoint.pt --rate 1.5e-3 -o runs/reader --minutes 60
train average    runs/a runs/b:2 -o runs/mean
train write      --source dialogue=chat.jsonl … --init runs/reader/checkpoint.pt -o runs/writer --minutes 30
train export     runs/writer --tokenizer … -o weights/mine --name mine-0.1
train calibrate  DEV.jsonl … --weights weights/mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gglm.cli_train_data import Preset, Seed, ShardFolder, Threads, TokenizerFile, checked_preset
from gglm.console import err_console, friendly_errors, print_json, progress
from gglm.errors import DataError

Run = Annotated[Path, typer.Option("-o", "--out", help="Run folder; a run that was stopped goes on from it.")]
Minutes = Annotated[float, typer.Option(min=0, help="Time budget; the learning rate follows it.")]
Steps = Annotated[int, typer.Option(min=0, help="Budget in steps, instead of minutes.")]
Vectors = Annotated[Path | None, typer.Option(help="Start the embeddings from these (`train vectors`).")]
_SOURCE = typer.Option(
    "--source",
    metavar="KIND[:WEIGHT]=FILE[,FILE…]",
    help="What the decoder learns from (repeatable); kinds: answers, dialogue, rewriting, summary, translation, "
    "back_translation. The weight is its share of the steps.",
)
Sources = Annotated[list[str] | None, _SOURCE]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="TOML file with what has no option of its own, and with rates and the like."),
]
_COMPILE = "Compile the encoder's layers first (40 s; needs a C++ compiler)."
Compile = Annotated[bool, typer.Option("--compile", help=_COMPILE)]


def register(group: typer.Typer) -> None:
    """Add the commands to the `train` group."""
    for command in (pretrain, finetune, average, write, export, calibrate, plot):
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


def _existing(init: Path) -> Path:
    """What --init names.

    Raises:
        DataError: nothing of that name.
    """
    found = _init(init)
    if not found.exists():
        raise DataError(f"--init {found} does not exist")
    return found


OPTIONS = ("tokenizer", "questions", "init", "vectors", "preset", "lora"), ("out", "minutes", "steps", "device")
"""Settings of a run, and of its ``[run]`` table, that have options which other defaults follow."""


def _overridden(settings: Any, file: Path | None) -> Any:
    """The settings with what a --settings file says."""
    from gglm.training.overrides import override, read

    if file is None:
        return settings
    values = read(file)
    run = values.get("run")
    if given := [*(set(values) & set(OPTIONS[0])), *(set(run if isinstance(run, dict) else ()) & set(OPTIONS[1]))]:
        raise DataError(f"{file}: give {', '.join(sorted(given))} as options of the command")
    return override(settings, values)


@friendly_errors
def pretrain(
    shards: ShardFolder,
    tokenizer: TokenizerFile,
    out: Run,
    minutes: Minutes = 0,
    steps: Steps = 0,
    preset: Preset = "small",
    vectors: Vectors = None,
    init: Annotated[
        Path | None, typer.Option(help="Go on from this checkpoint.pt or weights folder, e.g. gglm-small-base.")
    ] = None,
    heldout: Annotated[Path | None, typer.Option(help="Shards of held-out texts, for the curves.")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
    compile: Compile = False,
    settings: SettingsFile = None,
) -> None:
    """Learn to find and copy from texts alone: recurring spans and masked tokens, no labels."""
    from gglm.training.pretrain import PretrainSettings
    from gglm.training.pretrain import pretrain as train

    run = _settings(out, minutes, steps, seed, device, threads, compile=compile)
    if init and vectors:
        raise typer.BadParameter("--init goes on from weights, --vectors begins anew")
    init = _existing(init) if init else None
    given = PretrainSettings(run, tokenizer, shards, heldout, vectors, init, checked_preset(preset))
    train(_overridden(given, settings))


@friendly_errors
def finetune(
    questions: Annotated[
        list[Path] | None, typer.Argument(metavar="QA.jsonl…", help="Questions with paragraph and answers.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="The same, as an option.")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="A tokenizer.model; without, that of the weights one starts from, or of the shipped."),
    ] = None,
    out: Run = Path("runs/reader"),
    minutes: Minutes = 0,
    steps: Steps = 0,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint.pt or weights folder; else from gglm-small, the shipped one."),
    ] = None,
    lora: Annotated[
        int, typer.Option(min=0, max=256, metavar="RANK", help="Train adapters of this rank instead of all weights.")
    ] = 0,
    rdrop: Annotated[
        float, typer.Option("--r-drop", min=0, help="Weight of R-Drop: two passes have to agree (twice the time).")
    ] = 0.0,
    preset: Annotated[str, typer.Option(help="Start a new model instead: tiny, small or base.")] = "",
    shards: Annotated[Path | None, typer.Option(help="Mix in recurring-span examples from these shards.")] = None,
    mixed: Annotated[float, typer.Option(min=0, max=0.9, help="Share of rows that come from the shards.")] = 0.33,
    vectors: Annotated[
        Path | None, typer.Option(help="Start a new model's embeddings from these (`train vectors`).")
    ] = None,
    answers: Annotated[
        float, typer.Option(min=0, max=1, help="Share of questions whose answer the decoder learns to write too.")
    ] = 0.0,
    source: Sources = None,
    rows: Annotated[int, typer.Option(min=1, help="Questions (and recurring-span rows) a step.")] = 24,
    rate: Annotated[
        float,
        typer.Option(min=0, help="Peak learning rate of AdamW; 0: 1.5e-3 for a new model or adapters, else 4e-4."),
    ] = 0.0,
    muon_rate: Annotated[float, typer.Option(min=0, help="Peak learning rate of Muon; 0: ten times --rate.")] = 0.0,
    decay: Annotated[float, typer.Option(min=0.01, max=1, help="Last part of the run, in which the rates fall.")] = 0.6,
    dev: Annotated[list[Path] | None, typer.Option(help="Questions to score on while training.")] = None,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
    compile: Compile = False,
    settings: SettingsFile = None,
) -> None:
    """Learn to read from questions with answers; rows are like CMRC 2018's."""
    from gglm.training.finetune import FinetuneSettings
    from gglm.training.finetune import finetune as train
    from gglm.weights import TOKENIZER, default_folder

    files = [*(questions or []), *(data or [])]
    if not files:
        raise typer.BadParameter("name at least one file of questions")
    run = _settings(out, minutes, steps, seed, device, threads, decay, compile)
    fresh = bool(preset or vectors)
    if fresh and (init or lora):
        raise typer.BadParameter("--init and --lora go on from weights, --preset and --vectors begin anew")
    init = None if fresh else _existing(init) if init else default_folder()
    rate = rate or (4e-4 if init and not lora else 1.5e-3)
    if tokenizer is None:
        tokenizer = (init if init and init.is_dir() else default_folder()) / TOKENIZER
    given = FinetuneSettings(
        run, tokenizer, files, shards, vectors, init, preset=checked_preset(preset or "small"), pretraining=mixed,
        dev=dev or [], rows=rows, lr=rate, muon_lr=muon_rate or 10 * rate, answers=answers,
        writing=_sources(source or []), lora=lora, rdrop=rdrop,
    )  # fmt: skip
    train(_overridden(given, settings))


@friendly_errors
def average(
    parts: Annotated[
        list[str], typer.Argument(metavar="RUN[:SHARE]…", help="Run folders, checkpoint.pt files or weights folders.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write, with a checkpoint.pt as a run has.")],
) -> None:
    """The mean of runs that began with the same weights: often better than each of them."""
    from gglm.training.average import average as mean

    pairs: list[tuple[Path, float]] = []
    for part in parts:
        name, _, share = part.rpartition(":")
        if not name or _init(Path(part)).exists():  # a path may hold a colon
            name, share = part, "1"
        try:
            path, weight = _init(Path(name)), float(share)
        except ValueError:
            raise typer.BadParameter(f"{part}: the share {share!r} is not a number") from None
        if (path / "checkpoint.pt").is_file():
            path = path / "checkpoint.pt"
        if not path.exists():
            raise DataError(f"{path} does not exist: the run has saved nothing yet")
        pairs.append((path, weight))
    err_console.print(f"{mean(pairs, out)}: the mean of {len(pairs)}")


@friendly_errors
def write(
    source: Annotated[list[str], _SOURCE],
    tokenizer: TokenizerFile,
    init: Annotated[Path, typer.Option(help="checkpoint.pt of the reader's run, or a weights folder.")],
    out: Run = Path("runs/writer"),
    minutes: Minutes = 0,
    steps: Steps = 0,
    decoder: Annotated[Path | None, typer.Option(help="checkpoint.pt whose decoder to start from.")] = None,
    unfreeze: Annotated[bool, typer.Option("--unfreeze", help="Train the encoder too; reading changes.")] = False,
    seed: Seed = 0,
    threads: Threads = 1,
    device: Device = "cpu",
    compile: Compile = False,
    settings: SettingsFile = None,
) -> None:
    """Teach the decoder to write: answers, small talk, stand-alone questions, summaries, translations."""
    from gglm.training.write import WriteSettings
    from gglm.training.write import write as train

    run, init = _settings(out, minutes, steps, seed, device, threads, compile=compile), _existing(init)
    given = WriteSettings(run, tokenizer, init, _sources(source), decoder_init=decoder, freeze_encoder=not unfreeze)
    train(_overridden(given, settings))


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
    borrow: Annotated[
        Path | None,
        typer.Option(help="Weights folder that will lie beside it; matrices that are its own are not stored."),
    ] = None,
) -> None:
    """Make a weights folder of a run: its averaged weights, tokenizer, config, checksums and card."""

    from gglm import weights
    from gglm.tasks import TASKS
    from gglm.training.finetune import from_checkpoint
    from gglm.training.trainer import record_of

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
    record = record_of(checkpoint)
    meta = record if "mean_of" in record else {"runs": {checkpoint.parent.name: record} if record else {}}
    text = card.read_text(encoding="utf-8") if card else ""
    model = from_checkpoint(checkpoint, dropout=0.0)
    lender = _existing(borrow) if borrow else None
    weights.save(out, model, tokenizer, name, tasks=tasks, card=text, meta=meta, int8=int8, lender=lender)
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
        task = bar.add_task("Reading", total=sum(map(len, sets)))
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
