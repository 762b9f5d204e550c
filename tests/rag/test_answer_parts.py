"""Questions after several things, and the yes or no that a sentence says literally."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answer import Answerer
from rag.parts import split_question
from rag.retrieve import Retriever
from rag.verdict import asks_yes_no, verdict, words
from tests.rag.world import SentenceReader, World


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        ("紫藤和牡丹分别什么时候开花？", ["紫藤什么时候开花？", "牡丹什么时候开花？"]),
        ("甲票和乙票的价格分别是多少", ["甲票的价格是多少？", "乙票的价格是多少？"]),
        ("成人票、学生票和老人票各多少钱", ["成人票多少钱？", "学生票多少钱？", "老人票多少钱？"]),
        ("买方和卖方违约金分别怎么算？", ["买方违约金怎么算？", "卖方违约金怎么算？"]),
        ("张师傅与李师傅各自负责什么", ["张师傅负责什么？", "李师傅负责什么？"]),
    ],
)
def test_a_question_after_several_things_is_taken_apart(question: str, parts: list[str]) -> None:
    assert [part.question for part in split_question(question)] == parts


@pytest.mark.parametrize(
    "question",
    [
        "",
        "合同和发票",
        "甲和乙有什么区别？",
        "分别是什么？",
        "各位老师好",
        "各个部门的电话是多少",
        "一二三等奖分别是什么",
        "如果甲，乙和丙分别怎么办",
    ],
)
def test_another_question_is_left_whole(question: str) -> None:
    assert split_question(question) == ()


@given(st.text(alphabet="甲乙丙丁和与、的分别各是几？，a1 ", max_size=30))
def test_taking_apart_never_fails(question: str) -> None:
    parts = split_question(question)
    assert len(parts) != 1
    assert all(part.thing and part.thing in question for part in parts)


@pytest.mark.parametrize(
    ("question", "sentence", "word"),
    [
        ("阅览室里可以吃东西吗？", "阅览室内不得吃东西。", "不可以"),
        ("退押金能用微信办理吗", "押金可以用微信或现金办理退还。", "能"),
        ("访客进园需要登记吗？", "访客进园必须在东门登记。", "需要"),
        ("换座位要不要付手续费？", "首次换座位无需付手续费，再次办理时每张收五元。", "不需要"),
        ("露台是不是允许烧烤？", "露台禁止烧烤和燃放烟花。", "不是"),
    ],
)
def test_the_word_follows_from_the_sentence(question: str, sentence: str, word: str) -> None:
    found = verdict(question, sentence)
    assert found is not None
    assert found.word == word
    assert sentence[found.start : found.end]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("阅览室里可以吃东西吗？", "阅览室早上八点开门。"),  # says nothing of it
        ("阅览室里可以吃东西吗？", "阅览室内除饮用水外不得吃东西。"),  # sets a limit
        ("阅览室里可以吃东西吗？", "未经批准，阅览室内不得吃东西，但可以喝水。"),
        ("退押金能用微信办理吗", "只有现金押金可以用微信办理。"),
        ("退押金不能用微信办理吗", "押金可以用微信办理退还。"),  # a negated question
        ("访客进园怎么登记？", "访客进园必须登记。"),  # no question of yes or no
        ("地下车库可以充电吗？", "会议室可以免费使用。"),  # of another thing
        ("阅览室里可以吃东西吗？", "阅览室内可以喝水不可以吃东西。"),  # both are said
        ("图纸能复印吗？", "盖有密级章的图纸和底片不能复印。"),  # of some of them only
        ("门禁卡能在食堂用吗", "没有充值时，门禁卡不能在食堂使用。"),
    ],
)
def test_nothing_is_concluded_in_doubt(question: str, sentence: str) -> None:
    assert verdict(question, sentence) is None


def test_yes_no_questions_are_told_by_their_wording() -> None:
    assert all(map(asks_yes_no, ["能退吗", "可不可以退？", "是否收费", "要不要带证件", "门修好了没有？"]))
    assert not any(map(asks_yes_no, ["怎么退", "多少钱", "哪里能退呢", ""]))


@pytest.mark.parametrize(
    ("question", "offered"),
    [
        ("半夜急用钱，能走快速通道吗？", ("能", "不能")),
        ("这台要不要先充电？", ("需要", "不需要")),
        ("明年的夜场已经定下来有吗？", ("有", "没有")),
        ("湖水冬天会结冰吗", ("会", "不会")),
        ("开会议室要收费吗", ("需要", "不需要")),
        ("可不可以带狗", ("可以", "不可以")),
        ("院长是本地人吗", ("是", "不是")),
        ("门修好了没？", ("是", "不是")),
    ],
)
def test_the_question_offers_its_own_words(question: str, offered: tuple[str, str]) -> None:
    assert words(question) == offered


def test_two_passages_answer_one_question(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"紫藤.txt": "长廊的紫藤四月开花。", "牡丹.txt": "东园的牡丹五月开花。"})
    reader = SentenceReader()
    answerer = Answerer(
        Retriever(world.database, world.indexes, world.embedder, reader, world.settings), reader, world.settings
    )
    answer = answerer.ask("长廊的紫藤和东园的牡丹分别几月开花？")
    assert {c.path for c in answer.citations} == {"紫藤.txt", "牡丹.txt"}
    assert answer.answerable
    assert "紫藤四月开花" in answer.answer
    assert "牡丹五月开花" in answer.answer
    assert all(answer.answer[c.answer_start : c.answer_end] == c.quote for c in answer.citations)
    assert not any(
        c.answer_start < g.end and g.start < c.answer_end for c in answer.citations for g in answer.generated
    )
    alone = answerer.ask("长廊的紫藤和西园的荷花分别几月开花？")
    assert all(c.path == "紫藤.txt" for c in alone.citations), "what is missing is not made up"
