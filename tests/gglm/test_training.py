"""Training: examples point where they say, runs resume exactly, vectors and Muon do their job."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gglm import weights
from gglm.config import PRESETS, GGLMConfig
from gglm.errors import DataError, RunPaused
from gglm.model import Batch, ChatGGLM
from gglm.tokenizer import MASK, QUERY, Tokenizer, train
from gglm.training import vectors
from gglm.training.batch import collate, losses
from gglm.training.claims import ClaimWords, claim_row
from gglm.training.cloze import PairIndex, QuestionWords, natural_question
from gglm.training.corpus import Shards, build_shards
from gglm.training.mixture import PretrainingSampler
from gglm.training.optim import make_optimizers, orthogonalize, trapezoid
from gglm.training.reading import (
    Passages,
    Question,
    QuestionSampler,
    crop,
    elsewhere,
    load_questions,
    micro_batches,
    sentences,
)
from gglm.training.spans import Lexicon, question_example, recurring, slots_example, window
from gglm.training.trainer import RunSettings, Trainer

PLACES = ["青石镇", "白云山庄", "望江码头", "长风书院", "落霞湖公园"]
THINGS = ["木版年画", "手工油纸伞", "桂花米酒", "竹编灯笼", "古法红糖"]


def _documents() -> list[str]:
    out = []
    for i, place in enumerate(PLACES):
        for j, thing in enumerate(THINGS):
            out.append(
                f"{place}位于第{i + 1}区。{place}的{thing}始于18{i}{j}年，远近闻名！\n"
                f"每到秋天，游客来到{place}购买{thing}，商铺从早上九点开到晚上八点。"
                f"制作{thing}需要{j + 3}道工序，师傅们说：“慢工出细活。”当地人把{thing}当作礼物，送给远方的亲友。"
            )
    return out


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    latin = "the quick brown fox jumps over the lazy dog while many other animals sleep and dream of food"
    return train([*_documents(), latin * 3], tmp_path_factory.mktemp("tok") / "tokenizer.model", latin=90)


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    build_shards(iter([d * 2 for d in _documents()]), tokenizer, folder)
    return Shards(folder)


@pytest.fixture(scope="module")
def lexicon(tokenizer: Tokenizer, shards: Shards) -> Lexicon:
    return Lexicon.build(tokenizer, shards, frequent=0.05)


@pytest.fixture(scope="module")
def pretraining(tokenizer: Tokenizer, shards: Shards) -> PretrainingSampler:
    return PretrainingSampler(shards, tokenizer)


def _tiny(tokenizer: Tokenizer) -> GGLMConfig:
    return GGLMConfig.from_dict({**PRESETS["tiny"].to_dict(), "vocab_size": tokenizer.padded_size})


def test_recurring_spans_really_recur(tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    x = tokenizer.encode(_documents()[0]).astype(np.int64)
    clusters = recurring(x, lexicon, np.random.default_rng(0))
    assert any(tokenizer.decode(x[s : s + n]) == "木版年画" for n, starts in clusters for s in starts)
    taken = np.zeros(len(x), int)
    for n, starts in clusters:
        assert len({tuple(x[s : s + n]) for s in starts}) == 1
        for s in starts:
            taken[s : s + n] += 1
    assert taken.max() == 1, "spans of different clusters overlap"


def test_slots_point_at_the_span_that_was_taken_out(tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    x = tokenizer.encode(_documents()[3]).astype(np.int64)
    example = slots_example(x, lexicon, np.random.default_rng(1))
    assert example is not None
    assert example.slots
    text = tokenizer.decode(x)
    for position, spans in example.slots:
        assert example.tokens[position] == QUERY
        for first, last in spans:
            assert example.allowed[first : last + 1].all()
            assert text.count(tokenizer.decode(example.tokens[first : last + 1])) >= 2


def test_questions_are_made_of_sentences_by_rule(tokenizer: Tokenizer, lexicon: Lexicon) -> None:
    words = QuestionWords.of(tokenizer)
    text = "落霞湖公园里有一座白云山庄。\n每到周末，城里人都喜欢去白云山庄散步，晚上八点才回家。"
    x = tokenizer.encode(text).astype(np.int64)
    asked = set()
    for seed in range(20):
        made = natural_question(x, lexicon, words, np.random.default_rng(seed))
        assert made is not None
        asked.add(tokenizer.decode(made.question))
        for first, last in made.answers:
            assert tokenizer.decode(made.passage[first : last + 1]) == "白云山庄"
        assert "白云山庄" not in tokenizer.decode(made.question)
    assert "落霞湖公园里有一座什么？" in asked
    assert any(q.startswith(("城里人都喜欢去", "每到周末")) for q in asked)


@pytest.mark.parametrize(
    ("span", "after", "words"),
    [
        ("1998", "年建成", {"哪"}), ("35", "道工序", {"多少", "几"}), ("2001年", "完工", {"哪年"}),
        ("木版年画", "的作坊", {"什么", "哪个", "哪种"}), ("青石镇", "的集市", {"哪里", "什么地方"}),
        ("李白", "说过", {"谁"}), ("李白", "的诗", {"什么", "哪个", "哪种"}),
    ],
)  # fmt: skip
def test_the_question_word_fits_what_it_asks_for(span: str, after: str, words: set[str]) -> None:
    pieces = Tokenizer(weights.default_folder() / weights.TOKENIZER)
    known = QuestionWords.of(pieces)
    ids, rest = (pieces.encode(t).astype(np.int64) for t in (span, after))
    assert {pieces.decode(known.fitting(ids, rest, np.random.default_rng(i))) for i in range(20)} == words


def test_other_passages_share_a_pair_and_come_from_another_document(
    pretraining: PretrainingSampler, shards: Shards
) -> None:
    rng = np.random.default_rng(4)
    assert pretraining.index is not None
    for _ in range(20):
        x, at = window(shards, rng, 80)
        question = x[10:30]
        other = pretraining.index.near(question, shards, rng, 60, at)
        assert other is not None
        pairs = {(int(a), int(b)) for a, b in itertools.pairwise(question)}
        assert pairs & {(int(a), int(b)) for a, b in itertools.pairwise(other)}
        document = int(np.searchsorted(shards.offsets, at, "right")) - 1
        first, last = shards.offsets[document], shards.offsets[document + 1]
        own = (pretraining.index.positions >= first) & (pretraining.index.positions < last)
        only = PairIndex(pretraining.index.keys[own], pretraining.index.positions[own])
        assert only.near(question, shards, rng, 60, at) is None


def test_passages_that_hold_the_answer_are_no_distractors(
    tokenizer: Tokenizer, pretraining: PretrainingSampler
) -> None:
    seen = 0
    for seed in range(150):
        rows = pretraining.rows(np.random.default_rng(seed), 128)
        right = [r for r in rows if r.relevant > 0]
        if len(rows) == 1 or not right:
            continue
        ((_, spans),) = right[0].slots
        answers = {tokenizer.decode(right[0].tokens[a : b + 1]) for a, b in spans}
        for row in rows:
            if row.relevant == 0:
                seen += 1
                passage = tokenizer.decode(np.where(np.isin(row.tokens, [MASK]), 0, row.tokens))
                assert not any(answer in passage for answer in answers)
    assert seen > 5


def test_pretraining_rows_have_every_form(tokenizer: Tokenizer, pretraining: PretrainingSampler) -> None:
    kinds = set()
    for seed in range(120):
        rows = pretraining.rows(np.random.default_rng(seed), 128)
        assert all(len(row.tokens) <= 128 for row in rows)
        assert sum(not row.same_question for row in rows) == 1
        kinds.add((len(rows) > 1, len(rows[0].slots) > 1, max(row.relevant for row in rows)))
        for row in rows:
            for _, spans in row.slots:
                assert all(row.allowed[first : last + 1].all() for first, last in spans)
    assert {k[2] for k in kinds} == {-1.0, 0.0, 1.0}
    assert {k[0] for k in kinds} == {True, False}


def test_claims_say_what_the_text_says_or_something_else(tmp_path: Path) -> None:
    tokenizer = Tokenizer(weights.default_folder() / weights.TOKENIZER)
    build_shards(iter(_documents()), tokenizer, tmp_path)
    lexicon, words = Lexicon.build(tokenizer, Shards(tmp_path)), ClaimWords.of(tokenizer)
    text = "落霞湖公园每年接待35万人，公园里的白云山庄不可以住人。\n白云山庄能停放20辆客车，落霞湖公园没有停车场。"
    x = tokenizer.encode(text).astype(np.int64)
    asked: dict[float, set[str]] = {0.0: set(), 1.0: set()}
    for seed in range(120):
        (row,) = claim_row(x, lexicon, words, np.random.default_rng(seed), 120) or []
        ((_, ((first, last),)),) = row.slots
        clause = tokenizer.decode(row.tokens[first : last + 1])
        assert clause in text
        question = tokenizer.decode(row.tokens[2 : np.flatnonzero(row.segments)[0] - 1])
        asked[row.verdict].add(question)
        if row.verdict and question.endswith("吗？") and "不能" not in question:
            assert question.removesuffix("吗？") in clause
    assert "公园里的白云山庄可以住人吗？" in asked[0]
    assert any("白云山庄能不能停放20辆客车" in q for q in asked[1])
    assert any("接待" in q and "35" not in q for q in asked[0])
    assert any("35万人吗" in q for q in asked[1])
    assert claim_row(x[:3], lexicon, words, np.random.default_rng(0), 120) is None


@pytest.mark.parametrize("clause", [False, True])
def test_question_forms_answer_from_the_passage_or_null(tokenizer: Tokenizer, lexicon: Lexicon, clause: bool) -> None:
    x = tokenizer.encode(_documents()[7] * 2).astype(np.int64)
    rng = np.random.default_rng(2)
    example = question_example(x, None, lexicon, rng, clause)
    assert example is not None
    assert example.relevant == 1.0
    base = int(np.flatnonzero(example.segments == 2)[0])
    assert all(first >= base and last >= first for _, spans in example.slots for first, last in spans)
    null = question_example(x, x[:40], lexicon, rng, clause)
    assert null is not None
    assert null.relevant == 0.0
    assert all(spans == [(0, 0)] for _, spans in null.slots)


def test_crop_keeps_the_answer(tokenizer: Tokenizer) -> None:
    passage = np.arange(100, 400)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        first = int(rng.integers(0, 280))
        cut, span = crop(passage, (first, first + 10), 64, rng)
        assert span is not None
        assert len(cut) == 64
        assert (cut[span[0] : span[1] + 1] == passage[first : first + 11]).all()


def test_questions_land_on_their_answer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    context = _documents()[2]
    file = tmp_path / "qa.jsonl"
    start = context.index("桂花米酒")
    answer = {"text": "桂花米酒", "start": start}
    row = {"question": "买什么？", "context": context, "answers": [answer], "answerable": True}
    file.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    questions, passages = load_questions([file], tokenizer)
    assert passages == [context]
    sampler = QuestionSampler(questions, None, [], tokenizer, seed=0)
    for number in range(5):
        (example,) = sampler.example(number, 60)
        ((_, [(first, last)]),) = example.slots
        assert tokenizer.decode(example.tokens[first : last + 1]) == "桂花米酒"
        assert len(example.tokens) <= 60


def test_brief_passages_are_whole_sentences_around_the_answer(tokenizer: Tokenizer) -> None:
    text = "不收现金。早上九点开门！下午有人吗？有。周一休息。"
    ids, starts, ends = (a.astype(np.int64) for a in tokenizer.encode_with_offsets(text))
    span = (int(np.searchsorted(starts, text.index("九点"))), int(np.searchsorted(ends, text.index("九点") + 2)))
    found = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cut, inside = sentences(ids, span, int(rng.integers(12, 30)), rng, ends=tokenizer.ends_sentence)
        assert inside is not None
        assert (cut[inside[0] : inside[1] + 1] == ids[span[0] : span[1] + 1]).all()
        found.add(tokenizer.decode(cut))
        other, nowhere = sentences(ids, None, 12, rng, ends=tokenizer.ends_sentence)
        assert nowhere is None
        assert 0 < len(other) <= 12
    for passage in found:
        before = ("。" + text)[text.index(passage)]
        assert before in "。！？"
        assert passage[-1] in "。！？"
    assert len(found) > 2
    tight, inside = sentences(ids, span, 3, np.random.default_rng(0), ends=tokenizer.ends_sentence)
    assert len(tight) == 3
    assert inside is not None


@pytest.fixture(scope="module")
def sampler(tokenizer: Tokenizer) -> QuestionSampler:
    """Three questions, each about a document of its own, read over two passages as often as over one."""
    texts = [_documents()[i] * 2 for i in (0, 7, 14)]
    passages = [tokenizer.encode(t).astype(np.int64) for t in texts]
    questions = []
    for number, text in enumerate(texts):
        ids, starts, _ = tokenizer.encode_with_offsets(text)
        first = int(np.searchsorted(starts, text.index("早上九点")))
        question, answer = (tokenizer.encode(t).astype(np.int64) for t in ("几点开门？", "早上九点"))
        questions.append(Question(question, question[:0], ids.astype(np.int64), (first, first + 3), number, answer))
    others = np.array([[1, 2], [0, 2], [0, 1]])
    mix = Passages(beside=0.5, instead=0.3, elsewhere=0.0)
    return QuestionSampler(questions, others, passages, tokenizer, 0, mix, write=1.0)


def test_a_question_is_read_over_several_passages(tokenizer: Tokenizer, sampler: QuestionSampler) -> None:
    counts = set()
    for number in range(40):
        rows = sampler.example(number, 120)
        counts.add((len(rows), sum(r.relevant > 0 for r in rows)))
        assert [r.same_question for r in rows] == [False] + [True] * (len(rows) - 1)
        for row in rows:
            ((_, [(first, last)]),) = row.slots
            assert (tokenizer.decode(row.tokens[first : last + 1]) == "早上九点") == (row.relevant > 0)
        written = [tokenizer.decode(r.target[:-1]) for r in rows if len(r.target)]
        assert written == (["早上九点"] if any(r.relevant > 0 for r in rows) else [])
    assert counts == {(1, 1), (1, 0), (2, 1), (3, 1)}


def test_a_part_without_the_answer_never_holds_it(tokenizer: Tokenizer, sampler: QuestionSampler) -> None:
    text = _documents()[3]  # once, so that there is text without the answer on both sides
    ids, starts, _ = tokenizer.encode_with_offsets(text)
    first = int(np.searchsorted(starts, text.index("早上九点")))
    question = Question(ids[:2].astype(np.int64), ids[:0], ids.astype(np.int64), (first, first + 3), 0, ids[:0])
    found = [elsewhere(question, 40, np.random.default_rng(i), least=20) for i in range(20)]
    assert any(f is not None for f in found)
    assert all("早上九点" not in tokenizer.decode(f) for f in found if f is not None)
    twice = replace(question, passage=np.concatenate([question.passage, question.passage]))
    for i in range(40):
        away = elsewhere(twice, 400, np.random.default_rng(i), least=20)
        assert away is None or "早上九点" not in tokenizer.decode(away)


def test_rows_of_a_question_stay_together(sampler: QuestionSampler) -> None:
    questions = [sampler.example(i, 120) for i in range(30)]
    batches = micro_batches(questions, 4)
    assert sum(map(len, batches)) == sum(map(len, questions))
    assert all(not batch[0].same_question and len(batch) <= 4 for batch in batches)


def test_shared_norm_is_one_softmax_over_all_passages(tokenizer: Tokenizer, sampler: QuestionSampler) -> None:
    torch.manual_seed(0)
    model = ChatGGLM(_tiny(tokenizer)).eval()
    with torch.no_grad():
        model.relevance_head.weight.normal_(std=0.1)
    rows = next(r for r in (sampler.example(i, 120) for i in range(40)) if len(r) == 3)
    batch = collate(rows)
    with torch.no_grad():
        loss = losses(model, batch)["span"]
        hidden = model.encode(batch.tokens, batch.segments, batch.matches)
        start, end = (x[:, 0] for x in model.span_head(hidden, batch.slots, batch.allowed))
        start = start - start[:, :1] + model.relevance_logits(hidden)[:, None]
        end = end - end[:, :1]
    expected = 0.0
    for score, right in ((start, batch.starts[:, 0]), (end, batch.ends[:, 0])):
        flat = torch.cat([score[:, 1:].flatten(), torch.zeros(1)])  # the one null stands at 0
        answered = right[:, 1:].flatten()
        expected -= float(flat.log_softmax(0)[:-1][answered].logsumexp(0)) / 2
    assert loss[1] == 1
    assert float(loss[0]) == pytest.approx(expected, abs=1e-4)


def test_the_decoder_reads_all_passages_of_a_question(tokenizer: Tokenizer, sampler: QuestionSampler) -> None:
    """Several questions padded in one batch are written as each would be alone."""
    torch.manual_seed(0)
    model = ChatGGLM(_tiny(tokenizer)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    questions = [sampler.example(i, 120) for i in range(12)]
    questions = [q for q in questions if any(len(e.target) for e in q)]
    assert {len(q) for q in questions} >= {1, 2}
    with torch.no_grad():
        together = losses(model, collate([e for q in questions for e in q]))["write"]
        alone = sum(losses(model, collate(q))["write"] for q in questions)
    assert torch.allclose(together, alone, rtol=1e-4)


def test_the_loss_is_that_of_the_whole_distribution(tokenizer: Tokenizer, sampler: QuestionSampler) -> None:
    torch.manual_seed(0)
    model = ChatGGLM(_tiny(tokenizer)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    rows = next(r for r in (sampler.example(i, 120) for i in range(40)) if len(r) == 1 and len(r[0].target))
    batch = collate(rows)
    memory = model.memory(Batch(batch.tokens, batch.segments, batch.matches, batch.segments.eq(2)))
    inputs, wanted = batch.targets[:, :-1], batch.targets[:, 1:]
    whole = model.decode(inputs, memory).log_probs.gather(-1, wanted[..., None]).squeeze(-1)
    assert torch.allclose(model.target_log_probs(inputs, wanted, memory), whole, atol=1e-5)
    assert float(losses(model, batch)["write"][0].detach()) == pytest.approx(-float(whole.detach().sum()), rel=1e-5)


def test_missing_shards_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="chatgglm train"):
        Shards(tmp_path)


def test_vectors_put_words_of_a_kind_together(tokenizer: Tokenizer, shards: Shards) -> None:
    size = tokenizer.padded_size
    got = vectors.train(shards, tokenizer, vocab=size, bigrams=128, dim=16)  # fewer tokens than contexts
    assert got["tokens"].shape == (size, 16)
    assert (np.diff(got["keys"][got["keys"] >= 0]) > 0).all()
    digits = [int(tokenizer.encode(c)[0]) for c in "345"]
    other = int(tokenizer.encode("湖")[0])
    v = got["tokens"] / (np.linalg.norm(got["tokens"], axis=1, keepdims=True) + 1e-9)
    assert v[digits[0]] @ v[digits[1]] > v[digits[0]] @ v[other]
    model = ChatGGLM(
        GGLMConfig.from_dict({**_tiny(tokenizer).to_dict(), "bigrams": 128, "d_model": 16, "num_heads": 1})
    )
    vectors.start_from(model, got)
    pair = tokenizer.encode("年画").astype(np.int64)
    row = model.encoder.embedding.bigram_rows(torch.from_numpy(pair)[None])[0, 1]
    assert int(got["keys"][row]) == int(pair[0]) * size + int(pair[1])


def test_orthogonalize_gives_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((2, 24, 64), (2, 64, 24)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)).float())
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.35


def test_rate_rises_stays_and_falls() -> None:
    rates = [trapezoid(p, step=1000, decay=0.5) for p in (0.1, 0.4, 0.75, 1.0)]
    assert rates == pytest.approx([1.0, 1.0, 0.5, 0.01])
    assert trapezoid(0.0, step=0, warmup=100) == pytest.approx(0.01)
    assert trapezoid(0.05, step=3, warmup=100) == pytest.approx(0.5)  # a short run warms up in a tenth of it
    assert trapezoid(0.2, step=12, warmup=100) == 1.0


def test_interrupted_and_resumed_equals_uninterrupted(
    tokenizer: Tokenizer, pretraining: PretrainingSampler, tmp_path: Path
) -> None:
    def make(out: str, steps: int, slice_minutes: float = 0.0) -> Trainer:
        torch.manual_seed(0)
        model = ChatGGLM(GGLMConfig.from_dict({**_tiny(tokenizer).to_dict(), "dropout": 0.1}))

        def stream(step: int, progress: float) -> list:
            rng = np.random.default_rng([3, step])
            return micro_batches([pretraining.rows(rng, 96) for _ in range(4)], 3)

        weights = {"span": 1.0, "masked": 0.5, "relevance": 0.2}
        settings = RunSettings(tmp_path / out, steps=steps, slice_minutes=slice_minutes)
        return Trainer(model, make_optimizers(model, 1e-3, 0.01), stream, weights, settings)

    whole = make("whole", 6)
    whole.run()
    first = make("parts", 6)
    for _ in range(3):
        first._step()
    first.save()
    first.lock.release()  # as the end of its process does
    second = make("parts", 6)
    assert second.step == 3
    second.run()
    for step in range(1, 7):  # slices so short that each holds one step
        third = make("slices", 6, slice_minutes=1e-9)
        if step < 6:
            with pytest.raises(RunPaused, match="same command"):
                third.run()
        else:
            third.run()
        assert third.step == step
    for resumed in (second, third):
        for (name, a), b in zip(whole.ema.items(), resumed.ema.values(), strict=True):
            assert torch.equal(a, b), name


def test_losses_fall_on_a_repeated_batch(tokenizer: Tokenizer, pretraining: PretrainingSampler) -> None:
    torch.manual_seed(0)
    model = ChatGGLM(_tiny(tokenizer))
    rng = np.random.default_rng(5)
    batch = collate([row for _ in range(5) for row in pretraining.rows(rng, 96)])
    optimizers = make_optimizers(model, 3e-3, 0.02)

    def total() -> torch.Tensor:
        parts = losses(model, batch)
        return parts["span"][0] / parts["span"][1] + 0.5 * parts["masked"][0] / parts["masked"][1]

    before = float(total().detach())
    for _ in range(40):
        total().backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    assert float(total().detach()) < 0.5 * before
