from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from gglm import calibration, cli, evaluation, evaluation_refusal, weights
from gglm.console import fail, friendly_errors
from gglm.engine import Engine
from gglm.errors import DataError
from gglm.types import Source
from tests.gglm.conftest import PASSAGES, QUESTIONS, TITLES, UNANSWERABLE, Trained


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    made = typer.Typer()
    groups = {"eval": typer.Typer(), "train": typer.Typer()}
    cli.register(made, groups)
    for name, group in groups.items():
        made.add_typer(group, name=name)

    @made.command()
    @friendly_errors
    def broken() -> None:
        raise RuntimeError("no such luck")

    @made.command()
    @friendly_errors
    def failing() -> None:
        fail("that did not work", 2)

    return made


@pytest.fixture
def call(app: typer.Typer, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CHATGGLM_READER_WEIGHTS", str(trained.folder))

    def run(*args: object, text: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args], input=text)

    return run


def row(id: object, question: str, *passages: int, **more: object) -> str:
    sources = [{"title": TITLES[i], "text": PASSAGES[i]} for i in passages]
    return json.dumps({"id": id, "question": question, "passages": sources, **more}, ensure_ascii=False)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_read_gives_a_line_for_each_line(call: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    ids = [1, "two", None, 4.5, {"a": [1]}, "六", 7, 8]
    text = [row(i, q, 2, n) for i, (q, n, _) in zip(ids, QUESTIONS, strict=True)]
    source.write_text("\n".join(text) + "\n\n", encoding="utf-8")
    result = call("read", source, "-o", out, "--batch", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    answers = lines(out)
    assert [a["id"] for a in answers] == ids
    for answer, (_, number, wanted) in zip(answers, QUESTIONS, strict=True):
        assert set(answer) == {
            "id", "answer", "answerable", "p_answerable", "confidence", "citations", "latency_ms",
        }  # fmt: skip
        assert answer["answer"] == wanted
        assert answer["answerable"] is True
        assert 0 <= answer["confidence"] <= answer["p_answerable"] <= 1
        (citation,) = answer["citations"]
        passages = [PASSAGES[2], PASSAGES[number]]
        assert passages[citation["passage"]][citation["start"] : citation["end"]] == citation["quote"] == wanted
        assert answer["latency_ms"] > 0


def test_read_keeps_the_rest_of_a_batch_with_bad_lines(call: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good = row("good", QUESTIONS[0][0], 0)
    bad = [
        "{not json",
        "[1, 2]",
        '{"id": "a", "passages": []}',
        '{"id": "b", "question": "  ", "passages": []}',
        '{"id": "c", "question": "谁？", "passages": "text"}',
        '{"id": "d", "question": "谁？", "passages": [{"title": "x"}]}',
        '{"id": "e", "question": "谁？", "passages": [{"text": 3}]}',
        '{"id": "f", "question": "谁？", "passages": [], "history": [{"role": "system", "content": ""}]}',
        '{"id": "g", "question": "谁？", "passages": ' + "[" * 100_000 + "}",
    ]
    source.write_text("\n".join([good, *bad, good]), encoding="utf-8")
    result = call("read", source, "-o", out)
    assert result.exit_code == 1
    answers = lines(out)
    assert len(answers) == len(bad) + 2
    assert answers[0]["answer"] == answers[-1]["answer"] == QUESTIONS[0][2]
    assert [a["id"] for a in answers[3:-2]] == list("abcdef")
    for number, answer in enumerate(answers[1:-1], 2):
        assert answer["error"].startswith(f"line {number}: ")
        assert f"line {number}: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "9 of 11 lines" in result.stderr


def test_read_takes_empty_and_endless_lines(call: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"id": 0, "question": "净水器保修多久？", "passages": []},
        {"id": 1, "question": "净水器保修多久？", "passages": [{"text": ""}]},
        {"id": 2, "question": "净水器保修多久？" * 2000, "passages": [{"text": PASSAGES[0], "title": None}]},
        {"id": 3, "question": "净水器保修多久？", "passages": [{"text": PASSAGES[1] * 3000}]},
    ]
    source.write_text("\ufeff" + "\n".join(json.dumps(r) for r in rows), encoding="utf-8")
    assert call("read", source, "-o", out).exit_code == 0
    answers = lines(out)
    assert [a["id"] for a in answers] == [0, 1, 2, 3]
    assert answers[0]["answer"] == answers[1]["answer"] == ""
    assert answers[0]["citations"] == []
    assert not answers[0]["answerable"]


def test_read_by_pipe(call: Any) -> None:
    result = call("read", "-", "-o", "-", text=row(1, QUESTIONS[0][0], 0) + "\n")
    assert json.loads(result.stdout)["answer"] == QUESTIONS[0][2]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "does not exist"), (b"", "holds no questions"), (b"\xff\xfe\x00", "not UTF-8"), (b"\n \n", "no questions")],
)
def test_read_says_what_is_wrong_with_a_file(call: Any, tmp_path: Path, content: bytes | None, said: str) -> None:
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_bytes(content)
    result = call("read", source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.jsonl").exists()
    assert call("read", tmp_path, "-o", tmp_path / "out.jsonl").exit_code == 1


def test_read_never_leaves_half_a_file(call: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(row(1, "谁？", 1), encoding="utf-8")
    result = call("read", source, "-o", tmp_path / "missing" / "out.jsonl")
    assert result.exit_code == 1
    assert "create it first" in result.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_wrong_weights_say_so(call: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(row(1, "谁？", 1), encoding="utf-8")
    result = call("read", source, "-o", "-", "--weights", tmp_path)
    assert result.exit_code == 1
    assert "not a weights folder" in result.stderr


def question_file(path: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for i, (question, number, answer) in enumerate(QUESTIONS):
        answers = [{"text": answer, "start": PASSAGES[number].index(answer)}]
        rows.append({
            "id": f"q{i}", "title": TITLES[number], "context": PASSAGES[number], "question": question,
            "answers": answers, "answerable": True, "type": "span" if i % 2 else "long",
        })  # fmt: skip
    for i, (question, number) in enumerate(UNANSWERABLE):
        rows.append({
            "id": f"u{i}", "title": TITLES[number], "context": PASSAGES[number], "question": question,
            "answers": [], "answerable": False, "type": "unanswerable",
        })  # fmt: skip
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def test_eval_reading(call: Any, tmp_path: Path) -> None:
    file = question_file(tmp_path / "dev.jsonl")
    result = call("eval", "reading", file, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["files"][str(file)]
    assert report["em"] == report["f1"] == 100.0
    assert report["count"] == 8
    assert report["questions"] == 12
    assert report["by_type"]["span"]["count"] == report["by_type"]["long"]["count"] == 4
    assert report["refusal"]["auroc"] == 1.0
    assert report["risk_coverage"]["aurc"] == 0.0
    plain = call("eval", "reading", file, "--limit", 3)
    assert "EM 100.00" in plain.stdout
    assert "3 questions" in plain.stdout


def test_eval_reading_reads_official_and_compressed_files(tmp_path: Path) -> None:
    import zstandard

    file = question_file(tmp_path / "dev.jsonl")
    items = evaluation.load_items(file)
    packed = tmp_path / "dev.jsonl.zst"
    half = file.read_bytes().split(b"\n")
    frames = [zstandard.compress(b"\n".join(part) + b"\n") for part in (half[:5], half[5:])]
    packed.write_bytes(b"".join(frames))
    assert evaluation.load_items(packed) == items
    squad = tmp_path / "squad.json"
    qa = [{"id": i.id, "question": i.question, "answers": [{"text": g} for g in i.golds]} for i in items[:1]]
    data = {"data": [{"title": TITLES[0], "paragraphs": [{"context": PASSAGES[0], "qas": qa}]}]}
    squad.write_text(json.dumps(data), encoding="utf-8")
    (one,) = evaluation.load_items(squad)
    assert (one.question, one.golds, one.context, one.title) == (
        items[0].question, items[0].golds, PASSAGES[0], TITLES[0],
    )  # fmt: skip
    earlier = tmp_path / "earlier.json"
    qas = [{"query_id": "A", "query_text": "谁？", "answers": ["张三", "张三"]}]
    earlier.write_text(json.dumps([{"context_text": PASSAGES[1], "title": "x", "qas": qas}]), encoding="utf-8")
    assert evaluation.load_items(earlier)[0].golds == ("张三", "张三")


@pytest.mark.parametrize("text", ["{", '{"question": "谁？"}', '{"context": "x"}', "[]", "3"])
def test_eval_reading_names_the_bad_row(tmp_path: Path, text: str) -> None:
    file = tmp_path / "dev.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"dev\.jsonl"):
        evaluation.load_items(file)


def test_calibration_recovers_a_known_curve() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2))
    p = 1 / (1 + np.exp(-(1.5 * x[:, 0] - 0.5 * x[:, 1] + 0.25)))
    fitted = calibration.logistic_regression(x, (rng.random(len(p)) < p).astype(float))
    assert fitted == pytest.approx([1.5, -0.5, 0.25], abs=0.08)


def test_train_calibrate_updates_the_weights(call: Any, trained: Trained, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(trained.folder, tmp_path / "copy")
    file = question_file(tmp_path / "dev.jsonl")
    result = call("train", "calibrate", file, "--weights", folder, "--refuse", 0.1, "--json")
    assert result.exit_code == 0, result.output
    engine = Engine.load(folder)
    assert weights.load(folder).reader.alone.threshold == json.loads(result.stdout)["alone"]["threshold"]
    items = evaluation.load_items(file)
    report = evaluation.evaluate(engine, items)
    assert report["refusal"]["false_refusals"] <= 0.1
    assert report["refusal"]["refused"] == 1.0
    assert report["refusal"]["ece"] < 0.1
    beside = evaluation_refusal.with_distractors(engine, items, items, 2)
    assert beside["distractors_only"]["auroc"] > 0.95
    assert beside["distractors_only"]["refused"] > 0.9
    assert beside["relevance"]["ece"] < 0.15  # fitted to the own passages alone: .21
    fitted = weights.load(folder).reader
    assert fitted.several.coverage != 0 == fitted.alone.coverage
    only = tmp_path / "only.jsonl"
    only.write_text(file.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")
    refused = call("train", "calibrate", only, "--weights", folder)
    assert refused.exit_code == 1
    assert "both answerable and unanswerable" in refused.stderr


def test_calibration_where_nothing_lies_beside(trained: Trained) -> None:
    """All questions over one passage: there is no other one to put beside it, or to ask alone."""
    text = PASSAGES[0]
    items = [
        evaluation.Item(str(n), question, "", text, ("十八个月",) if answered else (), "span")
        for n, (question, answered) in enumerate((("净水器保修多久？", True), ("总部在哪里？", False)) * 2)
    ]
    engine = trained.engine()
    settings = calibration.calibrate(engine, [items])
    assert np.isfinite(list(asdict(settings.several).values())).all()


def test_some_sources_are_judged_as_if_read_alone(trained: Trained) -> None:
    engine = trained.engine()
    sources = [Source(text) for text in PASSAGES]
    question = QUESTIONS[6][0]
    (scored,) = engine.score([(question, sources)])
    for chosen in (slice(0, 1), slice(1, None), slice(0, None)):
        assert engine.judge(scored.of(chosen)) == engine.evidence([(question, sources[chosen])])[0]


def test_bench_prints_what_it_measured(call: Any) -> None:
    result = call("bench", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["model"] == "gglm-tiny-test"
    assert figures["decode_tokens_per_s"] > 20
    assert figures["read_ms"]["4"] > figures["read_ms"]["1"] > 0
    assert 0 < figures["bandwidth_share"] < 1
    assert figures["bytes_per_token"] > 4 * 64 * 448  # at least the output table
    assert "tokens/s" in call("bench", "--int8").stdout


def test_written_questions_become_rows(call: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    text = "# 手册\n保修十八个月。\n---\n? 保修多久\n= 十八个月\n? 在哪里修\nx\n? 多重\n= 三公斤\n"
    (tmp_path / "in/a.md").write_text(text, encoding="utf-8")
    out = tmp_path / "new/q.jsonl"
    result = call("train", "questions", tmp_path / "in", "-o", out)
    assert result.exit_code == 0, result.output
    assert [r["type"] for r in lines(out)] == ["span", "unanswerable"]
    assert "多重: not in the text: 三公斤" in result.stderr
    assert "2 questions, 1 left out" in result.stderr
    (tmp_path / "empty.md").write_text("nothing", encoding="utf-8")
    for bad in (tmp_path / "empty.md", tmp_path / "missing.md"):
        refused = call("train", "questions", bad, "-o", out)
        assert refused.exit_code == 1
        assert "Traceback" not in refused.output
    assert len(lines(out)) == 2


def test_written_questions_become_documents_to_ask(call: Any, tmp_path: Path) -> None:
    text = "# 手册: A/B\n保修十八个月。\n---\n? 保修多久\n= 十八个月\n? 在哪里修\nx\n"
    text += "# 手册: A/B\n保修三年。\n---\n? 保修几年\n= 三年\n"
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    folder = tmp_path / "asked"
    assert call("train", "questions", tmp_path / "a.md", "-o", folder).exit_code == 0
    assert sorted(p.name for p in (folder / "docs").iterdir()) == ["手册_A_B (2).md", "手册_A_B.md"]
    assert (folder / "docs/手册_A_B.md").read_text("utf-8") == "# 手册: A/B\n\n保修十八个月。\n"
    asked = lines(folder / "questions.jsonl")
    assert asked[0]["answers"] == ["十八个月"]
    assert [(q["doc"], q["question"]) for q in asked] == [
        ("手册_A_B.md", "保修多久"), (None, "在哪里修"), ("手册_A_B (2).md", "保修几年"),
    ]  # fmt: skip
    again = call("train", "questions", tmp_path / "a.md", "-o", folder)
    assert again.exit_code == 1
    assert "exists already" in again.output


def test_train_commands_refuse_what_cannot_work(call: Any, tmp_path: Path) -> None:
    assert call("train", "export", tmp_path, "--tokenizer", "x", "-o", tmp_path / "w", "--name", "n").exit_code == 1
    assert call("train", "tokenizer", tmp_path, "-o", tmp_path / "t.model").exit_code == 1
    nothing = call("train", "finetune", "--minutes", 1, "--tokenizer", tmp_path / "t.model")
    assert nothing.exit_code == 2
    both = call("train", "pretrain", tmp_path, "--tokenizer", "x", "-o", tmp_path / "r", "--minutes", 1, "--steps", 1)
    assert both.exit_code == 2
    for result in (nothing, both):
        assert "Traceback" not in result.output


def test_no_traceback_reaches_a_user(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHATGGLM_DEBUG", raising=False)
    result = call("broken")
    assert result.exit_code == 1
    assert "no such luck" in result.stderr
    assert "CHATGGLM_DEBUG=1" in result.stderr
    assert "Traceback" not in result.output
    assert call("failing").exit_code == 2
    monkeypatch.setenv("CHATGGLM_DEBUG", "1")
    assert isinstance(call("broken").exception, RuntimeError)


def test_the_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, typer; from gglm import cli; a = typer.Typer();"
        "cli.register(a, {'eval': typer.Typer(), 'train': typer.Typer()});"
        "print(sorted({'torch', 'numpy', 'sentencepiece', 'safetensors', 'zstandard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
