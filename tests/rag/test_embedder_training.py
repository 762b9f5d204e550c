"""Tokenizer, pairs and the static start of the embedder."""

from __future__ import annotations

import numpy as np
import pytest

from rag.embedders.training import encoder, static
from rag.embedders.training.packing import Packer, bm25_neighbours
from rag.embedders.training.pairs import Corpus, Labelled, Ragged, chunks
from rag.embedders.training.scores import ranks, summary


@pytest.fixture(scope="module")
def tokenizer():
    from rag.embedders.training.tokenizer import train_tokenizer

    rng = np.random.default_rng(0)
    words = ["数据库", "服务器", "管理员", "密码", "登录", "linux", "2024", "发布", "台湾", "的", "在", "重置"]
    texts = ["".join(rng.choice(words, 12)) + "。" for _ in range(400)]
    return train_tokenizer(texts, vocab_size=90, limit=10**6)


def test_tokenizer_cleans_and_cuts(tokenizer):
    same = ["在臺灣發佈數據庫，Linux 2024", "在台湾发布数据库ＬＩＮＵＸ２０２４", "在台湾发布 数据库：linux（2024）"]
    ids = [tokenizer(text)["input_ids"] for text in same]
    assert ids[0] == ids[1] == ids[2]
    assert ids[0][0] == tokenizer.cls_token_id == 2
    assert "数据库" in tokenizer.tokenize("数据库")
    assert tokenizer("，。！ \n")["input_ids"] == [2]


def test_punctuation_always_cuts_so_sentences_can_be_put_together(tokenizer):
    parts = ["数据库在服务器。", "密码重置，登录！", "linux2024"]
    whole = tokenizer("".join(parts), add_special_tokens=False)["input_ids"]
    assert whole == [i for part in parts for i in tokenizer(part, add_special_tokens=False)["input_ids"]]


def test_chunks_follow_headings_and_keep_all_text():
    sentence = "这一句话正好是二十个字上下的样子呀。"
    text = "# 甲\n" + sentence * 30 + "\n# 乙\n" + sentence * 5
    found = list(chunks("题", text))
    assert [head for head, _ in found] == ["题 甲", "题 甲", "题 乙"]
    assert sum(len(part) for _, part in found) == 35
    assert all(sum(map(len, part)) <= 340 for _, part in found)


def ragged(*rows: list[int]) -> Ragged:
    return Ragged.of(rows)


def test_pairs_are_made_of_the_chunk_and_nothing_else():
    corpus = Corpus(
        ragged(*[[10 * s + i for i in range(8)] for s in range(1, 7)]),
        ragged([1, 2, 3]),
        np.array([0, 3, 6]),
        np.array([0, 0]),
        np.array([0, 0]),
    )
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(300):
        query, passage = corpus.pair(0, rng)
        chunk, neighbour = corpus.chunk(0).tolist(), corpus.chunk(1).tolist()
        if query.tolist() == [1, 2, 3]:
            kinds.add("heading")
            assert passage.tolist() == chunk
        elif query.tolist() == chunk:
            kinds.add("neighbour")
            assert passage.tolist() == neighbour
        else:
            removed = not set(query.tolist()) & set(passage.tolist())
            kinds.add("removed" if removed else "kept")
            assert set(query.tolist()) <= set(chunk)
            assert len(passage) == (16 if removed else 24)
    assert kinds == {"heading", "neighbour", "removed", "kept"}


def test_crops_keep_the_evidence():
    rng = np.random.default_rng(0)
    for centre in (0, 5, 120, 250, 299):
        rows = Labelled(ragged([1]), ragged(list(range(300))), np.array([0]), np.array([centre]))
        for _ in range(50):
            crop = rows.crop(0, 64, rng)
            assert len(crop) == 64
            assert centre in crop.tolist()


def test_encoder_starts_as_the_static_model_exactly():
    import torch

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, encoder.static_dim(64))).astype(np.float32) * rng.uniform(0.1, 2, (50, 1))
    vectors[:3] = 0
    vectors *= np.minimum(
        1,
        0.99
        * np.quantile(np.linalg.norm(vectors, axis=1), 0.995)
        / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9),
    )
    bert = encoder.build(vectors, width=64, layers=2, inner=32).eval()
    texts = [rng.integers(3, 50, n).astype(np.uint16) for n in (4, 9, 17)]
    batch = encoder.features(texts, 511)
    with torch.inference_mode():
        hidden = bert(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1)).numpy()
    expected = static.average(vectors, texts)
    np.testing.assert_allclose(pooled @ pooled.T, expected @ expected.T, atol=2e-3)


def test_bm25_neighbours_and_packing():
    passages = ragged(*[[i, i, 20, 21] for i in range(10)])
    queries = ragged(*[[i, 21] for i in range(10)], [3, 3])
    near = bm25_neighbours(queries, passages, 30, top=4)
    assert near[:, 0].tolist() == [*range(10), 3]
    rows = Labelled(queries, passages, np.array([*range(10), 3]), np.full(11, -1))
    packer = Packer(rows, near, np.random.default_rng(0))
    for _ in range(20):
        batch = packer.batch(8)
        assert len({int(rows.passage[q]) for q in batch}) == len(batch) == 8


def test_ranks_and_summary():
    passages = np.eye(12, dtype=np.float32)
    queries = passages[[0, 1, 2]].copy()
    queries[1, 5] = 2  # one passage is ahead
    queries[2] = 1  # ties with all count against
    rank = ranks(queries, passages, np.array([0, 1, 2]))
    assert rank.tolist() == [1, 2, 12]
    scores = summary(rank)
    assert scores["R@1"] == pytest.approx(1 / 3)
    assert scores["MRR@10"] == pytest.approx(0.5)
    assert scores["nDCG@10"] == pytest.approx((1 + 1 / np.log2(3)) / 3)
