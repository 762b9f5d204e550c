"""To other systems and back: the same numbers come out there, and the same weights come home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gglm import weights
from gglm.config import GGLMConfig
from gglm.engine import Engine
from gglm.errors import DataError, WeightsError
from gglm.interop import lora, word_vectors
from gglm.model import ChatGGLM
from gglm.tokenizer import Tokenizer
from gglm.training import vectors
from gglm.types import SamplingOptions, Source
from tests.gglm.conftest import GREETING, PASSAGES, QUESTIONS, examples, tiny


@pytest.fixture(scope="module")
def folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, none of them zero: every part of the network shows in what comes out."""
    model = ChatGGLM(GGLMConfig.from_dict({**tiny(tokenizer).config.to_dict(), "bigrams": 64}))
    ids = np.concatenate([tokenizer.encode(p) for p in PASSAGES]).astype(np.int64)
    content = np.zeros(model.config.vocab_size, bool)
    content[: len(tokenizer)] = tokenizer.is_content
    keys = vectors.common_bigrams(ids, content, model.config.vocab_size, 64)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
        model.encoder.embedding.bigram_keys.copy_(torch.from_numpy(keys))
        model.output_gain.fill_(1.0)
    return weights.save(
        tmp_path_factory.mktemp("random") / "w", model, tokenizer.model, "gglm-random", card="# 卡片\n",
        tasks=("对话",), reader=weights.ReaderSettings(alone=weights.Answerability(threshold=0.25)),
    )  # fmt: skip


def test_transformers_generate_what_we_generate(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from gglm.interop import huggingface

    engine = Engine.load(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(huggingface.export(folder, tmp_path / "hf")).eval()
    options = SamplingOptions(max_tokens=12)
    asked = [(q, PASSAGES[i]) for q, i, _ in QUESTIONS[:4]]
    got = model.generate(**huggingface.inputs(engine.tokenizer, "问答", asked), max_new_tokens=12, do_sample=False)
    for (question, passage), ids in zip(asked, got, strict=True):
        memory, _ = engine.memory("问答", question, [Source(passage)])
        from gglm import generate

        ours = [s.token for s in generate.generate(engine.model, memory, options, engine._rules("问答"))]
        assert ids[1 : len(ours) + 1].tolist() == ours
        assert len(set(ours)) > 1
    said = model.generate(
        **huggingface.inputs(engine.tokenizer, "对话", [(GREETING[0], "")]), max_new_tokens=12, do_sample=False
    )
    assert engine.tokenizer.decode(said[0].tolist()) == engine.chat(GREETING[0], options=options).text
    beams = model.generate(
        **huggingface.inputs(engine.tokenizer, "问答", asked[:2]), max_new_tokens=6, num_beams=3, do_sample=False
    )
    assert beams.shape[0] == 2


def test_transformers_model_trains_and_comes_home(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from gglm.interop import huggingface

    exported = huggingface.export(folder, tmp_path / "hf")
    model = AutoModelForSeq2SeqLM.from_pretrained(exported)
    before = weights.load(folder)
    batch = huggingface.inputs(before.tokenizer, "问答", [(QUESTIONS[0][0], PASSAGES[0])])
    labels = torch.from_numpy(before.tokenizer.encode("十八个月").astype(np.int64))[None]
    loss = model(**batch, labels=labels).loss
    loss.backward()
    assert float(model.gglm.encoder.layers[0].attention.qkv.weight.grad.abs().sum()) > 0
    home = weights.load(huggingface.import_(exported, tmp_path / "home"))
    for key, value in before.model.state_dict().items():
        assert torch.equal(value, home.model.state_dict()[key]), key
    assert (home.name, home.tasks, home.reader) == (before.name, before.tasks, before.reader)
    assert (tmp_path / "home" / "README.md").read_text(encoding="utf-8") == "# 卡片\n"
    with pytest.raises(WeightsError, match="not made by"):
        huggingface.import_(folder, tmp_path / "x")
    with pytest.raises(WeightsError, match="not a Transformers folder"):
        huggingface.import_(tmp_path / "nowhere", tmp_path / "x")


def test_lora_starts_at_the_model_and_merges_to_what_it_was_trained_to(tokenizer: Tokenizer, folder: Path) -> None:
    from gglm.training.batch import collate, losses

    batch = collate(examples(tokenizer)[:4])
    model = weights.load(folder).model
    plain = {k: v.clone() for k, v in model.state_dict().items()}

    def scores(of: ChatGGLM) -> torch.Tensor:
        hidden = of.encode(batch.tokens, batch.segments, batch.matches)
        return of.span_logits(hidden, batch.segments.eq(2))[0]

    with torch.no_grad():
        expected = scores(model)
        lora.add(model, rank=2)
        assert torch.allclose(scores(model), expected, atol=1e-4)
    assert 0 < lora.trainable(model) < 0.3 * sum(v.numel() for v in plain.values())
    with pytest.raises(ValueError, match="already"):
        lora.add(model, rank=2)

    before = losses(model, batch)["span"][0].item()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(15):
        optimizer.zero_grad()
        losses(model, batch)["span"][0].backward()
        optimizer.step()
    trained = model.state_dict()
    for key, value in plain.items():
        if not key.startswith("relevance_head"):
            assert torch.equal(trained[key], value), f"{key} was frozen, yet moved"
    with torch.no_grad():
        learnt = scores(model)
        assert losses(model, batch)["span"][0].item() < before
        merged = ChatGGLM(model.config)
        merged.load_state_dict(lora.merge_state(trained))
        assert torch.allclose(scores(merged.eval()), learnt, atol=1e-3)
        assert torch.allclose(scores(lora.merge(model)), learnt, atol=1e-3)
    assert set(model.state_dict()) == set(plain)
    assert not torch.allclose(learnt, expected, atol=1e-2)


KEYS = np.array([-1])


def _glove(path: Path, words: dict[str, np.ndarray]) -> Path:
    lines = [f"{w} " + " ".join(f"{x:.4f}" for x in v) for w, v in words.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_glove_and_word2vec_files_give_the_same_tables(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    rng = np.random.default_rng(0)
    words = {w: rng.normal(size=8).round(4).astype(np.float32) for w in ("公", "司", "公司", "北京", "a")}
    glove = _glove(tmp_path / "glove.txt", words)
    kept = KeyedVectors(8)
    kept.add_vectors(list(words), np.stack(list(words.values())))
    kept.save_word2vec_format(str(tmp_path / "w2v.bin"), binary=True)
    kept.save_word2vec_format(str(tmp_path / "w2v.txt"), binary=False)
    a, b = (int(i) for i in tokenizer.encode("公司"))
    keys = np.array([-1, a * 1000 + b])
    made = [
        word_vectors.tables(word_vectors.read(f), tokenizer, 1000, keys, 16)
        for f in (glove, tmp_path / "w2v.bin", tmp_path / "w2v.txt")
    ]
    tokens, pairs = made[0]
    assert tokens.shape == (1000, 16)
    assert pairs.shape == (2, 16)
    for other in made[1:]:
        assert np.allclose(tokens, other[0], atol=1e-4)
        assert np.allclose(pairs, other[1], atol=1e-4)
    assert not tokens[:, 8:].any()
    wanted = words["公司"]
    cosine = pairs[1, :8] @ wanted / np.linalg.norm(pairs[1]) / np.linalg.norm(wanted)
    assert cosine == pytest.approx(1.0, abs=1e-3)
    assert not tokens[int(tokenizer.encode("仓")[0])].any()
    narrow, _ = word_vectors.tables(word_vectors.read(glove), tokenizer, 1000, keys, 4)
    assert narrow.shape == (1000, 4)


def test_vector_files_that_cannot_be_used_say_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("nothing here\n", "utf-8")
    with pytest.raises(DataError, match="no word vectors"):
        word_vectors.tables(word_vectors.read(bad), tokenizer, 1000, KEYS, 16)
    with pytest.raises(DataError, match="does not exist"):
        list(word_vectors.read(tmp_path / "none.txt"))
    (tmp_path / "x.bin").write_bytes(b"\x00\x01")
    with pytest.raises(DataError, match="not a Word2Vec file"):
        list(word_vectors.read(tmp_path / "x.bin"))
    (tmp_path / "x.kv").write_bytes(b"")
    with pytest.raises(DataError, match="save_word2vec_format"):
        list(word_vectors.read(tmp_path / "x.kv"))


def test_embeddings_of_another_model_are_a_start(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "公", "司", "北", "京", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    config = BertConfig(vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    found = dict(word_vectors.huggingface(str(tmp_path / "bert"), tokenizer))
    assert {"公", "京"} <= set(found)
    assert "仓" not in found
    assert np.allclose(found["司"], bert.get_input_embeddings().weight[6].detach().numpy())
    tokens, _ = word_vectors.tables(found.items(), tokenizer, 1000, KEYS, 16)
    model = tiny(tokenizer)
    size = model.config.vocab_size
    start = {"tokens": np.pad(tokens, ((0, 0), (0, 48)))[:size], "counts": np.ones(size, np.int64)}
    vectors.start_from(model, start)
    row = int(tokenizer.encode("司")[0])
    assert np.allclose(model.embedding[row, :16].detach().numpy(), 0.3 * tokens[row], atol=1e-6)
    with pytest.raises(DataError, match="not a Transformers model"):
        list(word_vectors.huggingface(str(tmp_path / "vocab.txt"), tokenizer))


def test_onnx_runtime_computes_what_we_compute(folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    from gglm.interop import onnx
    from gglm.tasks import encode_task, pad_batch

    engine = Engine.load(folder)
    out = onnx.export(folder, tmp_path / "onnx")
    assert (out / "tokenizer.model").is_file()
    encoder, decoder = (
        onnxruntime.InferenceSession(out / name, providers=["CPUExecutionProvider"])
        for name in (onnx.ENCODER, onnx.DECODER)
    )
    rows = [encode_task("问答", engine.tokenizer, q, "", PASSAGES[i]) for q, i, _ in QUESTIONS[2:5]]
    names = ("tokens", "segments", "matches", "passage")
    batch = dict(zip(names, pad_batch(rows), strict=True))
    assert (batch["tokens"] == 0).any(), "padding takes part"
    hidden, start, end, relevance = encoder.run(None, batch)
    tokens, segments, matches, passage = (torch.from_numpy(batch[n]) for n in names)
    with torch.inference_mode():
        states = engine.model.encode(tokens, segments, matches)
        ours = (*engine.model.span_logits(states, passage), engine.model.relevance_logits(states))
    for theirs, mine in zip((start, end, relevance), ours, strict=True):
        assert np.allclose(theirs, mine.numpy(), atol=2e-3)
    real = batch["tokens"] != 0
    assert np.allclose(hidden[real], states.numpy()[real], atol=1e-3)

    question, number, _ = QUESTIONS[2]
    memory, _ = engine.memory("问答", question, [Source(PASSAGES[number])])
    assert memory.first is not None
    fed = {
        "hidden": memory.hidden.numpy(), "source": memory.tokens.numpy(), "copyable": memory.copyable.numpy(),
        "first": memory.first.numpy(),
    }  # fmt: skip
    written = [2, *engine.tokenizer.encode("净水器").tolist()]
    for length in range(1, len(written) + 1):
        prefix = np.array([written[:length]])
        log_probs, copy = decoder.run(None, {"targets": prefix, **fed})
        with torch.inference_mode():
            mine = engine.model.decode(torch.from_numpy(prefix), memory)
        assert np.allclose(log_probs, mine.log_probs[:, -1].numpy(), atol=2e-3)
        assert np.allclose(copy, mine.copy[:, -1].numpy(), atol=1e-3)


def test_convert_and_train_commands(tokenizer: Tokenizer, folder: Path, tmp_path: Path) -> None:
    """`convert` there and back, `train vectors --words`, and LoRA from a weights folder to a weights folder."""
    import json

    import typer
    from typer.testing import CliRunner

    from gglm import cli
    from gglm.training.corpus import build_shards

    app, group = typer.Typer(), typer.Typer()
    cli.register(app, {"eval": typer.Typer(), "train": group})
    app.add_typer(group, name="train")

    def call(*args: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(a) for a in args])
        assert done.exit_code == code, done.output
        return done.output

    call("convert", folder, "--to", "huggingface", "-o", tmp_path / "hf")
    call("convert", tmp_path / "hf", "--to", "weights", "-o", tmp_path / "home", "--name", "home")
    assert weights.load(tmp_path / "home").name == "home"
    assert "needs the Transformers folder" in call("convert", "--to", "weights", "-o", tmp_path / "x", code=2)

    build_shards(iter(PASSAGES * 3), tokenizer, tmp_path / "shards")
    words = _glove(tmp_path / "glove.txt", {w: np.arange(8.0) + i for i, w in enumerate(("公", "司", "公司"))})
    made = tmp_path / "vectors.npz"
    call("train", "vectors", tmp_path / "shards", "--tokenizer", tokenizer.model, "-o", made, "--words", words)
    table = np.load(made)
    assert set(table) == {"tokens", "bigrams", "keys", "counts"}
    assert table["tokens"][int(tokenizer.encode("司")[0])].any()

    data = tmp_path / "train.jsonl"
    rows = [
        {"question": q, "context": PASSAGES[i], "answers": [{"text": a}]} for q, i, a in QUESTIONS
    ]  # no "start": the answer's place is found
    data.write_text("\n".join(json.dumps(r) for r in rows), "utf-8")
    run, mine = tmp_path / "run", tmp_path / "mine"
    common = ("train", "finetune", "--data", data, "--init", folder, "--rows", 4, "--r-drop", 0.1)
    call(*common, "--lora", 2, "--steps", 3, "-o", run)
    call("train", "export", run, "--like", folder, "-o", mine, "--name", "mine")
    before, after = weights.load(folder), weights.load(mine)
    assert (after.name, after.tasks, after.reader) == ("mine", before.tasks, before.reader)
    changed = [k for k, v in after.model.state_dict().items() if not torch.equal(v, before.model.state_dict()[k])]
    assert any("attention.qkv" in k for k in changed)
    assert all(k.startswith((*lora.TARGETS, "relevance_head")) for k in changed)
    assert call("train", "export", run, "-o", mine, "--name", "mine", code=2)
