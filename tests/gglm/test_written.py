"""Questions written beneath their documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.training import written
from gglm.training.written import Problem, find, parse

EXAMPLE = "".join(line[4:] + "\n" for line in (written.__doc__ or "").splitlines() if line.startswith("    "))


def rows(text: str) -> list[dict[str, Any]]:
    return [row for row in parse(text) if isinstance(row, dict)]


def test_the_documented_example_gives_every_kind() -> None:
    made = rows(EXAMPLE)
    assert [r["type"] for r in made] == ["span", "span", "yesno", "abstractive", "unanswerable"]
    assert made[0]["answers"] == [{"text": "十八个月", "start": 3}]
    assert made[1]["answers"][0]["text"] == "自购买之日起算。滤芯不在保修之列"
    own_words = made[3]
    assert (own_words["title"], own_words["question"]) == ("净水器手册", "换两根滤芯多少钱？")
    assert (own_words["answers"], own_words["evidence"]) == ([{"text": "170 元", "start": -1}], "每根 85 元")
    assert not made[4]["answerable"]


def test_several_documents_and_long_answers() -> None:
    second = "先拧松两颗固定螺钉再把滤芯逆时针转四十五度向下拔出即可取下。"
    made = rows(f"{EXAMPLE}# 二\n{second}\n---\n? 怎么拆滤芯\n= 先拧松……取下\n")
    assert len(made) == 6
    assert made[-1]["title"] == "二"
    assert made[-1]["type"] == "long"
    assert made[-1]["context"].startswith(made[-1]["answers"][0]["text"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# 题\n正文。\n? 问\n= 正文\n", "three hyphens"),
        ("# 题\n---\n? 问\n= 正文\n", "no text"),
        ("# 题\n正文。\n---\n? 问\n= 别的\n", "not in the text: 别的"),
        ("# 题\n正文。\n---\n? 问\n! 是\n", "no evidence"),
        ("# 题\n正文。\n---\n? 问\n", "no answer"),
        ("# 题\n正文。\n---\n? 问\n=\n", "no answer"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    (problem,) = parse(text)
    assert isinstance(problem, Problem)
    assert reason in str(problem)


@given(st.text(alphabet="# ?=!~x>-…\n甲乙丙", max_size=120))
def test_any_text_gives_rows_that_hold_or_problems(text: str) -> None:
    for row in parse(text):
        if isinstance(row, dict):
            for answer in row["answers"]:
                at = answer["start"]
                assert at == -1 or row["context"][at : at + len(answer["text"])] == answer["text"]
            assert row["evidence"] in row["context"]


def test_dots_that_stand_in_the_text_are_taken_as_they_are() -> None:
    assert find("甲……乙丙", "甲……乙") == (0, 4)
    assert find("甲一二乙丙", "甲……乙") == (0, 4)
    assert find("乙一二甲", "甲……乙") is None
    assert find("甲", "") is None


def test_the_questions_of_this_repository_fit_their_documents() -> None:
    folder = Path(__file__).resolve().parents[2] / "data" / "questions"
    titles: dict[str, set[str]] = {}
    for part in ("train", "dev", "dev-hard", "dev-tables"):
        files = sorted((folder / part).rglob("*.md"))
        made = [row for file in files for row in parse(file.read_text(encoding="utf-8"))]
        assert not [str(row) for row in made if isinstance(row, Problem)]
        assert len(made) > 500
        titles[part] = {row["title"] for row in made if isinstance(row, dict)}
    chosen_by = titles["dev"] | titles["dev-hard"] | titles["dev-tables"]
    assert not titles["train"] & chosen_by, "a document is to be learnt from or to be chosen by, never both"
