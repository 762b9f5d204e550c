"""Follow-ups made of questions over one text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from gglm.training import written
from gglm.training.followups import UNKNOWN, followups, shared, shortened
from gglm.training.writing import rewriting
from tests.gglm.test_cli_train import train

CONTEXT = "红枫桥全长1.2公里。红枫桥2019年通车。"
ROOT = Path(__file__).resolve().parents[2]


def row(question: str, answer: str = "", context: str = CONTEXT, title: str = "红枫桥") -> dict[str, object]:
    answers = [{"text": answer, "start": 0}] if answer else []
    return {"title": title, "context": context, "question": question, "answers": answers}


BRIDGE = [row("红枫桥有多长？", "1.2公里"), row("红枫桥是哪一年通车的？", "2019年"), row("红枫桥的设计师是谁？")]


def test_what_both_name_is_found_whole() -> None:
    assert shared("红枫桥是哪一年通车的？", "红枫桥有多长？") == "红枫桥"
    assert shared("iPhone 15的价格是多少", "iPhone 14多少钱") == "iPhone"
    assert shared("S60多重", "借S6找谁") == ""  # the beginning of a longer name
    assert shared("退货要几天", "怎么开发票") == ""


@pytest.mark.parametrize("seed", range(20))
def test_a_word_is_never_cut(seed: int) -> None:
    rng = random.Random(seed)
    assert shortened("第四班车票价多少", "班车", "班车 班车", rng) is None
    assert shortened("给 Surface Pro 装系统要准备什么？", "Surface", "Surface Surface", rng) is None
    assert shortened("红枫桥的设计师是谁？", "红枫桥", "红枫桥 红枫桥", rng) in {
        "设计师是谁？", "那设计师是谁？", "它的设计师是谁？", "这个的设计师是谁？", "其设计师是谁？"
    }  # fmt: skip


def test_a_person_is_he_or_she() -> None:
    made = {
        shortened("张琳在全运会上得了什么？", "张琳", "她十二岁进队。她后来……", random.Random(s)) for s in range(20)
    }
    assert made == {"她在全运会上得了什么？"}  # named once only, so the pronoun stays


def test_each_follow_up_leans_on_its_talk() -> None:
    made = list(followups(BRIDGE, times=30))
    assert {r["rewrite"] for r in made} == {r["question"] for r in BRIDGE}
    leaning = [r for r in made if r["question"] != r["rewrite"]]
    assert leaning
    for r in leaning:
        assert len(r["history"]) % 2 == 0
        assert "红枫桥" in r["history"][0]
        assert "红枫桥" not in r["question"]
    assert any(r["history"][1] == UNKNOWN for r in made)
    assert list(followups(BRIDGE, times=30)) == made
    assert list(followups(BRIDGE, seed=1, times=30)) != made


def test_only_what_differs_is_said() -> None:
    rows = [row("成人的门票是多少钱？", "60元"), row("学生的门票是多少钱？", "30元")]
    said = {(r["question"].strip("那？"), r["rewrite"]) for r in followups(rows, times=40) if "呢" in r["question"]}
    assert {("学生呢", "学生的门票是多少钱？"), ("成人呢", "成人的门票是多少钱？")} <= said


def test_the_command_makes_what_the_decoder_learns_from(tmp_path: Path) -> None:
    rows = [
        r for f in sorted((ROOT / "data/questions/dev").glob("*.md"))[:20] for r in written.parse(f.read_text("utf-8"))
    ]
    source, out = tmp_path / "rows.jsonl", tmp_path / "made" / "followups.jsonl"
    source.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows if isinstance(r, dict)), "utf-8")
    result = train("followups", source, "-o", out)
    assert result.exit_code == 0, result.output
    made = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(made) > 50
    (first,) = rewriting(made[0])
    assert (first.task, first.text, first.target) == ("改写", made[0]["question"], made[0]["rewrite"])


def test_what_holds_no_pair_is_said(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row("红枫桥有多长？")) + "\n", "utf-8")
    result = train("followups", source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "no two questions" in result.output
    source.write_text('{"question": "红枫桥有多长？"}\n', "utf-8")
    result = train("followups", source, "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "'context'" in result.output
