"""A plain BERT with mean pooling, straight from its sentence-transformers folder.

Importing sentence-transformers takes eight seconds and transformers another; this needs torch and
tokenizers only. The vectors are those of sentence-transformers (tested), for the folders that
`BertEmbedder.fits` accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.embedders.checks import checked, prompts
from rag.ports import FloatMatrix

if TYPE_CHECKING:
    import torch

BATCH_TEXTS = 128
BATCH_TOKENS = 512
"""Of a batch: what a layer computes for it stays in the processor's cache (at 4096, a quarter slower)."""
_MODULES = (("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize"))


class BertEmbedder:
    """The `Embedder` port. Safe to use from several threads."""

    def __init__(self, folder: Path, ident: str) -> None:
        import torch
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        modules = _read(folder / "modules.json")
        base = folder / modules[0]["path"]
        self._config = _read(base / "config.json")
        limit = _read(base / "sentence_bert_config.json", {}).get("max_seq_length")
        tokenizer_limit = _read(base / "tokenizer_config.json", {}).get("model_max_length")
        positions = self._config["max_position_embeddings"]
        self._tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(int(x) for x in (limit, tokenizer_limit, positions) if x))
        weights = load_file(str(base / "model.safetensors"))
        self._weights = {name.removeprefix("bert."): tensor.float() for name, tensor in weights.items()}
        for i in range(self._config["num_hidden_layers"]):  # one product in the place of three
            for kind in ("weight", "bias"):
                names = [f"encoder.layer.{i}.attention.self.{part}.{kind}" for part in ("query", "key", "value")]
                fused = torch.cat([self._weights.pop(name) for name in names])
                self._weights[f"encoder.layer.{i}.attention.self.all.{kind}"] = fused
        self._query, self._passage = prompts(folder)
        self._id = ident

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether a folder holds just this: BERT, mean pooling, perhaps a final normalisation."""
        modules = _read(folder / "modules.json", [])
        names = tuple(module["type"].rpartition(".")[2] for module in modules)
        if names not in _MODULES:
            return False
        base = folder / modules[0]["path"]
        config = _read(base / "config.json", {})
        return (
            config.get("model_type") == "bert"
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not _read(base / "sentence_bert_config.json", {}).get("do_lower_case")
            and _is_mean(_read(folder / modules[1]["path"] / "config.json", {}))
            and (base / "tokenizer.json").is_file()
            and (base / "model.safetensors").is_file()
        )

    @property
    def id(self) -> str:
        """Name and fingerprint of the weights."""
        return self._id

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._config["hidden_size"])

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of questions."""
        return self._encode([self._query + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of passages."""
        return self._encode([self._passage + text for text in texts])

    def _encode(self, texts: list[str]) -> FloatMatrix:
        import torch

        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return out
        encoded = [e.ids for e in self._tokenizer.encode_batch(texts)]
        with torch.inference_mode():
            for rows in _batches([len(ids) for ids in encoded]):
                out[rows] = self._forward([encoded[r] for r in rows]).numpy()
        return checked(out, self._id)

    def _forward(self, ids: list[list[int]]) -> torch.Tensor:
        """Mean-pooled, unit-length (n, dim) of one batch of token ids."""
        import torch
        from torch.nn import functional as F

        w, config = self._weights, self._config
        size, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
        lengths = torch.tensor([len(i) for i in ids])
        longest = int(lengths.max())
        tokens = torch.tensor([i + [config.get("pad_token_id") or 0] * (longest - len(i)) for i in ids])
        mask = torch.arange(longest) < lengths[:, None]
        attend = None if bool(mask.all()) else mask[:, None, None, :]

        def linear(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.linear(x, w[name + ".weight"], w[name + ".bias"])

        def added(x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
            """``x + linear(y)`` without a passing result."""
            return (x + w[name + ".bias"]).addmm_(y, w[name + ".weight"].t())

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.layer_norm(x, (size,), w[name + ".weight"], w[name + ".bias"], eps)

        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = norm(x + w["embeddings.position_embeddings.weight"][:longest], "embeddings.LayerNorm").view(-1, size)
        for i in range(config["num_hidden_layers"]):
            at = f"encoder.layer.{i}."
            parts = linear(x, at + "attention.self.all").view(len(ids), longest, 3, heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
            mixed = mixed.transpose(1, 2).reshape(-1, size)
            x = norm(added(x, mixed, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            inner = F.gelu(linear(x, at + "intermediate.dense"))
            x = norm(added(x, inner, at + "output.dense"), at + "output.LayerNorm")
        pooled = (x.view(len(ids), longest, size) * mask[:, :, None]).sum(1) / lengths[:, None]
        return F.normalize(pooled, dim=1)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows by falling length, so that a batch is padded little and its size is bounded."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    at = 0
    while at < len(order):
        count = max(1, min(BATCH_TEXTS, BATCH_TOKENS // max(1, lengths[order[at]])))
        yield order[at : at + count]
        at += count


def _is_mean(pooling: dict[str, Any]) -> bool:
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    return modes == ["pooling_mode_mean_tokens"] or (not modes and pooling.get("pooling_mode") == "mean")


def _read(path: Path, default: Any = None) -> Any:
    """A JSON file; ``default``, where one is given, if there is none."""
    if default is not None and not path.is_file():
        return default
    return json.loads(path.read_text(encoding="utf-8"))
