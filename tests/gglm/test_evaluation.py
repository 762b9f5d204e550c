"""`chatgglm eval refusal | summary | translation | chat`, their baselines, and evidence in `eval reading`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from gglm import cli, evaluation, evaluation_refusal, evaluation_writing
from gglm.engine import Engine
from gglm.errors import DataError
from gglm.evaluation_baselines import Glossary, first_gloss, lead, nearest_sentence, similarity
from tests.gglm.conftest import GREETING, PASSAGES, QUESTIONS, TITLES, UNANSWERABLE, Trained


@pytest.fixture
def call(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CHATGGLM_READER_WEIGHTS", str(trained.folder))
    monkeypatch.setenv("CHATGGLM_TRANSLATOR_WEIGHTS", str(trained.folder))
    app, group = typer.Typer(), typer.Typer()
    cli.register(app, {"eval": group, "train": typer.Typer()})
    app.add_typer(group, name="eval")

    def run(*args: object) -> Result:
        return CliRunner().invoke(app, ["eval", *map(str, args)])

    return run


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for i, (question, number, answer) in enumerate(QUESTIONS):
        context = PASSAGES[number]
        around = next(s + "。" for s in context.split("。") if answer in s)
        rows.append({
            "id": f"q{i}", "title": TITLES[number], "context": context, "question": question,
            "answers": [{"text": answer, "start": context.index(answer)}],
            "evidence": around if i % 2 else ["别的。", around],
        })  # fmt: skip
    for i, (question, number) in enumerate(UNANSWERABLE):
        rows.append({
            "id": f"u{i}", "title": TITLES[number], "context": PASSAGES[number], "question": question,
            "answers": [], "answerable": False,
        })  # fmt: skip
    return write(tmp_path / "dev.jsonl", rows)


def report(result: Result, file: Path) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["files"][str(file)]
    return found


def test_reading_scores_evidence_beside_the_nearest_sentence(call: Any, questions: Path) -> None:
    found = report(call("reading", questions, "--json"), questions)
    assert found["evidence"]["count"] == len(QUESTIONS)
    assert found["evidence"]["f1"] == found["evidence"]["joint"] == pytest.approx(100.0)
    assert found["evidence"]["nearest_sentence_f1"] > found["nearest_sentence"]["f1"] > 0
    assert found["nearest_sentence"]["em"] == 0.0
    assert found["f1_interval"] == [100.0, 100.0]
    assert "evidence F1 100.00" in call("reading", questions).stdout


def test_refusal_over_distractors(call: Any, questions: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    found = report(call("refusal", questions, "--json", "--distractors", 2, "--plot", picture), questions)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found["refusal"]["auroc"] == 1.0
    assert sum(b["count"] for b in found["reliability"]) == found["questions"] == 12
    assert [c for c, _ in found["risk_coverage"]["curve"]][-1] == 1.0
    # the unanswerable questions are in the curve: whoever answers everything errs at a third of them
    assert found["risk_coverage"]["risk_at"]["1"] == pytest.approx(4 / 12)
    beside = found["distractors"]["beside_own"]
    assert list(beside) == ["0", "1", "2"]
    assert beside["0"]["f1"] == 100.0
    assert beside["0"]["f1_loss"] == 0.0
    assert beside["2"]["f1"] == pytest.approx(100.0 - beside["2"]["f1_loss"])
    assert beside["2"]["own_paragraph"] > 0.5
    assert found["distractors"]["distractors_only"]["auroc"] > 0.7
    assert found["distractors"]["relevance"]["auroc"] > 0.7
    assert 0 < found["distractors"]["relevance"]["ece"] < 0.5
    plain = call("refusal", questions, "--distractors", 0)
    assert "AUROC 1.000" in plain.stdout
    assert "beside" not in plain.stdout


def test_distractors_are_near_and_never_hold_the_answer(questions: Path) -> None:
    items = evaluation.load_items(questions)
    extra = [
        evaluation.Item("x", "", "", "净水器保修多久？请看净水器手册。", (), "span"),
        evaluation.Item("y", "", "", "净水器保修多久？十八个月。", (), "span"),
    ]
    (found,) = evaluation_refusal.nearest_passages(items[:1], [*items, *extra], 2)
    assert found[0].text == extra[0].context
    assert all(p.text != items[0].context and "十八个月" not in p.text for p in found)


def test_summaries_beside_the_opening(call: Any, tmp_path: Path) -> None:
    rows = [{"text": p, "summary": p.split("。")[1] + "。"} for p in PASSAGES[:2]]
    file = write(tmp_path / "summary.jsonl", [*rows, {"text": "", "summary": "空"}, {"text": 3}])
    found = report(call("summary", file, "--json"), file)
    assert found["rows"] == 2
    assert found["method"] == "extracted"
    assert found["copied"] == 1.0
    assert set(found["baselines"]) == {"lead_sentence", "lead_same_length"}
    assert found["rougeL_interval"][0] <= found["rougeL"] <= found["rougeL_interval"][1]
    assert "ROUGE-1" in call("summary", file).stdout
    assert report(call("summary", file, "--json", "--undeclared", "--limit", 1), file)["method"] == "written"


def test_tasks_that_the_weights_cannot_do_say_so(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [{"zh": "你好。", "en": "Hello."}])
    result = call("translation", file, "--json")
    assert result.exit_code == 1
    assert "gglm-tiny-test have no trained decoder for 翻译" in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_translation_beside_a_gloss(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [{"zh": "北京仓库。", "en": "Beijing warehouse."}])
    words = write(tmp_path / "words.jsonl", [
        {"zh": "北", "en": "north"}, {"zh": "北京", "en": "(city) Beijing; Peking"}, {"zh": "仓库", "en": "warehouse"},
    ])  # fmt: skip
    found = report(call("translation", file, "--glossary", words, "--undeclared", "--json"), file)
    assert found["baselines"]["gloss"]["chrf"] == pytest.approx(100.0)
    assert 0 <= found["chrf"] <= 100
    assert found["bleu"] >= 0
    sure = found["sure"]
    assert (sure["share"], sure["chrf"] if sure["chrf_others"] is None else sure["chrf_others"]) in [
        (0.0, found["chrf"]), (1.0, found["chrf"]),
    ]  # fmt: skip
    back = report(call("translation", file, "--back", "--undeclared", "--json"), file)
    assert set(back["baselines"]) == {"copy"}
    assert "word by word: chrF" in call("translation", file, "--glossary", words, "--undeclared").stdout
    empty = write(tmp_path / "empty.jsonl", [{"zh": "", "en": ""}])
    refused = call("translation", file, "--glossary", empty, "--undeclared")
    assert refused.exit_code == 1
    assert "no glosses" in refused.stderr


def test_chat_loss_and_fit(call: Any, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": GREETING[0]}, {"role": "assistant", "content": GREETING[1]}]
    other = [{"role": "user", "content": "总部在哪里？"}, {"role": "assistant", "content": "请先安装。"}]
    known = write(tmp_path / "known.jsonl", [{"turns": turns}])
    both = write(tmp_path / "both.jsonl", [{"turns": turns}, {"turns": other}])
    learnt = report(call("chat", known, "--json"), known)
    assert learnt["rougeL"] == learnt["baselines"]["one_reply"]["rougeL"] == 100.0
    assert learnt["loss_per_character"] < 0.5 < learnt["unigram_loss"]
    assert learnt["ended"] == 1.0
    assert learnt["invented"] == 0.0
    mixed = report(call("chat", both, "--json"), both)
    assert mixed["loss_per_character"] > learnt["loss_per_character"]
    assert mixed["rows"] == 2
    assert "nats per character" in call("chat", both, "--limit", 1).stdout
    bad = write(tmp_path / "bad.jsonl", [{"turns": [{"role": "user"}]}])
    assert call("chat", bad).exit_code == 1


def test_with_all_tasks_leaves_the_engine_as_it_was(engine: Engine) -> None:
    assert evaluation_writing.with_all_tasks(engine).can("翻译")
    assert not engine.can("翻译")


def test_baselines() -> None:
    assert nearest_sentence("总部在哪里？", PASSAGES[1]) == "公司成立于1998年，总部设在北京。"
    assert nearest_sentence("谁？", " \n") == ""
    assert lead("  一句话。\n两句话。三句话。") == "一句话。"
    assert lead("一句话。两句话。三句话。", 8) == "一句话。两句话。"
    assert similarity(["甲"], ["", " "]).tolist() == [[0.0, 0.0]]
    assert first_gloss("(bird species) owl; fool/idiot") == "owl"
    assert first_gloss("(only a remark)") == ""


def test_glossary_takes_the_longest_word(tmp_path: Path) -> None:
    words = [("中", "middle"), ("中国", "China"), ("国人", "compatriots"), ("人", "person")]
    glossary = Glossary(write(tmp_path / "w.jsonl", [{"zh": z, "en": e} for z, e in words]))
    assert glossary.translate("中国人，A中。") == "China person, A middle."
    with pytest.raises(DataError, match="does not exist"):
        Glossary(tmp_path / "none.jsonl")
