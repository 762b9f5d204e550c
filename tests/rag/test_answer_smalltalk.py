"""Small talk is recognised only where nothing else is asked."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from rag.smalltalk import classify, closing, fitting, fixed_reply, normalized, without_courtesy


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("你好", "greeting"),
        ("您好呀～", "greeting"),
        ("你好，小助手！", "greeting"),
        ("Hello", "greeting"),
        ("在吗？", "greeting"),
        ("早上好 ☀️", "greeting"),
        ("谢谢", "thanks"),
        ("非常感谢你的帮助！", "thanks"),
        ("好的，谢谢", "thanks"),
        ("謝謝您", "thanks"),
        ("Thank you very much!", "thanks"),
        ("辛苦了", "thanks"),
        ("再见", "farewell"),
        ("谢谢，没有其他问题了，再见", "thanks"),
        ("拜拜👋", "farewell"),
        ("你是谁", "identity"),
        ("你好，你是谁？", "identity"),
        ("您是誰？", "identity"),
        ("请问你叫什么名字", "identity"),
        ("介绍一下你自己", "identity"),
        ("你是机器人吗？", "identity"),
        ("who are you?", "identity"),
        ("你能做什么？", "ability"),
        ("你可以帮我做些什么", "ability"),
        ("你有什么功能？", "ability"),
        ("好的", "assent"),
        ("嗯嗯，明白了", "assent"),
    ],
)
def test_small_talk_is_recognised(message: str, topic: str) -> None:
    assert classify(message) == topic


@pytest.mark.parametrize(
    "message",
    [
        "你好，请问年假几天",
        "你好年假有几天",
        "谢谢，那病假呢",
        "再见协议怎么签",
        "你是谁的法定代表人",
        "你能做什么菜",
        "谢谢惠顾是什么意思",
        "感谢信怎么写",
        "早餐几点开始",
        "晚安酒店几点退房",
        "帮助中心的电话是多少",
        "嗨，合同到期了怎么办",
        "公司叫什么名字",
        "这个系统有什么功能",
        "可以吗",
        "那香水呢？",
        "他是谁",
        "请问",
        "？？？",
        "",
        "2+2",
        "88平米的房子物业费多少",
        "好的材料有哪些",
        "明白卡在哪里领",
    ],
)
def test_real_questions_are_never_swallowed(message: str) -> None:
    assert classify(message) is None


def test_long_repetition_is_decided_at_once() -> None:
    start = time.perf_counter()
    for unit in ("嗯", "好的", "谢谢", "哈哈", "你好啊", "早", "那"):
        for length in range(1, 45):
            classify((unit * length)[:44] + "x")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("question", "plain"),
    [
        ("您好，请问年假几天？", "年假几天？"),
        ("您好，我想去办事，请问政府在哪条路？", "我想去办事，请问政府在哪条路？"),
        ("麻烦问一下几点开门", "几点开门"),
        ("你好", "你好"),
        ("请问", "请问"),
        ("你好吗", "你好吗"),
    ],
)
def test_courtesy_is_cut_from_the_head_only(question: str, plain: str) -> None:
    assert without_courtesy(question) == plain


def test_generated_replies_are_checked() -> None:
    assert fitting("greeting", "您好！很高兴见到您。")
    assert not fitting("greeting", "")
    assert not fitting("greeting", "hello hello hello")
    assert not fitting("thanks", "不客气不客气不客气不客气")
    assert not fitting("identity", "我是人类。")
    assert fitting("identity", "我是 ChatGGLM。")
    assert not fitting("ability", "我会开飞机。")
    assert not fitting("greeting", "好的，我先安静。有需要再叫我。"), "fluent, but no greeting"
    assert not fitting("farewell", "再见，祝您"), "breaks off"
    assert not fitting("ability", "ChatGGLM 可以回答问题，如果您需求谁 the 110 完成。"), "strays"
    assert not fitting("thanks", "不客气the好。"), "strays, without a space"
    assert fitting("identity", "我是ChatGGLM，一个 AI 助手。")
    assert not fitting("assent", "好的，您慢慢慢慢说。")
    assert not fitting("assent", "好的，有什么？")
    assert not fitting("identity", "我是 ChatGGLM，可以回答各种问题。"), "promises too much"
    assert fitting("thanks", "谢谢！能帮上您就好。")
    assert not fitting("identity", "是的，我是 AI 助手 ChatGGLM。", "请问您是不是真人")
    assert not fitting("identity", "是，我是 ChatGGLM。", "你是ChatGPT吗")
    assert fitting("identity", "不是，我是 ChatGGLM。", "你是人吗")
    assert fitting("identity", "是的，我是 ChatGGLM。", "你是机器人吗")
    assert not fitting("identity", "不是，我是 ChatGGLM。", "你是人工智能吗")
    for topic in ("identity", "ability", "thanks", "farewell", "greeting", "assent"):
        assert fitting(topic, fixed_reply(topic))


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("懂了，谢谢～", "thanks"),
        ("原来如此，3Q", "thanks"),
        ("谢谢老师", "thanks"),
        ("好吧，没写就算了", "assent"),
        ("哈哈学到了", "assent"),
        ("好嘞，我去看看", "assent"),
    ],
)
def test_a_comment_on_the_answer_closes_the_talk(message: str, topic: str) -> None:
    assert closing(message) == topic


@pytest.mark.parametrize(
    "message",
    [
        "",
        "报销流程，谢谢",
        "年假 谢谢",
        "谢谢，那价格呢？",
        "好友验证在哪设置",
        "了解一下退货政策",
        "明白纸发放办法",
        "行程单打印",
    ],
)
def test_a_request_is_no_comment(message: str) -> None:
    assert closing(message) is None


def test_small_talk_of_this_repository_fits_its_topics() -> None:
    folder = Path(__file__).resolve().parents[2] / "data" / "smalltalk"
    said: dict[str, set[str]] = {}
    for part in ("train", "dev"):
        rows = [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(rows) >= 120
        for row in rows:
            *before, message, reply = (turn["content"] for turn in row["turns"])
            topic = classify(message) or (closing(message) if before else None)
            assert topic, message
            assert fitting(topic, reply), (message, reply)
        said[part] = {normalized(row["turns"][-2]["content"]) for row in rows}
    assert not said["train"] & said["dev"], "a message is to be learnt from or to be tried, never both"
