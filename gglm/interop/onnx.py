"""The network as ONNX graphs, for runtimes without PyTorch (extra ``chatgglm[onnx]``).

``encoder.onnx``  tokens, segments, matches int64 (B, L), passage bool (B, L) → hidden (B, L, D), start and end logits
                  (B, L) with «no answer» at position 0, relevance (B)
``decoder.onnx``  targets int64 (B, T), [BOS] first, hidden (B, S, D), source int64 (B, S), copyable bool (B, S), first
                  float32 (B, S) → log-probabilities of the next token (B, V), the pointer's share of each source token
                  (B, S)

B, L, S and T are free. Inputs are made by `gglm.tasks` (`pad_batch` gives the encoder's four); ``first`` is the
log-softmax of the start logits in 问答 and 0 in other tasks. The decoder reads its whole prefix each step.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from gglm import weights
from gglm.errors import DataError
from gglm.model import ChatGGLM, Embedding, Memory
from gglm.tokenizer import PAD

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


class _EncoderGraph(nn.Module):
    def __init__(self, model: ChatGGLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, segments: Tensor, matches: Tensor, passage: Tensor) -> tuple[Tensor, ...]:
        hidden = self.model.encode(tokens, segments, matches)
        start, end = self.model.span_logits(hidden, passage)
        return hidden, start, end, self.model.relevance_logits(hidden)


class _DecoderGraph(nn.Module):
    def __init__(self, model: ChatGGLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, targets: Tensor, hidden: Tensor, source: Tensor, copyable: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        out = self.model.decode(targets, Memory(hidden, source, source.ne(PAD), copyable, first))
        return out.log_probs[:, -1], out.copy[:, -1]


class _SearchedEmbedding(Embedding):
    """The same bigram rows by a binary search of plain operations: ONNX has no searchsorted."""

    def bigram_rows(self, tokens: Tensor) -> Tensor:
        key = torch.nn.functional.pad(tokens, (1, 0))[:, :-1] * self.vocab_size + tokens
        keys = self.bigram_keys
        row, step = torch.zeros_like(key), 1 << max(0, len(keys) - 1).bit_length()
        while step := step // 2:
            ahead = (row + step).clamp(max=len(keys) - 1)
            row = torch.where(keys[ahead] <= key, ahead, row)
        return torch.where(keys[row] == key, row, torch.zeros_like(row))


def export(source: Path | None, out: Path) -> Path:
    """Write both graphs of a weights folder (the shipped one by default), its tokenizer, config and card.

    Raises:
        WeightsError: the weights folder is missing or damaged.
        DataError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise DataError("ONNX export needs more packages: `pip install 'chatgglm[onnx]'`") from None
    loaded = weights.load(source)
    model = loaded.model
    model.encoder.embedding.__class__ = _SearchedEmbedding
    out.mkdir(parents=True, exist_ok=True)
    batch, length, written = 2, 40, 5
    ids = torch.full((batch, length), 8)
    yes = torch.ones(batch, length, dtype=torch.bool)
    hidden = torch.zeros(batch, length, model.config.d_model)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=model.config.max_positions)
    prefix = torch.export.Dim("prefix", min=2, max=model.config.max_positions)
    flat, deep = {0: rows, 1: tokens}, {0: rows, 1: tokens}
    _write(
        _EncoderGraph(model), (ids, torch.zeros_like(ids), torch.zeros_like(ids), yes), out / ENCODER,
        ["tokens", "segments", "matches", "passage"], ["hidden", "start", "end", "relevance"], [flat] * 4,
    )  # fmt: skip
    _write(
        _DecoderGraph(model), (ids[:, :written], hidden, ids, yes, torch.zeros(batch, length)), out / DECODER,
        ["targets", "hidden", "source", "copyable", "first"], ["log_probs", "copy"],
        [{0: rows, 1: prefix}, deep, flat, flat, flat],
    )  # fmt: skip
    for name in (weights.TOKENIZER, weights.CARD):
        if (loaded.folder / name).is_file():
            shutil.copyfile(loaded.folder / name, out / name)
    config = {k: v for k, v in weights.read_config(loaded.folder).items() if k != "sha256"}
    (out / weights.CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return out


def _write(
    graph: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str], outputs: list[str], shapes: list[Any]
) -> None:
    # With gradients on, attention is the plain formula (`gglm.model.attention`), which every runtime knows.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision aloud
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(), example, str(path), input_names=inputs, output_names=outputs,
            dynamic_shapes=tuple(shapes), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
