"""A knowledge base's own questions: made by rules, kept where they work, and missed when they no longer do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import rag.cli_own
from rag.answer import Answerer
from rag.errors import InvalidInput, NotFound
from rag.evaluation.generate import questions_of
from rag.evaluation.own import OwnSet
from rag.retrieve import Retriever
from rag.types import Passage, ReaderOutput, Turn
from tests.rag.world import SentenceReader, World

DOCUMENTS = {
    "考勤制度.md": "# 病假\n\n病假工资发百分之八十。\n\n# 年假\n\n员工连续工作满一年的，每年享受带薪年假5天。",
    "雨燕相机.txt": "产品代码：YX-200\n整机保修：自购买之日起18个月",
    "植物.md": "# 名录\n\n品种：紫藤；区域：长廊；花期：四月\n品种：牡丹；区域：东园；花期：五月",
}


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("病假工资按80%发放。", "制度，病假工资按多少发放？", "80%"),
        ("甲方应当于收到发票后15个工作日内付清余款。", "制度，甲方应当于收到发票后多长时间内付清余款？", "15个工作日"),
        ("每次罚款五百元以上二千元以下。本条自公布起施行。", "制度，每次罚款多少钱？", "五百元以上二千元以下"),
        ("展览将于2026年5月18日在东厅开幕。", "制度，展览将于什么时候在东厅开幕？", "2026年5月18日"),
        ("值班电话：6200-1177", "制度的值班电话是什么？", "6200-1177"),
        ("品种：紫藤；区域：长廊", "紫藤的区域是什么？", "长廊"),
        ("骑缝章是指盖在两页纸接缝处的印章。", "骑缝章是什么？", "盖在两页纸接缝处的印章"),
        ("投币口的默认面额是五角。", "投币口的默认面额是什么？", "五角"),
        ("问：寝室几点熄灯？\n答：晚上十一点。周末除外。", "寝室几点熄灯？", "晚上十一点"),
        (
            "外带公章须登记，见《用印办法》。年度审查时一并核对《用印办法》的执行情况。",
            "制度，年度审查时一并核对哪一部作品或文件的执行情况？",
            "《用印办法》",
        ),
    ],
)
def test_statements_become_questions(text: str, question: str, answer: str) -> None:
    made = {g.question: g for g in questions_of("制度", "", text)}
    assert made[question].answer == answer
    assert answer in text
    assert all(g.evidence in text for g in made.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "请登记。",
        "第52分钟换人。",
        "注意：小心地滑",
        "三年级学生有两个班。",
        "它是一个好办法。",
        "请于8月31日前到前台。",
    ],
)
def test_what_makes_no_question(text: str) -> None:
    assert [g for g in questions_of("", "", text) if "31日" not in g.answer] == []
    assert "31日" not in [g.answer for g in questions_of("", "", text)], "a day without its month"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.put(DOCUMENTS)
    return made


def service(world: World, reader: SentenceReader | None = None) -> Any:
    reader = reader or SentenceReader()
    retriever = Retriever(world.database, world.indexes, world.embedder, reader, world.settings)
    return SimpleNamespace(
        settings=world.settings,
        database=world.database,
        retriever=retriever,
        answerer=Answerer(retriever, reader, world.settings),
        reader=reader,
        embedder=world.embedder,
    )


def test_a_set_is_made_and_still_works(world: World) -> None:
    first = OwnSet(service(world)).run(wanted=20)
    assert first.ok
    assert first.added == first.asked == first.right >= 2
    again = OwnSet(service(world)).run(wanted=20)
    assert (again.ok, again.added, again.retired) == (True, 0, 0)
    assert (again.asked, again.generation) == (first.asked, first.generation)
    runs = OwnSet(service(world)).results()
    assert [r["generation"] for r in runs] == [1, 1]
    assert all(q.path in DOCUMENTS for q in OwnSet(service(world)).questions)


class Unsure(SentenceReader):
    """Believes nothing about sick leave, as other weights might."""

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        output = super().read(question, passages, history)
        return replace(output, answerable=False, p_answerable=0.0) if "病假" in question else output


def test_a_question_that_no_longer_works_is_a_regression(world: World) -> None:
    made = OwnSet(service(world))
    first = made.run(wanted=20)
    assert "百分之八十" in {q.answer for q in made.questions}
    worse = OwnSet(service(world, Unsure())).run(wanted=1)
    assert not worse.ok
    assert [r["wanted"] for r in worse.regressed] == ["百分之八十"]
    assert [r["reason"] for r in worse.regressed] == ["not_answered"]
    assert worse.right == worse.asked - 1 == first.asked - 1
    assert not OwnSet(service(world, Unsure())).run(wanted=1).ok, "it stays one"
    assert OwnSet(service(world, Unsure())).run(wanted=1, accept=True).ok
    after = OwnSet(service(world, Unsure())).run(wanted=1)
    assert (after.ok, after.asked) == (True, first.asked - 1)


def test_what_a_document_no_longer_says_is_retired_and_new_documents_are_asked(world: World) -> None:
    made = OwnSet(service(world))
    made.run(wanted=20)
    world.put({"考勤制度.md": "# 病假\n\n病假工资发百分之七十。", "食堂.txt": "就餐卡押金二十五元。"})
    report = OwnSet(service(world)).run(wanted=20)
    assert report.ok, report.regressed
    assert report.retired >= 1
    answers = {q.answer for q in OwnSet(service(world)).questions}
    assert "百分之八十" not in answers
    assert answers >= {"百分之七十", "二十五元"}


def test_documents_without_statements_are_told(tmp_path: Path) -> None:
    empty = World(tmp_path)
    empty.put({"a.txt": "风吹过来。"})
    with pytest.raises(InvalidInput, match="No question"):
        OwnSet(service(empty)).run()
    with pytest.raises(NotFound):
        OwnSet(service(empty), "nowhere")


def test_the_command_exits_1_on_regression(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rag.cli_own, "_service", lambda: service(world))
    app, group = typer.Typer(), typer.Typer()
    rag.cli_own.register(app, {"eval": group})
    app.add_typer(group, name="eval")
    first = CliRunner().invoke(app, ["eval", "own", "--json"])
    report = json.loads(first.stdout)
    assert (first.exit_code, report["ok"], report["runs"]) == (0, True, 1)
    stored = json.loads(Path(report["set"]).read_text(encoding="utf-8"))
    stored["questions"][0]["answer"] = "另一个答案"
    Path(report["set"]).write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    second = CliRunner().invoke(app, ["eval", "own"])
    assert second.exit_code == 1
    assert "另一个答案" in second.stderr
    assert CliRunner().invoke(app, ["eval", "own", "--new"]).exit_code == 0
    Path(report["set"]).write_text("{", encoding="utf-8")
    damaged = CliRunner().invoke(app, ["eval", "own"])
    assert damaged.exit_code == 1
    assert "set.json" in damaged.stderr
    assert "Traceback" not in damaged.output
