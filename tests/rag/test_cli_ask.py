"""`chatgglm search | ask | chat` as the contract says: JSON on stdout, exit codes, clear errors."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import rag.cli
from rag.answer import Answerer
from rag.retrieve import Retriever
from tests.rag.world import SentenceReader, World

DOCUMENTS = {
    "考勤制度.md": "# 年假\n\n员工连续工作满一年的，每年享受带薪年假五天。\n\n# 病假\n\n病假工资按八成发放。",
    "星河耳机.txt": "星河耳机的防水等级为IPX4。\n\n星河耳机的保修期为两年。",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    made.put(DOCUMENTS)
    return made


@pytest.fixture
def app(world: World, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The commands over a world without weights; everything else is real."""
    reader = SentenceReader()
    retriever = Retriever(world.database, world.indexes, world.embedder, reader, world.settings)
    service = SimpleNamespace(retriever=retriever, answerer=Answerer(retriever, reader, world.settings))
    monkeypatch.setattr(rag.cli, "_service", lambda: service)
    made = typer.Typer()
    groups = {name: typer.Typer() for name in ("kb", "documents", "eval")}
    rag.cli.register(made, groups)
    for name, group in groups.items():
        made.add_typer(group, name=name)
    return made


def run(app: typer.Typer, *arguments: str, given: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=given)


def document(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_ask_prints_one_document(app: typer.Typer) -> None:
    answer = document(run(app, "ask", "病假工资按几成发放？", "--json"))
    assert answer["answer"] == "病假工资按八成发放"
    assert answer["citations"][0]["path"] == "考勤制度.md"
    assert answer["answerable"] is True


def test_a_refusal_is_a_success(app: typer.Typer) -> None:
    answer = document(run(app, "ask", "公司年会在哪个城市举办", "--json"))
    assert answer["answerable"] is False
    assert answer["answer"].startswith("资料中没有找到")


def test_ask_for_people_names_answer_and_source(app: typer.Typer) -> None:
    result = run(app, "ask", "病假工资按几成发放？")
    assert result.exit_code == 0
    assert "病假工资按八成发放[1]" in result.stdout
    assert "[1] 考勤制度.md" in result.stdout
    refusal = run(app, "ask", "公司年会在哪个城市举办").stdout
    assert "资料中没有找到" in refusal
    assert "最接近的内容" in refusal


def test_ask_with_history(app: typer.Typer, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    turns = [{"role": "user", "content": "星河耳机防水吗？"}, {"role": "assistant", "content": "IPX4"}]
    file.write_text(json.dumps(turns, ensure_ascii=False), encoding="utf-8")
    answer = document(run(app, "ask", "它的保修期呢", "--history", str(file), "--json"))
    assert "两年" in answer["answer"]
    assert answer["standalone_question"] != answer["question"] == "它的保修期呢"


@pytest.mark.parametrize("content", ["{", "{}", '[{"role": "system", "content": "x"}]', '[{"role": "user"}]', "[1]"])
def test_a_history_that_cannot_be_used_is_told(app: typer.Typer, tmp_path: Path, content: str) -> None:
    file = tmp_path / "history.json"
    file.write_text(content, encoding="utf-8")
    result = run(app, "ask", "年假", "--history", str(file))
    assert result.exit_code == 1
    assert "history.json" in result.stderr
    assert "Traceback" not in result.output


def test_search_prints_results_with_their_scores(app: typer.Typer) -> None:
    results = document(run(app, "search", "星河耳机的保修期", "-k", "2", "--json"))["results"]
    assert len(results) == 2
    assert results[0]["text"] == "星河耳机的保修期为两年。"
    assert set(results[0]) >= {"chunk_id", "document_id", "title", "path", "page", "char_start", "char_end", "score"}
    assert set(results[0]["scores"]) == {"lexical", "dense", "fused", "relevance"}
    assert "星河耳机.txt" in run(app, "search", "星河耳机的保修期").stdout


@pytest.mark.parametrize("command", ["ask", "search"])
def test_errors_are_one_line_and_exit_1(app: typer.Typer, command: str) -> None:
    for arguments in (["年假", "--kb", "nowhere"], [""], ["问" * 3000]):
        result = run(app, command, *arguments, "--json")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert "Traceback" not in result.stderr


def test_wrong_usage_exits_2(app: typer.Typer) -> None:
    assert run(app, "ask").exit_code == 2
    assert run(app, "search", "年假", "-k", "0").exit_code == 2
    assert run(app, "ask", "年假", "--history", "/no/such/file.json").exit_code == 2


def test_chat_keeps_the_talk(app: typer.Typer) -> None:
    lines = "星河耳机的防水等级是多少？\n\n它的保修期呢\n/new\n你好\n/exit\n病假工资按几成发放？\n"
    result = run(app, "chat", given=lines)
    assert result.exit_code == 0
    assert "IPX4" in result.stdout
    assert "两年" in result.stdout
    assert "ChatGGLM" in result.stdout
    assert "八成" not in result.stdout, "nothing is read after /exit"


def test_chat_ends_with_its_input_and_survives_a_bad_question(app: typer.Typer) -> None:
    result = run(app, "chat", given="问" * 3000 + "\n病假工资按几成发放？\n")
    assert result.exit_code == 0
    assert "问题太长" in result.stderr
    assert "八成" in result.stdout


def test_search_and_ask_look_only_where_they_are_told(app: typer.Typer, world: World) -> None:
    world.put({"旧制度.md": "年假三天。"}, tags=["人事", "旧"], meta={"date": "2019-01-01"})

    def paths(*options: str) -> set[str]:
        return {p["path"] for p in document(run(app, "search", "年假几天", *options, "--json"))["results"]}

    assert "考勤制度.md" in paths()
    assert paths("--tag", "人事", "--tag", "旧") == {"旧制度.md"}
    assert paths("--document", "星河耳机.txt") == {"星河耳机.txt"}
    assert paths("--since", "2018年1月1日", "--until", "2019/12/31") == {"旧制度.md"}
    assert "旧制度.md" not in paths("--since", "2020-01-01")
    answer = document(run(app, "ask", "年假几天？", "--document", "旧制度.md", "--json"))
    assert {c["path"] for c in answer["citations"]} <= {"旧制度.md"}
    for options in (["--document", "没有.md"], ["--since", "去年"], ["--since", "2020-01-02", "--until", "2020-01-01"]):
        result = run(app, "search", "年假几天", *options)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.stderr
