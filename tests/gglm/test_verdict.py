"""Yes or no: what answers begin with, what the head learns of it, when it is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gglm import calibration, weights
from gglm.calibration import calibrate
from gglm.config import PRESETS, GGLMConfig
from gglm.engine import Engine
from gglm.evaluation import Item, evaluate
from gglm.model import ChatGGLM
from gglm.tokenizer import Tokenizer
from gglm.training.batch import collate, losses
from gglm.training.optim import make_optimizers, set_rate
from gglm.training.reading import Passages, QuestionSampler, load_questions
from gglm.types import Source
from gglm.verdict import said
from gglm.weights import CONFIG, MODEL
from tests.gglm.conftest import PASSAGES, Trained

ASKED = [
    ("滤芯在保修之列吗？", 0, "不在，保修不含滤芯。", "滤芯不在保修之列"),
    ("保修期从购买那天算起吗？", 0, "是，自购买之日起。", "自购买之日起计算"),
    ("李四负责销售吗？", 1, "是，他管销售。", "李四负责销售"),
    ("总部设在上海吗？", 1, "不是，在北京。", "总部设在北京"),
    ("启动服务之前需要安装驱动程序吗？", 2, "需要，先装驱动程序。", "请先安装驱动程序"),
    ("不装驱动能先启动服务吗？", 2, "不能，要先装驱动程序。", "请先安装驱动程序，再启动服务"),
]


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("可以，凭票入场。", True), ("不可以", False), ("没有，还在考虑。", False), (" 是的", True), ("", None)],
)
def test_what_an_answer_begins_with(answer: str, yes: bool | None) -> None:
    assert said(answer) is yes


def _file(folder: Path) -> Path:
    rows = [
        {"question": q, "context": PASSAGES[p], "type": "yesno", "answers": [{"text": a, "start": -1}], "evidence": e}
        for q, p, a, e in ASKED
    ]
    rows.append({"question": "公司哪一年成立？", "context": PASSAGES[1], "answers": [{"text": "1998年"}]})
    path = folder / "asked.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def test_rows_carry_the_verdict_only_where_the_passage_answers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    questions, passages = load_questions([_file(tmp_path)], tokenizer)
    assert [q.verdict for q in questions] == [0, 1, 1, 0, 1, 0, -1]
    encoded = [tokenizer.encode(p) for p in passages]
    sampler = QuestionSampler(
        questions, None, encoded, tokenizer, seed=3, mix=Passages(beside=0.5, instead=0.3, elsewhere=1.0)
    )
    rows = [row for n in range(200) for row in sampler.example(n, 120)]
    assert {row.verdict for row in rows} == {-1.0, 0.0, 1.0}
    assert all(row.relevant > 0 for row in rows if row.verdict >= 0)
    assert collate(rows[:9]).verdict.tolist() == [row.verdict for row in rows[:9]]


def test_the_head_learns_yes_and_no(tokenizer: Tokenizer, tmp_path: Path) -> None:
    questions, passages = load_questions([_file(tmp_path)], tokenizer)
    encoded = [tokenizer.encode(p) for p in passages]
    sampler = QuestionSampler(questions, None, encoded, tokenizer, 0, Passages(0, 0, 0), no_title=1.0)
    batch = collate([row for n in range(len(questions)) for row in sampler.example(n, 120)])
    torch.manual_seed(0)
    config = {**PRESETS["tiny"].to_dict(), "vocab_size": tokenizer.padded_size}
    model = ChatGGLM(GGLMConfig.from_dict(config))
    optimizers = make_optimizers(model, 3e-3, 0.02)
    set_rate(optimizers, 1.0)
    before = losses(model, batch)["verdict"]
    assert before[1] == len(ASKED)
    for _ in range(40):
        parts = losses(model, batch)
        sum(p[0] / p[1] for p in parts.values()).backward()  # type: ignore[union-attr]
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    hidden = model.encode(batch.tokens, batch.segments, batch.matches)
    asked = batch.verdict >= 0
    assert ((model.verdict_logits(hidden)[asked] > 0) == batch.verdict[asked].bool()).all()


def test_weights_from_before_the_head_say_neither(trained: Trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.folder, tmp_path / "old"))
    state = {k: v for k, v in load_file(folder / MODEL).items() if not k.startswith("verdict_head")}
    assert len(state) < len(load_file(folder / MODEL))
    save_file(state, folder / MODEL)
    config = weights.read_config(folder)
    config["sha256"][MODEL] = weights._sha256((folder / MODEL).read_bytes())
    del config["reader"]["verdict"]
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    reading = Engine.load(folder).read("滤芯在保修之列吗？", [Source(PASSAGES[0])])
    assert (reading.p_yes, reading.verdict) == (0.5, None)
    assert reading.answer


def test_it_is_told_where_it_is_sure_enough(trained: Trained) -> None:
    engine = trained.engine()
    with torch.no_grad():
        engine.model.verdict_head.bias.fill_(-2.0)  # no, with 0.88
    question = "总部设在上海吗？", [Source(PASSAGES[1])]
    told = {}
    for sure in (0.8, 0.9, 1.0):
        engine.settings = replace(engine.settings, verdict=sure)
        told[sure] = engine.read(*question).verdict
    assert told == {0.8: False, 0.9: None, 1.0: None}
    items = [Item(str(n), q, "", PASSAGES[p], (a,), "yesno") for n, (q, p, a, _) in enumerate(ASKED)]
    scores = evaluate(engine, items)["verdict"]
    assert (scores["count"], scores["accuracy"], scores["told"]) == (6, 0.5, 0.0)


def test_how_sure_is_fitted_to_what_is_right(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = trained.engine()
    items = [Item(str(n), q, "", PASSAGES[p], (a,), "yesno") for n, (q, p, a, _) in enumerate(ASKED)]
    items.append(Item("x", "明天下雨吗？", "", PASSAGES[0], (), "unanswerable"))
    with torch.no_grad():
        engine.model.verdict_head.bias.fill_(-2.0)  # right for half of them
    monkeypatch.setattr(calibration, "FEWEST", 2)
    assert calibrate(engine, [items], others=0).verdict == 1.0
    said_no = [i for i in items if not i.golds or said(i.golds[0]) is False]
    fitted = calibrate(engine, [said_no], others=0).verdict
    assert fitted == pytest.approx(1 / (1 + 2.718281828**-2.0), abs=1e-4)
