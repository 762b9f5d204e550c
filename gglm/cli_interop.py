"""`chatgglm convert`: weights for Hugging Face Transformers or ONNX runtimes, and back."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gglm.console import err_console, friendly_errors


class Form(StrEnum):
    """What to make."""

    huggingface = "huggingface"
    onnx = "onnx"
    weights = "weights"


@friendly_errors
def convert(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    to: Annotated[
        Form, typer.Option(help="huggingface and onnx read a weights folder, weights a Transformers folder.")
    ],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="Folder; the shipped weights without.")
    ] = None,
    name: Annotated[str, typer.Option(help="With --to weights: what answers carry as their model.")] = "",
) -> None:
    """Write weights as a Hugging Face Transformers folder or as ONNX graphs, or bring a Transformers folder home."""
    if to is Form.weights and source is None:
        raise typer.BadParameter("--to weights needs the Transformers folder to read")
    with err_console.status("Converting …"):
        if to is Form.onnx:
            from gglm.interop import onnx

            onnx.export(source, out)
        else:
            from gglm.interop import huggingface

            if source is not None and to is Form.weights:
                huggingface.import_(source, out, name)
            else:
                huggingface.export(source, out)
    err_console.print(str(out))
