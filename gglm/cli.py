"""`chatgglm read | bench | convert | eval … | train …`: the generator's commands."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, fail, friendly_errors, print_json, progress, warn, write_stdout
from gglm.errors import DataError
from gglm.types import Source, Turn

if TYPE_CHECKING:
    from gglm.engine import Engine

Weights = Annotated[
    Path | None,
    typer.Option("--weights", envvar="CHATGGLM_READER_WEIGHTS", help="Weights folder; the shipped one without."),
]
Threads = Annotated[int, typer.Option(envvar="CHATGGLM_THREADS", min=1, max=64, help="Torch threads.")]
Int8 = Annotated[bool, typer.Option("--int8", help="Quantise the weights: faster, slightly less exact.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add this package's commands."""
    from gglm import cli_eval, cli_interop, cli_train, cli_train_data

    app.command()(read)
    app.command()(bench)
    app.command()(cli_interop.convert)
    cli_eval.register(groups["eval"])
    cli_train_data.register(groups["train"])
    cli_train.register(groups["train"])


def load_engine(weights: Path | None, threads: int, int8: bool = False) -> Engine:
    """The engine, its two seconds of imports announced."""
    with err_console.status("Loading the generator …"):
        from gglm.engine import Engine

        return Engine.load(weights, threads, int8)


@friendly_errors
def read(
    questions: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Questions with their passages; - is stdin.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.jsonl", help="Answers; - is stdout.")],
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Questions read together.")] = 16,
) -> None:
    """Answer each line's question from its own passages (closed reading, no index).

    A line in is {"id", "question", "passages": [{"title", "text"}], "history": […]}; a line out is
    {"id", "answer", "answerable", "p_answerable", "confidence", "citations": [{"passage", "start",
    "end", "quote"}], "latency_ms"}, in the same order. A line that cannot be used gives {"id", "error"}
    and exit code 1. latency_ms is the batch's time divided by its questions: --batch 1 for the real one.
    """
    rows = load_rows(questions)
    engine = load_engine(weights, threads, int8)
    bad = 0
    with _writer(out) as file, progress() as bar:
        task = bar.add_task("Reading", total=len(rows))
        for at in range(0, len(rows), batch):
            part = rows[at : at + batch]
            for line in answer_rows(engine, part):
                bad += "error" in line
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            bar.advance(task, len(part))
    if bad:
        for row in rows:
            if isinstance(row, BadLine):
                warn(f"line {row.number}: {row.error}")
        fail(f'{bad} of {len(rows)} lines could not be used; they are marked with "error" in {out}')


class BadLine:
    """A line that cannot be used, and why."""

    def __init__(self, number: int, id: Any, error: str) -> None:
        self.number, self.id, self.error = number, id, error


class Row:
    """A line's question with its sources."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.id = value.get("id")
        self.question = _text(value, "question")
        if not self.question.strip():
            raise ValueError('"question" is empty')
        passages = value.get("passages")
        if not isinstance(passages, list):
            raise ValueError('"passages" must be a list of {"title", "text"}')
        self.sources = [_source(p, i) for i, p in enumerate(passages)]
        self.history = [_turn(t, i) for i, t in enumerate(value.get("history") or [])]


def _text(value: dict[str, Any], key: str, where: str = "") -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise ValueError(f'{where}"{key}" must be a text' + ("" if key in value else ", and is missing"))
    return text


def _source(value: Any, index: int) -> Source:
    if not isinstance(value, dict):
        raise ValueError(f'passage {index} must be {{"title", "text"}}')
    title = _text(value, "title", f"passage {index}: ") if value.get("title") is not None else ""
    return Source(_text(value, "text", f"passage {index}: "), title)


def _turn(value: Any, index: int) -> Turn:
    if not isinstance(value, dict) or value.get("role") not in ("user", "assistant"):
        raise ValueError(f'history {index} must be {{"role": "user" or "assistant", "content"}}')
    return Turn(value["role"], _text(value, "content", f"history {index}: "))


def load_rows(path: Path) -> list[Row | BadLine]:
    """All lines but the blank ones.

    Raises:
        DataError: there is no such file, it is not UTF-8, or it holds no line.
    """
    from gglm.evaluation import open_lines

    if str(path) != "-" and not path.is_file():
        raise DataError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    rows: list[Row | BadLine] = []
    for number, line in enumerate(sys.stdin if str(path) == "-" else open_lines(path), 1):
        if not line.strip():
            continue
        value: Any = None
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
            rows.append(Row(value))
        except json.JSONDecodeError as error:
            rows.append(BadLine(number, None, f"not JSON: {error.msg} at character {error.pos}"))
        except (ValueError, RecursionError) as error:
            rows.append(BadLine(number, value.get("id") if isinstance(value, dict) else None, str(error)))
    if not rows:
        raise DataError(f"{path} holds no questions")
    return rows


def answer_rows(engine: Engine, rows: list[Row | BadLine]) -> list[dict[str, Any]]:
    """One JSON object for each row, in order."""
    good = [r for r in rows if isinstance(r, Row)]
    began = time.perf_counter()
    readings = iter(engine.read_batch([(r.question, r.sources, r.history) for r in good]))
    each = 1000 * (time.perf_counter() - began) / max(1, len(good))
    out: list[dict[str, Any]] = []
    for row in rows:
        if isinstance(row, BadLine):
            out.append({"id": row.id, "error": f"line {row.number}: {row.error}"})
            continue
        reading = next(readings)
        cited = [(p.text, p.origin) for p in reading.pieces if p.origin is not None]
        out.append({
            "id": row.id,
            "answer": reading.answer,
            "answerable": reading.answerable,
            "p_answerable": round(reading.p_answerable, 6),
            "confidence": round(reading.confidence, 6),
            "citations": [
                {"passage": o.source, "start": o.start, "end": o.end, "quote": text} for text, o in cited
            ],
            "latency_ms": round(each, 3),
        })  # fmt: skip
    return out


@contextmanager
def _writer(out: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete; ``-`` is stdout."""
    if str(out) == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not out.parent.is_dir():
        raise DataError(f"{out.parent} is not a folder: create it first")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


@friendly_errors
def bench(
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    as_json: Json = False,
) -> None:
    """Measure reading and decoding on this machine, and the share of its memory bandwidth."""
    with err_console.status("Measuring …"):
        from gglm.bench import run

        figures = run(weights, threads, int8)
    if as_json:
        print_json(figures)
        return
    f = figures
    write_stdout(
        f"{f['model']}: {f['parameters'] / 1e6:.1f} M parameters, {f['threads']} thread(s)"
        f"{', int8' if f['int8'] else ''}, loaded in {f['load_ms']:.0f} ms\n"
        f"read one full window {f['read_ms']['1']:.0f} ms, four {f['read_ms']['4']:.0f} ms "
        f"({f['read_tokens_per_s']:.0f} tokens/s)\n"
        f"decode over {f['decode_source_tokens']} source tokens: {f['decode_tokens_per_s']:.0f} tokens/s, "
        f"first after {f['first_token_ms']:.1f} ms\n"
        f"{f['bytes_per_token'] / 1e6:.1f} MB of weights a token: {100 * f['bandwidth_share']:.0f} % of the "
        f"{f['memory_bandwidth_gb_s']:.1f} GB/s measured\n"
    )
