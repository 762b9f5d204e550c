"""Follow-ups take their topic from the talk; complete questions keep their wording."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.references import topic_of
from rag.rewrite import by_rules, complete, followup, sound, standalone
from rag.smalltalk import remark
from rag.types import Turn


def talk(*messages: str) -> list[Turn]:
    return [Turn("user" if i % 2 == 0 else "assistant", m) for i, m in enumerate(messages)]


HEADPHONES = talk("星河耳机怎么配对？", "长按电源键五秒。")


@pytest.mark.parametrize("question", ["它防水吗？", "那价格呢？", "香水呢", "这个多少钱", "后者更贵吗", "上面那种呢？"])
def test_wording_that_leans_on_the_talk(question: str) -> None:
    assert followup(question)


@pytest.mark.parametrize(
    "question",
    [
        "年假有几天？",
        "其他费用是多少",
        "星河耳机防水吗？",
        "该如何申请退款？",
        "应该找谁签字",
        "那达慕大会在哪里举行？",
    ],
)
def test_wording_that_does_not(question: str) -> None:
    assert not followup(question)


def test_a_pronoun_becomes_the_topic() -> None:
    assert standalone("它防水吗？", HEADPHONES).question == "星河耳机防水吗？"


def test_an_ellipsis_keeps_the_question_before_it() -> None:
    made = standalone("那香水呢？", talk("火车上可以带几斤白酒？", "3000 毫升。"))
    assert made.question == "火车上可以带几斤白酒，香水呢？"


def test_an_attribute_is_asked_of_the_same_thing() -> None:
    assert standalone("那保修期呢", HEADPHONES).question == "星河耳机的保修期是多少？"
    assert standalone("防水等级呢？", HEADPHONES).question == "星河耳机的防水等级是什么？"


def test_a_bare_question_gets_the_topic_in_front() -> None:
    made = standalone("保修多久", HEADPHONES)
    assert made.question == "星河耳机，保修多久"
    assert made.plain == "保修多久", "what was typed is read first"


def test_the_topic_survives_several_followups() -> None:
    history = [*HEADPHONES, *talk("它防水吗？", "IPX4。"), *talk("谢谢", "不客气。")]
    assert standalone("能保修多久", history).question == "星河耳机，能保修多久"


COMPLETE = [
    "粮食烘干机买卖合同的质保期是多长时间？",
    "申请人提交材料后几个工作日内办结？",
    "机顶盒和智能电视有什么区别？",
]


@pytest.mark.parametrize("question", COMPLETE)
def test_a_complete_question_is_never_changed(question: str) -> None:
    assert complete(question)
    made = standalone(question, HEADPHONES)
    assert made.question == question
    assert made.queries[0] == (question, 1.0)
    assert all(weight < 0.5 for _, weight in made.queries[1:])


@pytest.mark.parametrize("question", [*COMPLETE, "它防水吗？", "年假有几天"])
def test_without_history_nothing_changes(question: str) -> None:
    for history in ([], talk("你好", "您好！"), talk("谢谢")):
        made = standalone(question, history)
        assert made.question == question
        assert made.queries == ((question, 1.0),)
        assert made.plain == ""


class Model:
    """A rewriter with one answer."""

    def __init__(self, text: str) -> None:
        self.text = text

    def rewrite(self, question: str, history: Sequence[Turn]) -> str:
        return self.text


def test_a_sound_model_rewrite_is_taken() -> None:
    assert standalone("它防水吗？", HEADPHONES, Model("星河耳机防水吗？")).question == "星河耳机防水吗？"
    assert standalone("保修多久", HEADPHONES, Model("星河耳机的保修多久？")).question == "星河耳机的保修多久？"


@pytest.mark.parametrize(
    "nonsense",
    ["", "   ", "今天天气很好", "它防水吗？" * 20, "苹果手机防水吗？", "星河耳机怎么配对？"],
)
def test_an_unsound_model_rewrite_is_not(nonsense: str) -> None:
    assert not sound(nonsense, "保修期限多久", HEADPHONES)
    assert standalone("保修期限多久", HEADPHONES, Model(nonsense)).question == by_rules("保修期限多久", HEADPHONES)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("扫地机器人怎么充电？", "扫地机器人"),
        ("请问年假有几天？", "年假"),
        ("请介绍一下苏轼。", "苏轼"),
        ("如何重置路由器？", "重置路由器"),
    ],
)
def test_topic(question: str, topic: str) -> None:
    assert topic_of(question) == topic


@pytest.mark.parametrize(
    "message", ["懂了，谢谢～", "好吧，没写就算了", "谢谢老师", "原来如此，3Q", "哈哈学到了", "好，我知道了"]
)
def test_a_remark_stays_as_it_is(message: str) -> None:
    made = standalone(message, HEADPHONES)
    assert remark(message)
    assert made.question == message
    assert made.queries == ((message, 1.0),)


@pytest.mark.parametrize(
    "question", ["好用吗", "谢谢，那价格呢？", "有声音但很小怎么办", "好评返现怎么领", "明白卡在哪里办？"]
)
def test_a_question_is_no_remark(question: str) -> None:
    assert not remark(question)


@pytest.mark.parametrize(
    ("history", "question", "rewritten"),
    [
        (("铜钟和铁钟有什么区别？", "声音不同。"), "后者怎么除锈？", "铁钟怎么除锈？"),
        (("铜钟和铁钟有什么区别？", "声音不同。"), "前面那种贵吗？", "铜钟贵吗？"),
        (("客船停靠哪些港口？", "资料列出白沙、青浦两个港口。"), "第二个停多久？", "青浦停多久？"),
        (("这条街上最老的店是哪家？", "最老的店是万和堂。"), "它几点开门？", "万和堂几点开门？"),
        (("万和堂是谁？", "一位老掌柜。"), "他几岁？", "万和堂几岁？"),
        (("K30有几个接口？", "三个。", "K50呢？", "四个。"), "它防水吗？", "K50防水吗？"),
        (("晋代的都城在哪里？", "洛阳。"), "隋代呢？", "隋代的都城在哪里？"),
    ],
)
def test_what_a_followup_leans_on(history: tuple[str, ...], question: str, rewritten: str) -> None:
    assert standalone(question, talk(*history)).question == rewritten


def test_a_pronoun_for_something_in_the_question_itself_is_left_alone() -> None:
    question = "机器人装好之后群里的人不提及它也能收到消息吗？"
    assert standalone(question, HEADPHONES).question == question


@pytest.mark.parametrize(
    ("question", "made"),
    [
        ("能不能带2只？", "星河耳机能不能带？"),  # a number is lost
        ("保修多久", "星河耳机的保修3年多久"),  # a number from nowhere
        ("保修多久", "海王耳机的保修多久"),  # a thing from nowhere
        ("为什么不能充电", "星河耳机为什么能充电"),  # a negation is lost
        ("能充电吗", "星河耳机不能充电吗"),  # a negation from nowhere
        ("多久充满", "星河耳机怎么充满"),  # another question
        ("它防水吗", "它防水吗，星河耳机"),  # still leans on the talk
        ("保修多久", "星河耳机星河耳机星河耳机的保修多久"),  # runs in circles
        ("保修多久", "星河耳机怎么配对？"),  # what was asked before
        ("保修多久\n", "星河耳机的\n保修多久"),
    ],
)
def test_the_guard_lets_nothing_doubtful_pass(question: str, made: str) -> None:
    assert not sound(made, question, HEADPHONES)


@pytest.mark.parametrize("question", [*COMPLETE, "谢谢，明白了"])
def test_no_model_changes_a_complete_question(question: str) -> None:
    made = standalone(question, HEADPHONES, Model(f"星河耳机，{question}"))
    assert made.question == question
    assert made.queries[0] == (question, 1.0)


def test_a_followup_is_searched_with_the_questions_before_it() -> None:
    history = [*HEADPHONES, *talk("它防水吗？", "IPX4。")]
    made = standalone("能保修多久", history)
    assert made.queries == (("星河耳机，能保修多久", 1.0), ("星河耳机怎么配对？ 它防水吗？ 能保修多久", 0.8))
    trusted = standalone("能保修多久", history, Model("星河耳机能保修多久"))
    assert [weight for _, weight in trusted.queries] == [1.0, 0.3]


def test_no_model_is_asked_about_a_complete_question() -> None:
    class Loud:
        def rewrite(self, question: str, history: Sequence[Turn]) -> str:
            raise AssertionError("asked")

    for question in [*COMPLETE, "谢谢"]:
        assert standalone(question, HEADPHONES, Loud()).question == question
