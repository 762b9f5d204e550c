"""The encoder: a BERT that begins as the static model exactly, and its folder for sentence-transformers.

BERT normalises every position, which would throw away the lengths of the static vectors, that is, how
much each piece weighs. So each vector is lifted to a common length by four filler dimensions (+ + − −)
that the last layer norm's gain blanks out: with zero-initialised attention and feed-forward outputs
the network starts out as the average of the static vectors, weights and all, and learns from there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from rag.embedders.training.pairs import Ids
from rag.embedders.training.tokenizer import CLS, PAD, UNK

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel, PreTrainedTokenizerFast

FloatMatrix = npt.NDArray[np.float32]
FILLER = 4
NAME = "gglm-embed-zh"
MATRYOSHKA = (256, 128, 64)


def static_dim(width: int) -> int:
    """Dimensions left for static vectors: without filler, and with zero sum."""
    return width - FILLER - 1


def helmert(size: int) -> FloatMatrix:
    """(size − 1, size) unit rows, orthogonal to each other and to 1."""
    steps = np.arange(1, size)[:, None]
    basis = np.where(np.arange(size)[None] < steps, 1.0, 0.0)
    basis[np.arange(size - 1), np.arange(1, size)] = -steps[:, 0]
    return (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)


def lift(vectors: FloatMatrix, width: int) -> FloatMatrix:
    """(vocab, width) rows of zero mean and unit variance whose first columns keep all dot products."""
    content = vectors @ helmert(width - FILLER)
    norm = np.linalg.norm(content, axis=1)
    radius = float(np.quantile(norm, 0.995))
    content *= np.minimum(1, 0.999 * radius / np.maximum(norm, 1e-9))[:, None]
    rest = np.sqrt(radius**2 - np.square(content).sum(1)) / np.sqrt(FILLER)
    sign = np.array([1, 1, -1, -1], np.float32)
    return (np.concatenate([content, rest[:, None] * sign], 1) * (np.sqrt(width) / radius)).astype(np.float32)


def build(vectors: FloatMatrix, width: int = 256, layers: int = 2, inner: int = 768, seed: int = 0) -> BertModel:
    """A `BertModel` that averages ``vectors`` (vocab, `static_dim`); its layers, if any, add nothing yet."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vectors),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner,
        max_position_embeddings=512,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    model = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(torch.from_numpy(lift(vectors, width)))
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
        for layer in model.encoder.layer:
            layer.attention.output.dense.weight.zero_()
            layer.output.dense.weight.zero_()
        last_norm(model).weight[-FILLER:] = 0
    return model


def last_norm(bert: BertModel) -> torch.nn.LayerNorm:
    """The layer norm whose gain blanks the filler: the last layer's or, where there is none, the embeddings'."""
    layers = bert.encoder.layer
    norm: torch.nn.LayerNorm = layers[-1].output.LayerNorm if len(layers) else bert.embeddings.LayerNorm
    return norm


def cut(bert: BertModel, layers: int) -> None:
    """Keep the first ``layers`` layers only; the last norm stays the last."""
    state = last_norm(bert).state_dict()
    bert.encoder.layer = bert.encoder.layer[:layers]
    bert.config.num_hidden_layers = layers
    last_norm(bert).load_state_dict(state)


def piece_vectors(bert: BertModel) -> FloatMatrix:
    """(vocab, `static_dim`): what `lift` was given, up to scale and what training changed since."""
    table = bert.embeddings.word_embeddings.weight.detach().numpy()[:, :-FILLER]
    unlifted: FloatMatrix = table @ helmert(table.shape[1]).T
    return unlifted


def graft(bert: BertModel, vectors: FloatMatrix, share: float = 1.0) -> None:
    """Put a trained encoder's layers, their outputs scaled by ``share``, over other piece vectors.

    Sensible where the vectors were trained on from the encoder's own (`piece_vectors`).
    """
    import torch

    with torch.no_grad():
        bert.embeddings.word_embeddings.weight.copy_(torch.from_numpy(lift(vectors, bert.config.hidden_size)))
        for layer in bert.encoder.layer:
            for dense in (layer.attention.output.dense, layer.output.dense):
                dense.weight.mul_(share)
                dense.bias.mul_(share)


def assemble(model: BertModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> SentenceTransformer:
    """Transformer + mean pooling + unit length, from a working folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformer = Transformer(str(folder))
    pooling = Pooling(model.config.hidden_size, "mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


def features(texts: list[Ids], limit: int, cls: int = 2) -> dict[str, torch.Tensor]:
    """Padded ``[CLS] ids`` with their mask, as the tokenizer would make them."""
    import torch

    texts = [t[:limit] for t in texts]
    longest = max(map(len, texts)) + 1
    ids = np.zeros((len(texts), longest), np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    ids[:, 0] = cls
    for row, text in enumerate(texts):
        ids[row, 1 : len(text) + 1] = text
        mask[row, : len(text) + 1] = 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def encode(model: SentenceTransformer, texts: list[Ids], limit: int = 511, size: int = 32) -> FloatMatrix:
    """Unit vectors (n, dim) of id sequences, sorted by length on the way."""
    import torch

    order = np.argsort([-len(t) for t in texts], kind="stable")
    out: npt.NDArray[np.float32] | None = None
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(texts), size):
            rows = order[start : start + size]
            part = model(features([texts[r] for r in rows], limit))["sentence_embedding"].float().numpy()
            if out is None:
                out = np.zeros((len(texts), part.shape[1]), np.float32)
            out[rows] = part
    assert out is not None
    return out


def export(model: SentenceTransformer, folder: Path) -> int:
    """Write the folder that ships: fp16 tensors, loaded as float32. Returns its size in bytes.

    The JSON files are written in the form that sentence-transformers has read since version 2.
    """
    import torch
    from safetensors.torch import save_file

    bert: BertModel = cast(Any, model[0]).auto_model
    positions = bert.config.max_position_embeddings
    tensors = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in bert.state_dict().items()
        if "position_ids" not in name and "token_type_ids" not in name
    }
    for name in tensors:
        if name.startswith("pooler."):  # transformers expects it; mean pooling never asks for it
            tensors[name] = torch.zeros_like(tensors[name])
    config = {
        key: value
        for key, value in bert.config.to_diff_dict().items()
        if key not in ("dtype", "torch_dtype", "transformers_version")
    }
    # the file is fp16, the model is not: half precision on a CPU is slow
    config |= {"architectures": ["BertModel"], "torch_dtype": "float32"}
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    for path in paths:
        (folder / path).mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    model.tokenizer.backend_tokenizer.no_padding()
    model.tokenizer.backend_tokenizer.no_truncation()
    model.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    documents: dict[str, object] = {
        "config.json": config,
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
        ],
        "sentence_bert_config.json": {"max_seq_length": positions, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "similarity_fn_name": "cosine"},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": CLS,
            "pad_token": PAD,
            "unk_token": UNK,
            "model_max_length": positions,
            "model_input_names": ["input_ids", "attention_mask"],
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": bert.config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "2_Normalize/config.json": {},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
