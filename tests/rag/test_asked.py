"""FAQ entries and headings that ask the user's question themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.asked import entries, find, settled
from rag.types import Passage, ReaderOutput, Scores, Span

FAQ = """服务台常见问题
考勤
问：忘记打卡怎么办？
答：三个工作日内提交补卡申请，由主管审批。每月最多补两次。
问：年假可以拆开休吗？
答：可以，最小单位为半天。
Q：报销款多久到账？
A：审批完成后五个工作日内打入工资卡。
经理每天的住宿标准是多少？
每天五百元。
修改密码
登录门户后点头像，选“安全设置”，再点“修改密码”。新密码至少十位。
第三章 附则
附件一
清单见附件。"""


def passage(text: str = FAQ) -> Passage:
    return Passage(
        chunk_id=1, document_id="d", version_id=1, title="t", path="p", page=None, heading="", char_start=0,
        char_end=len(text), text=text, score=1.0, scores=Scores(),
    )  # fmt: skip


def output(text: str, quote: str, p: float = 0.4) -> ReaderOutput:
    span = Span(text.index(quote), text.index(quote) + len(quote))
    return ReaderOutput(quote, False, p, p, (0.5,), ((0, span, Span(0, len(quote))),))


def answer(question: str, text: str = FAQ) -> str | None:
    found = find(question, [passage(text)])
    return None if found is None else text[found[2].body.start : found[2].body.end]


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("忘记打卡了怎么办", "三个工作日内提交补卡申请，由主管审批。每月最多补两次。"),
        ("请问年假能拆开休吗？", "可以，最小单位为半天。"),
        ("报销多久到账", "审批完成后五个工作日内打入工资卡。"),
        ("怎么修改密码？", "登录门户后点头像，选“安全设置”，再点“修改密码”。新密码至少十位。"),
        ("忘记打卡要怎样办", "三个工作日内提交补卡申请，由主管审批。每月最多补两次。"),
        ("如何修改一下我的密码", "登录门户后点头像，选“安全设置”，再点“修改密码”。新密码至少十位。"),
    ],
)
def test_the_text_beneath_the_question_is_the_answer(question: str, wanted: str) -> None:
    assert answer(question) == wanted


@pytest.mark.parametrize(
    "question",
    [
        "病假可以拆开休吗",  # of something else
        "忘记打卡扣多少钱",  # another question about it
        "密码至少几位",  # the heading does not ask it
        "修改密码要多久",
        "考勤怎么办理",  # a heading with no text of its own
        "附件一怎么填",
        "年假不可以拆开休吗",  # the opposite
        "经理的经理每天的住宿标准是多少",  # more than the line says
        "怎么",
        "？",
    ],
)
def test_another_question_is_left_to_the_reader(question: str) -> None:
    assert answer(question) is None


def test_a_question_with_other_numbers_is_another_question() -> None:
    text = "第2步怎么做？\n先关阀门，再断电。"
    assert answer("第2步怎么做", text) == "先关阀门，再断电。"
    assert answer("第3步怎么做", text) is None


def test_a_span_outside_gives_way_to_the_answer_beneath() -> None:
    before = output(FAQ, "每天五百元")
    after = settled("年假可以拆开休吗", before, [passage()])
    assert after.text == "可以，最小单位为半天。"
    assert after.answerable
    assert after.p_answerable == 1.0
    (index, source, span) = after.spans[0]
    assert index == 0
    assert FAQ[source.start : source.end] == after.text
    assert span == Span(0, len(after.text))


def test_a_span_inside_stays_and_counts_as_answered() -> None:
    before = output(FAQ, "五个工作日内")
    after = settled("报销款多久到账？", before, [passage()])
    assert after.text == "五个工作日内"
    assert after.answerable
    assert after == replace(before, answerable=True, p_answerable=1.0)


def test_beneath_a_heading_the_answer_begins_where_the_text_does() -> None:
    after = settled("怎么修改密码", output(FAQ, "新密码至少十位", 0.9), [passage()])
    assert after.text.startswith("登录门户后点头像")


def test_without_such_a_line_nothing_changes() -> None:
    before = output(FAQ, "每天五百元")
    assert settled("食堂几点开门", before, [passage()]) is before
    assert settled("食堂几点开门", before, []) is before


def test_a_long_paragraph_is_cut_at_a_sentence() -> None:
    text = "怎么备份？\n" + "先停止服务，再复制整个目录，最后核对大小。" * 20
    after = settled("怎么备份", output(text, "先停止服务"), [passage(text)])
    assert after.text == "先停止服务", "the reader's own span lies inside"
    after = settled("怎么备份", output(text, "怎么备份"), [passage(text)])
    assert len(after.text) <= 160
    assert after.text.endswith("。")


def test_lists_of_questions_and_tables_are_no_entries() -> None:
    assert not list(entries("目录\n怎么安装？\n怎么卸载？\n怎么升级？"))
    assert not [e for e in entries("项目 | 价格\n门票 | 60元\n讲解 | 30元") if e.heading]


@given(st.text(alphabet="问答：:QA？?。\n甲乙丙12 |", max_size=80), st.text(alphabet="怎么甲乙丙12？", max_size=12))
def test_whatever_is_found_lies_in_the_text(text: str, question: str) -> None:
    for entry in entries(text):
        assert 0 <= entry.question.start < entry.question.end <= entry.body.start < entry.body.end <= len(text)
        assert "\n" not in text[entry.body.start : entry.body.end]
    found = find(question, [passage(text)])
    if found is not None:
        assert 0 < found[0] <= 1
