"""`chatgglm train tokenizer|shards|vectors|questions|followups`: what the training itself reads (`gglm.cli_train`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gglm.console import err_console, friendly_errors
from gglm.errors import DataError

Texts = Annotated[Path, typer.Argument(metavar="TEXTS", help='Folder of .jsonl or .jsonl.zst with a "text" field.')]
ShardFolder = Annotated[Path, typer.Argument(metavar="SHARDS", help="Folder made by `train shards`.")]
TokenizerFile = Annotated[Path, typer.Option("--tokenizer", help="A tokenizer.model.")]
Preset = Annotated[str, typer.Option(help="tiny, small or base.")]
Seed = Annotated[int, typer.Option(help="Same seed, same run.")]
Threads = Annotated[int, typer.Option(min=1, max=64, help="Torch threads.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the `train` group."""
    for command in (tokenizer, shards, vectors, questions, followups):
        group.command()(command)


def checked_preset(name: str) -> str:
    """The name, if there is a preset of it."""
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
    config = PRESETS[checked_preset(preset)]
    if not config.bigrams:
        raise typer.BadParameter(f"--preset {preset} has no bigram table to start")
    sizes = {"vocab": pieces.padded_size, "bigrams": config.bigrams, "dim": config.d_model}
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
def followups(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Questions, as `train finetune` reads them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .jsonl file to write.")],
    times: Annotated[int, typer.Option(min=1, help="How often each question is tried.")] = 2,
    seed: Seed = 0,
) -> None:
    """Follow-up questions and what they stand for, made of questions over the same text (for `train write`)."""
    import json

    from gglm.training.corpus import read_jsonl
    from gglm.training.followups import followups as make

    made = []
    for file in files:
        try:
            made += list(make(list(read_jsonl(file)), seed, times))
        except (KeyError, TypeError) as error:
            raise DataError(f"{file}: a row lacks {error}; each needs a question and its context") from None
    if not made:
        raise DataError("no two questions over one text that share what they ask about")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    err_console.print(f"{out}: {len(made)} follow-ups")
