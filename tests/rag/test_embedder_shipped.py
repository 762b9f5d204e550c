"""The shipped embedder folder, loaded as any user of sentence-transformers would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "rag/embedders/gglm-embed-zh"


@pytest.fixture(scope="module")
def model():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(FOLDER), device="cpu", local_files_only=True, trust_remote_code=False)


def test_folder_is_small_and_standard():
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 12 * 2**20
    assert not [f for f in files if f.suffix in {".py", ".bin", ".pkl", ".pt"}]
    modules = [m["type"].rsplit(".", 1)[-1] for m in json.loads((FOLDER / "modules.json").read_text())]
    assert modules == ["Transformer", "Pooling", "Normalize"]
    assert json.loads((FOLDER / "config.json").read_text())["architectures"] == ["BertModel"]
    assert (FOLDER / "README.md").read_text(encoding="utf-8").startswith("---\n")


def test_stored_in_half_precision_loaded_in_single(model):
    import torch
    from safetensors import safe_open

    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_unit_vectors_whatever_the_text(model):
    texts = ["", " ", "。", "\x00\ud7ff", "😀" * 50, "问" * 5000, "ａｂｃ", "𠮷野家"]
    vectors = model.encode(texts)
    assert vectors.shape == (len(texts), 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("資料庫發佈於臺灣", "资料库发布于台湾"),
        ("ＧＰＴ－４ 模型", "gpt-4模型"),
        ("二手房，税费！", "二手房 税费"),
    ],
)
def test_scripts_widths_and_punctuation_do_not_matter(model, a, b):
    first, second = model.encode([a, b])
    assert first @ second > 0.9999


def test_batch_and_padding_do_not_change_a_vector(model):
    alone = model.encode(["怎么重置路由器的密码？"])[0]
    among = model.encode(["怎么重置路由器的密码？", "一段长得多的文字，" * 30])[0]
    np.testing.assert_allclose(alone, among, atol=2e-5)


PASSAGES = [
    "长按路由器背面的复位孔十秒，指示灯全部闪烁后松开，设备恢复出厂设置，管理密码变回标签上的初始值。",
    "本市居民首次购买九十平方米以下普通住房的，契税按百分之一的税率征收。",
    "西红柿切块，鸡蛋打散炒熟盛出，再下西红柿炒出汁，倒回鸡蛋翻匀，加盐和少许糖出锅。",
    "用人单位与劳动者协商一致解除合同的，应当按工作年限向劳动者支付经济补偿。",
    "蝙蝠靠喉部发出超声波，再用耳朵接收回声来判断猎物的位置。",
]
QUESTIONS = [
    "忘记无线网后台登录密码怎么办",
    "第一次买小户型房子要交多少税？",
    "番茄炒蛋怎么做",
    "公司把我辞退了能拿到多少赔偿金",
    "蝙蝠在黑夜里怎么捉虫子",
]


def test_finds_passages_in_other_words(model):
    scores = model.encode_query(QUESTIONS) @ model.encode_document(PASSAGES).T
    assert scores.argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_truncated_vectors_still_find_them(model):
    queries, passages = (v[:, :64] for v in (model.encode(QUESTIONS), model.encode(PASSAGES)))
    queries, passages = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, passages))
    assert ((queries @ passages.T).argmax(1) == np.arange(5)).sum() >= 4


@pytest.mark.shared
def test_scores_on_the_development_questions(model):
    data = Path(__file__).parents[2] / "../shared/data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data, the training data beside the checkout")
    from rag.embedders.training.scores import ranks, summary, task

    trial = task("cmrc_trial", data, ("cmrc2018_trial",))
    scores = summary(ranks(model.encode(trial.questions), model.encode(trial.passages), trial.gold))
    assert scores["R@1"] > 0.84
    assert scores["R@5"] > 0.94
