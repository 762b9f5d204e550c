"""Tokenizer, pairs and the static start of the embedder."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import zstandard

from rag.embedders.bert import BertEmbedder
from rag.embedders.training import contrast, distil, encoder, loss, pairs, static, train
from rag.embedders.training.packing import Packer, bm25_neighbours
from rag.embedders.training.pairs import Corpus, Labelled, Ragged, Similar, Texts, chunks, labelled_texts
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


def test_a_recurring_span_leads_to_the_other_chunk_of_its_document():
    rng = np.random.default_rng(0)
    rare = [901, 902]
    rows = [rng.integers(10, 800, 5000).tolist() for _ in range(4)]
    rows[0][60:62] = rows[1][3:5] = rows[3][8:10] = rare  # chunk 3 is of another document
    corpus = Corpus(ragged(*rows), ragged([1]), np.arange(5), np.zeros(4, int), np.array([0, 0, 0, 1]))
    pairs = [pair for _ in range(60) if (pair := corpus.recurring(0, rng, reach=1)) is not None]
    assert pairs
    for query, passage in pairs:
        assert str(rare)[1:-1] in str(query.tolist())
        assert passage.tolist() == rows[1]


def test_crops_keep_the_evidence():
    rng = np.random.default_rng(0)
    for centre in (0, 5, 120, 250, 299):
        rows = Labelled(ragged([1]), ragged(list(range(300))), np.array([0]), np.array([centre]))
        for _ in range(50):
            crop = rows.crop(0, 64, rng)
            assert len(crop) == 64
            assert centre in crop.tolist()


def test_questions_of_much_asked_passages_can_be_drawn_less():
    rows = Labelled(ragged(*[[1]] * 5), ragged([1], [2]), np.array([0, 0, 0, 0, 1]), np.full(5, -1))
    assert rows.chances(0).tolist() == [0.2] * 5
    assert rows.chances(1).tolist() == [0.125] * 4 + [0.5]


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


def small_encoder(tmp_path, tokenizer):
    vectors = np.random.default_rng(0).normal(size=(len(tokenizer), encoder.static_dim(64))).astype(np.float32)
    return encoder.assemble(encoder.build(vectors, width=64, layers=1, inner=32), tokenizer, tmp_path)


def test_embedding_in_parts_keeps_the_order(tmp_path, tokenizer):
    model = small_encoder(tmp_path, tokenizer)
    rng = np.random.default_rng(1)
    texts = [rng.integers(3, len(tokenizer), n).astype(np.uint16) for n in (3, 40, 7, 25, 1)]
    parts = contrast.embed(model, texts, 30, tokens=64).detach().numpy()
    np.testing.assert_allclose(parts, encoder.encode(model, texts, 30), atol=1e-5)


def test_equal_passages_are_no_negatives_and_memory_holds_some():
    import torch

    vectors = torch.eye(8)
    memory = loss.Memory(3, 8)

    def loss_of(keys: list[int]) -> float:
        queries, passages = vectors[[0, 1]], vectors[[0, 0]]
        return float(loss.contrast(queries, passages, torch.tensor(keys), memory, 0.1, dims=(8, 8, 8)))

    assert loss_of([5, 5]) < loss_of([5, 6])  # query 0 likes passage 1 as well as its own
    easy = loss_of([5, 5])
    memory.push(vectors[[0]], torch.tensor([5]))
    assert loss_of([5, 5]) == pytest.approx(easy, abs=1e-6)  # remembered, but the same passage
    memory.push(vectors[[0]], torch.tensor([7]))
    assert loss_of([5, 5]) > easy
    memory.push(vectors[:8], torch.arange(8))
    assert len(memory.vectors) == len(memory.keys) == 3


def test_averaged_weights_come_and_go():
    import torch

    model = torch.nn.Linear(1, 1, bias=False)
    average = contrast.Average(model, decay=0.5)
    before = model.weight.item()
    model.weight.data.add_(1)
    average.update()
    with average.applied():
        assert before < model.weight.item() < before + 1
    assert model.weight.item() == pytest.approx(before + 1)


def test_training_learns_the_pairs_it_is_fed(tmp_path, tokenizer):
    rng = np.random.default_rng(0)
    passages = [rng.integers(3, len(tokenizer), 30).tolist() for _ in range(40)]
    rows = Labelled(ragged(*[p[5:8] for p in passages]), ragged(*passages), np.arange(40), np.full(40, -1))
    corpus = Corpus(ragged(*passages), ragged([4, 5]), np.arange(41), np.zeros(40, int), np.zeros(40, int))
    similar = Similar(rows.questions, rows.passages, rows.passages, [np.array([(i + 1) % 40]) for i in range(40)])
    model = small_encoder(tmp_path / "model", tokenizer)

    def exam() -> dict[str, dict[str, float]]:
        both = [encoder.encode(model, [side[i] for i in range(40)], 30) for side in (rows.questions, rows.passages)]
        return {"own": summary(ranks(*both, rows.passage))}

    args = argparse.Namespace(
        seed=0, lr=1e-2, muon_lr=0.003, ema=0.8, thin=0.1, memory=64, work=tmp_path, run="run",
        steps=30, minutes=0, batch=24, crop=30, temperature=0.05, every=9,
    )  # fmt: skip
    contrast.train_encoder(model, corpus, rows, rows, similar, args, exam)
    first, *_, last = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert last["scores"]["own"]["MRR@10"] > first["scores"]["own"]["MRR@10"] + 0.1
    assert (tmp_path / "run/best/model.safetensors").is_file()


def test_piece_vectors_are_lifted_and_taken_back(tmp_path, tokenizer):
    model = small_encoder(tmp_path, tokenizer)
    bert = train.bert_of(model)
    texts = [np.random.default_rng(2).integers(3, len(tokenizer), n).astype(np.uint16) for n in (3, 40, 7)]
    own = encoder.encode(model, texts)
    layer = bert.encoder.layer[0].output.dense
    layer.weight.data.fill_(0.5)
    encoder.graft(bert, encoder.piece_vectors(bert), share=0.5)
    assert layer.weight.unique().tolist() == [0.25]
    layer.weight.data.zero_()
    np.testing.assert_allclose(encoder.encode(model, texts), own, atol=1e-4)


@pytest.mark.parametrize("layers", [0, 1])
def test_a_model_cut_to_fewer_layers_is_still_one(tmp_path, tokenizer, layers):
    vectors = np.random.default_rng(0).normal(size=(len(tokenizer), encoder.static_dim(64))).astype(np.float32)
    model = encoder.assemble(encoder.build(vectors, 64, 2, 32), tokenizer, tmp_path / "two")
    texts = [np.random.default_rng(2).integers(3, len(tokenizer), n).astype(np.uint16) for n in (3, 40, 7)]
    whole = encoder.encode(model, texts)
    encoder.cut(train.bert_of(model), layers)
    np.testing.assert_allclose(encoder.encode(model, texts), whole, atol=1e-4)  # what was cut added nothing
    encoder.export(model, tmp_path / "cut")
    assert BertEmbedder.fits(tmp_path / "cut")
    plain = BertEmbedder(tmp_path / "cut", "cut").encode_passages(["数据库在服务器", "密码"])
    theirs = train.load(tmp_path / "cut").encode(["数据库在服务器", "密码"])
    np.testing.assert_allclose(plain, theirs, atol=1e-5)
    built = encoder.assemble(encoder.build(vectors, 64, layers, 32), tokenizer, tmp_path / "built")
    np.testing.assert_allclose(encoder.encode(built, texts), whole, atol=1e-4)


def lists_of(rows: Labelled, rng: np.random.Generator) -> distil.Lists:
    """Every question with its passage and three others; the teacher prefers the one with the next number."""
    count = len(rows.questions)
    passages = np.array(
        [[i, (i + 1) % count, *((i + rng.choice(np.arange(2, count), 2)) % count)] for i in range(count)]
    )
    texts = Texts([f"问{i}" for i in range(count)], [f"文{i}" for i in range(count)], list(range(count)), [-1] * count)

    def teacher(questions, found):
        assert all(len(row) == 4 for row in found)
        return np.array(
            [
                [3.0 * (int(t[1:]) == (int(q[1:]) + 1) % count) for t in row]
                for q, row in zip(questions, found, strict=True)
            ]
        )

    return distil.teach(teacher, texts, np.arange(count), passages, part=7)


def test_the_student_learns_the_order_of_its_teacher(tmp_path, tokenizer):
    rng = np.random.default_rng(0)
    passages = [rng.integers(3, len(tokenizer), 30).tolist() for _ in range(30)]
    questions = [rng.integers(3, len(tokenizer), 8).tolist() for _ in range(30)]
    rows = Labelled(ragged(*questions), ragged(*passages), np.arange(30), np.full(30, -1))
    lists = lists_of(rows, rng)
    lists.save(tmp_path / "lists.npz")
    lists = distil.Lists.load(tmp_path / "lists.npz")
    assert (lists.scores.argmax(1) == 1).all()
    corpus = Corpus(ragged(*passages), ragged([4, 5]), np.arange(31), *np.zeros((2, 30), int))
    similar = Similar(rows.questions, rows.passages, rows.passages, [np.array([(i + 1) % 30]) for i in range(30)])
    start = rng.normal(size=(len(tokenizer), encoder.static_dim(64))).astype(np.float32)

    def agreement(encode) -> float:
        q, p = encode([rows.questions[i] for i in range(30)]), encode([rows.passages[i] for i in range(30)])
        return float(((q[:, None] * p[lists.passages]).sum(2).argmax(1) == 1).mean())

    def feed(thinned: float = 0.0):
        return distil.feed(lists, rows, 10, 30, 1.0, thinned, np.random.default_rng(3))

    batches = static.batches(corpus, rows, rows, similar, 24, rng)
    trained = static.train_static(start, batches, steps=60, lists=feed(0.1), weight=3)
    assert agreement(lambda t: static.average(trained, t)) > agreement(lambda t: static.average(start, t)) + 0.2

    model = encoder.assemble(encoder.build(start, 64, 1, 32), tokenizer, tmp_path / "model")
    table = train.bert_of(model).embeddings.word_embeddings.weight
    before, kept = agreement(lambda t: encoder.encode(model, t, 30)), table.detach().clone()
    distil.train_layers(model, feed(), 0, 1e-2, 3, 0.05, 30, str, steps=40)
    assert agreement(lambda t: encoder.encode(model, t, 30)) > before + 0.2
    assert (table == kept).all()


def test_lists_hold_the_own_passage_first_and_stay_in_their_pool():
    passages = ragged(*[[i, i, i + 1, 50, 51] for i in range(40)])
    rows = Labelled(ragged(*[[i, 51] for i in range(40)]), passages, np.arange(40), np.full(40, -1))
    near = bm25_neighbours(rows.questions, passages, 60, top=20)
    for pool in (0, 12):
        questions, chosen = distil.choose(rows, near, 30, 5, pool, np.random.default_rng(0))
        assert len(questions) == len(chosen)
        assert len(questions) == 30 or pool
        assert (chosen[:, 0] == rows.passage[questions]).all()
        assert all(len({*row}) == 5 for row in chosen.tolist())
        assert not pool or len(np.unique(chosen)) <= 12 + 5


def test_further_questions_are_read_but_not_the_unanswerable(tmp_path):
    rows = [
        {
            "question": "几点开门？",
            "context": "图书馆八点开门。",
            "answerable": True,
            "answers": [{"text": "八点", "start": 3}],
        },
        {"question": "几点关门？", "context": "图书馆八点开门。", "answerable": False, "answers": []},
    ]
    for name in [f"qa/{n}" for n in pairs.QA] + ["chat/authored_conversations"] + [name for name, *_ in pairs.PAIRS]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl.zst").write_bytes(zstandard.compress(b""))
    more = tmp_path / "more.jsonl"
    more.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    found = labelled_texts(tmp_path, [more], real=True)
    assert found == Texts(["几点开门？"], ["图书馆八点开门。"], [0], [3])
    assert not labelled_texts(tmp_path, [], real=True).questions


def test_static_training_pulls_pairs_together():
    rng = np.random.default_rng(0)
    rows = Labelled(
        ragged(*[[i, i + 40] for i in range(40)]),
        ragged(*[[i + 80] for i in range(40)]),
        np.arange(40),
        np.full(40, -1),
    )
    corpus = Corpus(
        ragged(*[[i, 1, 2, 3, i + 40] for i in range(40)]), ragged([4, 5]), np.arange(41), *np.zeros((2, 40), int)
    )
    similar = Similar(rows.questions, rows.passages, rows.passages, [np.array([(i + 1) % 40]) for i in range(40)])
    start = rng.normal(size=(120, 130)).astype(np.float32)
    feed = static.batches(corpus, rows, rows, similar, 36, rng)
    trained = static.train_static(start, feed, steps=40)

    def reciprocal(vectors: np.ndarray) -> float:
        both = [static.average(vectors, [side[i] for i in range(40)]) for side in (rows.questions, rows.passages)]
        return summary(ranks(*both, rows.passage))["MRR@10"]

    assert reciprocal(trained) > reciprocal(start) + 0.3


def test_thinned_texts_keep_order_and_short_ones_stay_whole():
    rng = np.random.default_rng(0)
    ids = np.arange(100, dtype=np.uint16)
    lengths = []
    for _ in range(200):
        kept = static.thin(ids, 0.25, rng)
        assert (np.diff(kept.astype(int)) > 0).all()
        lengths.append(len(kept))
    assert 70 < np.mean(lengths) < 80
    assert len(static.thin(ids[:5], 0.5, rng)) == 5


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
