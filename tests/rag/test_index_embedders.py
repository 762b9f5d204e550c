"""Loading embedders: the plain BERT path, sentence-transformers, servers, names that mean nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag import embedders
from rag.embedders import embedder_id, load_embedder
from rag.embedders.bert import BertEmbedder
from rag.embedders.remote import RemoteEmbedder
from rag.embedders.sentence import SentenceEmbedder
from rag.errors import IndexUnavailable, InvalidInput
from rag.ports import Embedder

TEXTS = ["年假有十五天。", "", "a", "第二十条 " * 40, "SN-2024-A", "长" * 700, "短"]


def make(folder: Path, pooling: str = "mean", prompts: dict[str, str] | None = None, seed: int = 0) -> Path:
    """A sentence-transformers folder with a random two-layer BERT and a character tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    characters = sorted({c for text in TEXTS for c in text} - {" "})
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", model_max_length=64
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=80,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder / "base")
    fast.save_pretrained(folder / "base")
    parts = [Transformer(str(folder / "base")), Pooling(32, pooling), Normalize()]
    SentenceTransformer(modules=parts, device="cpu", prompts=prompts).save(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("bert"), prompts={"query": "短a", "document": "长"})


def test_the_plain_path_gives_what_sentence_transformers_gives(folder: Path) -> None:
    fast = load_embedder(str(folder))
    slow = SentenceEmbedder(str(folder), "slow")
    assert isinstance(fast, BertEmbedder)
    assert isinstance(fast, Embedder)
    assert fast.dim == slow.dim == 32
    for mine, theirs in (
        (fast.encode_passages(TEXTS), slow.encode_passages(TEXTS)),
        (fast.encode_queries(TEXTS), slow.encode_queries(TEXTS)),
    ):
        assert mine.dtype == theirs.dtype == np.float32
        assert np.abs(np.linalg.norm(mine, axis=1) - 1).max() < 1e-5
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert np.abs(fast.encode_queries(TEXTS) - fast.encode_passages(TEXTS)).max() > 1e-3, "prompts matter"


def test_the_shipped_embedder_takes_the_plain_path() -> None:
    fast = load_embedder()
    assert isinstance(fast, BertEmbedder)
    assert fast.id.startswith("gglm-embed-zh@")
    slow = SentenceEmbedder(str(Path(embedders.__file__).parent / "gglm-embed-zh"), "slow")
    texts = [*TEXTS, "員工請假應當提前三天申請", "２０２４年", "😀" * 9, "句子。" * 400]
    np.testing.assert_allclose(fast.encode_passages(texts), slow.encode_passages(texts), atol=1e-5)
    np.testing.assert_allclose(fast.encode_queries(texts), slow.encode_queries(texts), atol=1e-5)


def test_the_shipped_embedder_needs_neither_transformers_library() -> None:
    code = (
        "import sys; from rag.embedders import load_embedder\n"
        "assert load_embedder().encode_queries(['年假']).shape[0] == 1\n"
        "sys.exit(str({'transformers', 'sentence_transformers'} & set(sys.modules) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 or done.stderr.strip() == "0", done.stderr


def test_a_vector_does_not_depend_on_its_batch(folder: Path) -> None:
    embedder = load_embedder(str(folder))
    together = embedder.encode_passages(TEXTS)
    alone = np.concatenate([embedder.encode_passages([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert embedder.encode_passages([]).shape == (0, 32)


def test_other_pooling_goes_through_sentence_transformers(tmp_path: Path) -> None:
    folder = make(tmp_path, pooling="cls")
    assert not BertEmbedder.fits(folder)
    embedder = load_embedder(str(folder))
    assert isinstance(embedder, SentenceEmbedder)
    assert embedder.encode_passages([]).shape == (0, 32)
    assert np.abs(np.linalg.norm(embedder.encode_passages(TEXTS), axis=1) - 1).max() < 1e-5


def test_weights_in_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    whole = make(tmp_path, pooling="cls")
    half = SentenceTransformer(str(whole), device="cpu").half()
    half.save(str(tmp_path / "half"))
    loaded = SentenceEmbedder(str(tmp_path / "half"), "half")
    assert {p.dtype.itemsize for p in loaded._model.parameters()} == {4}
    expected = SentenceEmbedder(str(whole), "whole").encode_passages(TEXTS)
    np.testing.assert_allclose(loaded.encode_passages(TEXTS), expected, atol=2e-3)


def test_an_id_tells_weights_apart(tmp_path: Path, folder: Path) -> None:
    other = make(tmp_path, seed=1)
    assert embedder_id(str(folder)) != embedder_id(str(other))
    assert load_embedder(str(folder)).id == embedder_id(str(folder))
    assert load_embedder(str(folder)) is load_embedder(f"{folder} ")


@pytest.mark.parametrize("name", ["", "./nowhere", "/no/such/folder", "~/nothing/here"])
def test_a_name_that_means_nothing_is_told(name: str) -> None:
    with pytest.raises(InvalidInput, match="CHATGGLM_EMBEDDER"):
        load_embedder(name)


def test_damaged_folders_are_told(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no"):
        load_embedder(str(tmp_path))
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        load_embedder(str(tmp_path / "cut"))


class Handler(BaseHTTPRequestHandler):
    """An embedding server: the vector is (length, 1, 0)."""

    broken = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = [{"index": i, "embedding": [float(len(text)), 1.0, 0.0]} for i, text in enumerate(body["input"])]
        answer: Any = {"data": data[::-1][1:] if self.broken else data[::-1]}
        self.send_response(200 if self.path == "/v1/embeddings" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_server_can_embed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load_embedder(f"openai:some-model@{url}")
    assert isinstance(embedder, RemoteEmbedder)
    assert embedder.id == embedder_id(f"openai:some-model@{url}") == f"openai:some-model@{url}"
    assert embedder.dim == 3
    vectors = embedder.encode_passages(["一" * n for n in range(1, 150)])
    assert vectors.dtype == np.float32
    assert vectors[7] == pytest.approx(np.array([8, 1, 0]) / np.sqrt(65), abs=1e-6)
    assert embedder.encode_queries([]).shape == (0, 3)
    monkeypatch.setattr(Handler, "broken", True)
    with pytest.raises(IndexUnavailable, match="vectors for 2 texts"):
        embedder.encode_queries(["一", "二"])


def test_a_silent_server_is_told(url: str) -> None:
    with pytest.raises(IndexUnavailable, match="Check that it runs"):
        RemoteEmbedder("m", "http://127.0.0.1:9").encode_queries(["一"])
    with pytest.raises(IndexUnavailable, match="404"):
        RemoteEmbedder("m", url + "/wrong").encode_queries(["一"])
    for name in ("openai:", "openai:m", "openai:m@ftp://x"):
        with pytest.raises(InvalidInput, match="openai:MODEL@URL"):
            load_embedder(name)
