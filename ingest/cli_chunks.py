"""`chatgglm chunks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gglm.console import err_console, friendly_errors, print_json, write_stdout


@friendly_errors
def chunks(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any file that can be ingested.")],
    chunk_target: Annotated[
        int | None, typer.Option(help="Tokens that a chunk should have (one a Chinese character).")
    ] = None,
    chunk_max: Annotated[int | None, typer.Option(help="Tokens that no chunk exceeds.")] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Tokens, at most, that a chunk repeats from the one before.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show how a file would be cut into chunks, without indexing it."""
    from ingest.limits import Limits
    from ingest.preview import preview
    from ingest.sizes import chunk_sizes
    from rag.settings import get_settings

    asked = {"chunk_target": chunk_target, "chunk_max": chunk_max, "chunk_overlap": chunk_overlap}
    settings = get_settings()
    found = preview(file, Limits.of(settings, sizes=chunk_sizes(settings, asked=asked).to_dict()))
    if as_json:
        print_json(found)
        return
    for chunk in found["chunks"]:
        page = f" · 第 {chunk['page']} 页" if chunk["page"] else ""
        heading = f" · {chunk['heading']}" if chunk["heading"] else ""
        place = f"{chunk['char_start']}–{chunk['char_end']} · {chunk['tokens']} 词元"
        write_stdout(f"── {chunk['ordinal'] + 1} · {place}{page}{heading}\n{chunk['text']}\n\n")
    sizes = sorted(chunk["tokens"] for chunk in found["chunks"])
    err_console.print(
        f"{found['title']}：{len(sizes)} 个片段，{found['characters']} 字符，"
        f"每段 {sizes[0]}–{sizes[-1]} 词元，中位数 {sizes[len(sizes) // 2]}。",
        markup=False,
    )
