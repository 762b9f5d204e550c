"""`chatgglm embed`: texts to vectors, for evaluation and search elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gglm.console import err_console, friendly_errors, print_json, progress

BATCH = 64


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the command."""
    app.command()(embed)


@friendly_errors
def embed(
    texts: Annotated[
        Path,
        typer.Argument(
            metavar="IN.jsonl", help='JSON lines (also .zst), each {"text": "…"}.', exists=True, dir_okay=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="NumPy file, float32 (n, dim).", metavar="OUT.npy")],
    kind: Annotated[Literal["query", "passage"], typer.Option(help="What the texts are.")] = "passage",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Turn texts into unit-length vectors, one row a line, with the embedder of the settings (CHATGGLM_EMBEDDER)."""
    import numpy as np

    from rag.embedders import load_embedder
    from rag.errors import InvalidInput
    from rag.evaluation.rows import read_rows
    from rag.settings import get_settings

    rows: list[str] = []
    for number, row in enumerate(read_rows(texts), start=1):
        if not isinstance(row.get("text"), str):
            raise InvalidInput(f'{texts.name}, row {number}: "text" is needed.')
        rows.append(row["text"])
    if out.suffix != ".npy":
        raise InvalidInput(f"{out.name} must end in .npy.")
    embedder = load_embedder(get_settings().embedder)
    encode = embedder.encode_queries if kind == "query" else embedder.encode_passages
    vectors = np.zeros((len(rows), embedder.dim), dtype=np.float32)
    with progress() as bar:
        task = bar.add_task("embedding", total=len(rows))
        for start in range(0, len(rows), BATCH):
            vectors[start : start + BATCH] = encode(rows[start : start + BATCH])
            bar.update(task, completed=min(start + BATCH, len(rows)))
    temporary = out.with_name(f".{out.name}.tmp.npy")
    try:
        np.save(temporary, vectors, allow_pickle=False)
        temporary.replace(out)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    facts: dict[str, Any] = {
        "out": str(out), "rows": len(rows), "dim": embedder.dim, "kind": kind, "embedder": embedder.id,
    }  # fmt: skip
    if as_json:
        print_json(facts)
    else:
        err_console.print(f"{out}: {len(rows)} vectors of {embedder.dim} by {embedder.id}.", markup=False)
