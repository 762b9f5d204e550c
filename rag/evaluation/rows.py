"""Rows of an evaluation file: JSON lines, plain or zstd-compressed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.errors import InvalidInput


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a ``.jsonl`` or ``.jsonl.zst`` file, blank lines left out.

    Raises:
        InvalidInput: no such file, or a line that is no JSON object (named by its number).
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.")
    try:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise InvalidInput(f"{path.name}, line {number}: not a JSON object.")
            yield row
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path.name}, line {number}: not JSON ({error.msg}).") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not UTF-8 text.") from error


def _lines(path: Path) -> Iterator[str]:
    if path.suffix != ".zst":
        with path.open(encoding="utf-8-sig") as file:
            yield from file
        return
    try:
        import zstandard
    except ImportError as error:
        raise InvalidInput("Reading .zst files needs the zstandard package: pip install 'chatgglm[train]'.") from error
    with path.open("rb") as raw:
        try:
            yield from io.TextIOWrapper(
                zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True), encoding="utf-8"
            )
        except zstandard.ZstdError as error:
            raise InvalidInput(f"{path.name} is not a zstd file.") from error
