"""`chatgglm eval retrieval | answers | calibrate` over labelled files and folders, with the real reader and indexes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gglm import calibration
from gglm.engine import Engine
from gglm.types import Source
from gglm.weights import default_folder, load, read_config
from ingest import cli_eval
from ingest.evaluation import labelled
from rag.errors import InvalidInput
from rag.evaluation.answers import evaluate
from rag.evaluation.calibration import Recorder, asked, foreign
from rag.settings import get_settings

CONTEXTS = ["长江全长六千三百公里，是亚洲最长的河。", "黄河流经九个省区，最后注入渤海。", "泰山位于山东省中部。"]
QUESTIONS = ["长江有多长", "黄河注入什么海", "泰山在哪"]
DOCUMENTS = {
    "考勤制度.md": "# 考勤制度\n\n## 年假\n\n员工连续工作满一年的，每年享受带薪年假五天。\n\n"
    "## 病假\n\n病假须提交医院证明，病假工资按八成发放。\n",
    "星河耳机.txt": "星河耳机的防水等级为IPX4。\n星河耳机的保修期为两年。\n",
}
ASKED: list[dict[str, Any]] = [
    {"id": "1", "doc": "考勤制度.md", "question": "病假工资按几成发放？", "answers": ["八成"], "evidence": "八成"},
    {"id": "2", "doc": "星河耳机.txt", "question": "星河耳机的保修期是多久？", "answers": ["两年"]},
    {"id": "3", "doc": None, "question": "公司年会在哪个城市举办", "answers": [], "type": "unanswerable"},
]


@pytest.fixture
def app() -> typer.Typer:
    made, group = typer.Typer(), typer.Typer()
    cli_eval.register(made, {"eval": group})
    made.add_typer(group, name="eval")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "labelled"
    (made / "docs").mkdir(parents=True)
    for name, text in DOCUMENTS.items():
        (made / "docs" / name).write_text(text, encoding="utf-8")
    write(made / "questions.jsonl", ASKED)
    return made


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return file


def run(app: typer.Typer, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["eval", *arguments])


def document(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_folder_is_ingested_and_asked(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    report = document(run(app, "answers", str(folder), "--plot", str(picture), "--json"))
    assert (report["count"], report["answerable"]["count"], report["failed"]) == (3, 2, [])
    assert report["answerable"]["retrieved"] == 100.0
    assert report["citations"]["precision"] in (100.0, None)
    assert [len(point) for point in report["refusal"]["risk_coverage"]] == [2, 2]
    assert "<svg" in picture.read_text(encoding="utf-8")
    assert [q["id"] for q in report["questions"]] == ["1", "2", "3"]


def test_how_sure_an_answer_over_found_passages_must_be_is_fitted(
    app: typer.Typer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Path(shutil.copytree(default_folder(), tmp_path / "weights"))
    before = read_config(weights)["reader"]
    few = run(app, "calibrate", str(folder), "--weights", str(weights))
    assert few.exit_code == 1
    assert "at least 20 questions" in few.stderr
    assert read_config(weights)["reader"] == before
    monkeypatch.setattr(calibration, "ENOUGH", 1)
    near = {"id": "4", "doc": None, "question": "星河耳机的重量是多少克？", "answers": [], "type": "unanswerable"}
    write(folder / "questions.jsonl", [*ASKED, near])
    fitted = document(run(app, "calibrate", str(folder), "--weights", str(weights), "--json"))
    assert read_config(weights)["reader"] == fitted
    assert fitted["found"] != before.get("found")
    closed, shipped = load(weights).reader, load().reader
    assert (closed.alone, closed.several) == (shipped.alone, shipped.several), "closed reading stays as it was"
    assert fitted["verdict"] == before["verdict"], "no yes/no question was asked"
    kept = [q["right"] for q in _asked_with(weights, folder) if q["gold"]]
    assert kept == [True, True], "a tenth of two right answers is none"
    run(app, "calibrate", str(folder), "--weights", str(weights), "--lose", "0.5")
    kept = [q["right"] for q in _asked_with(weights, folder) if q["gold"]]
    assert sorted(kept) == [False, True], "half of them is one"


def test_what_asking_read_is_kept(folder: Path) -> None:
    (folder / "docs" / "问答.md").write_text("# 问答\n\n## 怎么申请年假？\n在系统里提交申请单。\n", encoding="utf-8")
    ask = [
        *ASKED,
        {"id": "f", "doc": "问答.md", "question": "怎么申请年假", "answers": ["在系统里提交申请单。"]},
        {
            "id": "y",
            "doc": "考勤制度.md",
            "type": "yesno",
            "question": "病假要医院证明吗",
            "answers": ["需要，须提交医院证明。"],
            "evidence": "病假须提交医院证明",
        },
        {
            "id": "z",
            "doc": "考勤制度.md",
            "type": "yesno",
            "question": "休病假拿得到工资吗",
            "answers": ["能领到一部分。"],
            "evidence": "病假工资按八成发放",
        },
        {"id": "h", "doc": None, "question": "谢谢", "answers": []},
    ]
    write(folder / "questions.jsonl", ask)
    recorder = Recorder(Engine.load())
    recorder.engine.model.verdict_head.bias.data.fill_(9.0)  # it says yes to everything
    with labelled(folder, reader=recorder) as made:
        rows = {row.question: row for row in asked(made.service.answerer, recorder, made.questions)}
    assert "怎么申请年假" not in rows, "a heading asks it: no threshold decides"
    assert "谢谢" not in rows, "small talk"
    assert rows["病假工资按几成发放？"].right
    assert not rows["公司年会在哪个城市举办"].right
    literal, read = rows["病假要医院证明吗"], rows["休病假拿得到工资吗"]
    assert (literal.right, literal.told) == (True, None), "the sentence says it, whatever the reader thinks"
    assert (read.right, read.told) == (False, True), "by the reader's word alone"
    assert "病假工资按八成发放" in rows["病假工资按几成发放？"].sources[0].text


def test_a_word_counts_once_it_is_sure_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels: an answer whose word is told is judged with it, one whose word is not yet told without."""
    engine = Engine.load()
    source = (Source("温室每天九点开放。\n游客不得在温室内饮食。"),)
    for name in ("ENOUGH", "FEWEST"):
        monkeypatch.setattr(calibration, name, 2)
    words = ("温室里能吃东西吗", "温室里可以喝水吗")
    told = [calibration.Asked(question, source, right=False, told=True) for question in words]
    plain = {"温室几点开放": True, "馆长是谁": False, "门票几元": False, "温室几点开": True}
    others = [calibration.Asked(question, source, right) for question, right in plain.items()]
    fitted = calibration.calibrate_asked(engine, [[*told, *others]], max_lost=0.0)
    engine.settings = fitted
    assert fitted.verdict < 1.0
    readings = {a.question: engine.read(a.question, source, found=True) for a in (*told, *others)}
    assert all(readings[a.question].answerable for a in told), "right with their word: not to be lost"
    wrong = [replace(a, told=False) for a in told]
    never = calibration.calibrate_asked(engine, [[*wrong, *others]], max_lost=0.0)
    assert never.verdict == 1.0


def test_the_questions_of_other_files_are_asked_too(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other / "questions.jsonl", [{"id": "a", "doc": "b.md", "question": "桥有多长？", "answers": ["九十米"]}] * 30)
    (other / "b.md").write_text("# 桥\n桥长九十米。\n", encoding="utf-8")
    write(folder / "questions.jsonl", ASKED * 12)
    with labelled(folder) as made, labelled(other) as beside:
        strangers = foreign(made.questions, beside.questions)
    assert len(strangers) == 6, "a quarter of the twenty-four that the documents answer"
    assert {(q.doc, q.question) for q in strangers} == {(None, "桥有多长？")}
    weights = Path(shutil.copytree(default_folder(), tmp_path / "weights"))
    alone = run(app, "calibrate", str(other), "--weights", str(weights))
    assert alone.exit_code == 1, "nothing there that must be refused"
    assert "One set alone" in alone.stderr
    document(run(app, "calibrate", str(folder), str(other), "--weights", str(weights), "--json"))
    stranger = {"id": "s", "doc": None, "question": "桥有多长？", "answers": []}
    write(folder / "questions.jsonl", [*ASKED, stranger])
    assert [q["right"] for q in _asked_with(weights, folder)] == [True, True, True, True]


def _asked_with(weights: Path, folder: Path) -> list[dict[str, Any]]:
    """The questions of a report that was made with these weights."""
    with labelled(folder, get_settings().model_copy(update={"reader_weights": weights})) as made:
        report: list[dict[str, Any]] = evaluate(made.service.answerer, made.questions)["questions"]
    return report


def test_a_folder_is_searched(app: typer.Typer, folder: Path) -> None:
    report = document(run(app, "retrieval", str(folder), "--json"))
    assert report["questions"] == 2, "what is answered nowhere cannot be found"
    assert report["documents"]["r@1"] == report["passages"]["r@5"] == 1.0
    shown = run(app, "retrieval", str(folder), "--no-rerank").stdout
    assert "passages" in shown
    assert "mrr@10" in shown


def test_the_contexts_of_a_file_become_documents(tmp_path: Path) -> None:
    rows = [
        {"question": q, "context": c, "answers": [{"text": c[:2], "start": 0}]}
        for q, c in zip(QUESTIONS, CONTEXTS, strict=True)
    ]
    rows.append({"question": "月亮多重", "context": CONTEXTS[0], "answers": [], "type": "unanswerable"})
    with labelled(write(tmp_path / "rows.jsonl", rows)) as made:
        home = made.service.settings.home
        assert sorted(d.path for d in made.job.documents) == ["00001.txt", "00002.txt", "00003.txt"]
        assert [q.doc for q in made.questions] == ["00001.txt", "00002.txt", "00003.txt", None]
        assert made.service.retriever.search(QUESTIONS[1])[0].path == "00002.txt"
    assert not home.exists(), "nothing is left behind"


def test_the_legs_of_the_search_are_compared(app: typer.Typer, tmp_path: Path) -> None:
    rows = [{"question": q, "context": c} for q, c in zip(QUESTIONS, CONTEXTS, strict=True)]
    file = write(tmp_path / "rows.jsonl", rows)
    report = document(run(app, "retrieval", str(file), "--no-dense", "--json"))
    assert (report["questions"], report["contexts"]) == (3, 3)
    assert report["lexical"]["r@1"] == 1.0
    assert "dense" not in report
    assert "lexical" in run(app, "retrieval", str(file), "--no-dense").stdout


def test_what_cannot_be_measured_is_told(app: typer.Typer, tmp_path: Path) -> None:
    for arguments in (["answers", str(tmp_path)], ["retrieval", str(tmp_path)]):
        result = run(app, *arguments)
        assert result.exit_code == 1
        assert "questions.jsonl" in result.stderr
        assert "Traceback" not in result.output
    assert run(app, "answers", str(tmp_path / "none")).exit_code == 2
    bad = write(tmp_path / "bad.jsonl", [{"context": "", "question": "甲？"}])
    assert "Row 1" in run(app, "answers", str(bad)).stderr
    write(tmp_path / "questions.jsonl", ASKED)
    with pytest.raises(InvalidInput, match="no document"), labelled(tmp_path):
        pass


def test_a_file_of_documents_questions_is_asked_of_a_knowledge_base(
    app: typer.Typer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with labelled(folder) as made:
        monkeypatch.setattr(cli_eval, "_service", lambda: made.service)
        file = str(folder / "questions.jsonl")
        assert document(run(app, "answers", file, "--json"))["answerable"]["retrieved"] == 100.0
        assert document(run(app, "retrieval", file, "--kb", "default", "--json"))["documents"]["r@1"] == 1.0
        assert "nowhere" in run(app, "answers", file, "--kb", "nowhere").stderr
