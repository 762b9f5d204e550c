"""Complete answers: lists whole, table rows with their header, disagreement shown, sentences quoted."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.cite import cite
from rag.compose import (
    Draft,
    alternatives,
    date_of,
    display,
    draft,
    refusal,
    side_by_side,
    supporting_sentence,
    with_alternatives,
)
from rag.text import key, numbers, sentence_around, sentences, terms
from rag.types import Citation, Passage, ReaderOutput, Span


def passage(text: str, number: int = 1, heading: str = "", start: int = 0, page: int | None = None) -> Passage:
    return Passage(
        number, f"d{number}", number, f"文件{number}", f"{number}.txt", page, heading, start, start + len(text), text
    )


def read(shown: list[Passage], quote: str, index: int = 0, score: float = 0.9, **fields: object) -> ReaderOutput:
    """A reader that copied ``quote`` from one passage."""
    at = shown[index].text.index(quote)
    span = (index, Span(at, at + len(quote)), Span(0, len(quote)))
    return ReaderOutput(quote, True, 0.9, score, tuple(0.9 for _ in shown), (span,), **fields)  # type: ignore[arg-type]


def stored(shown: list[Passage]) -> dict[int, str]:
    return {p.version_id: " " * p.char_start + p.text for p in shown}


def made(question: str, shown: list[Passage], quote: str) -> tuple[Draft, list[Citation]]:
    result = draft(question, read(shown, quote), shown, stored(shown))
    citations = cite(result.text, "copied", result.claims, stored(shown))
    assert len(citations) == len(result.claims), "what composing claims must verify"
    return result, list(citations)


STEPS = (
    "重置密码的步骤如下：\n1. 打开登录页，点“忘记密码”。\n2. 输入手机号。\n3. 填写验证码并设置新密码。\n密码至少八位。"
)


def test_a_procedure_is_given_whole() -> None:
    result, _ = made("怎么重置密码？", [passage(STEPS)], "打开登录页，点“忘记密码”")
    assert result.text == "1. 打开登录页，点“忘记密码”。\n2. 输入手机号。\n3. 填写验证码并设置新密码。"


def test_an_introduction_alone_is_completed_by_its_list() -> None:
    result, _ = made("重置密码有哪些步骤", [passage(STEPS)], "重置密码的步骤如下")
    assert result.text.startswith("1. 打开登录页")
    assert result.text.endswith("设置新密码。")


def test_a_question_for_one_fact_stays_short() -> None:
    for question, quote in [("密码至少几位？", "八位"), ("第二步输入什么？", "手机号")]:
        result, _ = made(question, [passage(STEPS)], quote)
        assert result.text == quote


def test_numbered_contract_clauses_are_not_a_procedure() -> None:
    text = "付款与违约\n1. 签约后 5 日内付 30%。\n2. 逾期每日按 0.5‰ 付违约金。\n3. 质保期十二个月。"
    result, _ = made("房租交晚了怎么罚", [passage(text)], "逾期每日按 0.5‰ 付违约金")
    assert result.text == "逾期每日按 0.5‰ 付违约金"


def test_items_of_another_list_are_left_out() -> None:
    text = "申请材料：\n- 身份证\n- 户口本\n办理时间：\n- 周一至周五\n- 上午九点起"
    result, _ = made("申请需要哪些材料？", [passage(text)], "身份证")
    assert result.text == "- 身份证\n- 户口本"


TABLE = "品种 | 区域 | 花期\n紫藤 | 长廊 | 四月\n牡丹 | 东园 | 五月"


def test_a_table_row_comes_with_its_header() -> None:
    result, citations = made("紫藤在哪里、什么时候开", [passage(TABLE)], "紫藤 | 长廊 | 四月")
    assert result.text == "品种 | 区域 | 花期\n紫藤 | 长廊 | 四月"
    assert [c.quote for c in citations] == ["品种 | 区域 | 花期", "紫藤 | 长廊 | 四月"]


def test_a_cell_stays_a_cell_and_is_shown_in_its_row() -> None:
    result, (citation,) = made("牡丹在哪个区域？", [passage(TABLE)], "东园")
    assert result.text == "东园"
    assert supporting_sentence(citation, stored([passage(TABLE)])) == "品种 | 区域 | 花期\n牡丹 | 东园 | 五月"


def test_a_row_that_names_its_columns_is_shown_whole() -> None:
    text = "品种：紫藤；区域：长廊；花期：四月\n品种：牡丹；区域：东园；花期：五月"
    _, (citation,) = made("紫藤的花期？", [passage(text)], "四月")
    assert supporting_sentence(citation, {1: text}) == "品种：紫藤；区域：长廊；花期：四月"


def test_disagreeing_documents_are_shown_side_by_side() -> None:
    shown = [passage("新员工的试用期为三个月，期满转正。"), passage("新员工的试用期为六个月，自入职起算。", 2)]
    six = Span(shown[1].text.index("六个月"), shown[1].text.index("六个月") + 3)
    output = read(shown, "三个月", alternatives=((0.8, 1, six),))
    both = with_alternatives(draft("试用期多久？", output, shown, stored(shown)), output, shown)
    assert both.disagree
    assert both.text == "三个月；六个月"
    citations = cite(both.text, "copied", both.claims, stored(shown))
    assert [c.document_id for c in citations] == ["d1", "d2"]


def test_sentences_alike_but_for_the_answer_disagree_however_sure_the_reader_is() -> None:
    shown = [passage("员工出差的住宿标准为每晚三百元。"), passage("员工出差的住宿标准为每晚四百元。", 2)]
    at = shown[1].text.index("四百元")
    output = read(shown, "三百元", alternatives=((0.05, 1, Span(at, at + 3)),))
    first = draft("住宿标准是多少？", output, shown, stored(shown))
    assert with_alternatives(first, output, shown).text == "三百元；四百元"


@pytest.mark.parametrize(
    ("other", "quote", "number", "score"),
    [
        ("新员工的试用期为三个月整，期满转正。", "三个月整", 2, 0.8),  # says the same
        ("新员工的试用期为六个月，自入职起算。", "六个月", 1, 0.8),  # the same document
        ("新员工的试用期为六个月，自入职起算。", "六个月", 2, 0.3),  # hardly believed
        ("食堂的午餐时间是中午。", "中午", 2, 0.8),  # about something else
        ("新员工的试用期见第12页，期满转正。", "第12页", 2, 0.8),  # of another kind
    ],
)
def test_what_is_no_disagreement(other: str, quote: str, number: int, score: float) -> None:
    shown = [passage("新员工的试用期为三个月，期满转正。"), passage(other, number)]
    at = other.index(quote)
    output = read(shown, "三个月", alternatives=((score, 1, Span(at, at + len(quote))),))
    first = draft("试用期多久？", output, shown, stored(shown))
    assert with_alternatives(first, output, shown) == first


def test_a_short_answer_never_stands_alone_for_people() -> None:
    shown = [passage("甲方付款。质保期为十八个月，自验收之日起算。乙方交货。")]
    result, citations = made("质保期多久", shown, "十八个月")
    text = display(result.text, citations, stored(shown), supporting=True)
    assert text == "十八个月[1]\n\n原文：「质保期为十八个月，自验收之日起算。」[1]"
    assert display(result.text, citations, stored(shown), supporting=False) == "十八个月[1]"


def test_a_sentence_is_not_said_twice() -> None:
    shown = [passage("质保期为十八个月，自验收之日起算。")]
    result, citations = made("质保期多久", shown, "质保期为十八个月，自验收之日起算")
    assert "原文" not in display(result.text, citations, stored(shown), supporting=True)


def test_a_refusal_names_the_nearest_passages() -> None:
    text = refusal("资料中没有找到。", [passage("年假五天。", page=3), passage("印" * 90, 2)])
    assert text.splitlines()[0] == "资料中没有找到。"
    assert "1. 《文件1》 第 3 页：年假五天。" in text
    assert "…" in text.splitlines()[-1]
    assert refusal("资料中没有找到。", []) == "资料中没有找到。"


@given(text=st.text(alphabet="甲乙丙。，；！\n 1a“”", min_size=1, max_size=400), data=st.data())
def test_the_sentence_around_a_span_holds_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    around = sentence_around(text, start, end, limit=50)
    assert text[start:end].strip() in text[around.start : around.end]
    assert around.end - around.start <= max(50, end - start)


@given(text=st.text(max_size=200))
def test_sentences_cover_all_but_white_space(text: str) -> None:
    spans = sentences(text)
    covered = "".join(text[s.start : s.end] for s in spans)
    assert "".join(covered.split()) == "".join(text.split())
    assert all(a.end <= b.start for a, b in pairwise(spans))


@settings(deadline=None)
@given(text=st.text(max_size=200), question=st.text(max_size=40), data=st.data())
def test_composing_never_claims_what_does_not_verify(text: str, question: str, data: st.DataObject) -> None:
    shown = [passage(text + "。1. 甲\n2. 乙 | 丙\n")]
    start = data.draw(st.integers(0, len(shown[0].text) - 1))
    end = data.draw(st.integers(start + 1, len(shown[0].text)))
    for asked in (question, question + "有哪些步骤"):
        quote = shown[0].text[start:end]
        output = ReaderOutput(quote, True, 1, 1, (1.0,), ((0, Span(start, end), Span(0, len(quote))),))
        result = draft(asked, output, shown, stored(shown))
        citations = cite(result.text, "copied", result.claims, stored(shown))
        assert len(citations) == len(result.claims) >= 1
        display(result.text, citations, stored(shown), supporting=True)


def test_terms_numbers_and_keys() -> None:
    assert terms("年假5天 OK") == {"年假", "5", "天", "ok"}
    assert numbers("共１,２００元，3.5%") == {"1200", "3.5"}
    assert key("Ａ级：3.5 %！") == "a级3.5%"


def test_each_item_of_a_list_is_cited_by_itself() -> None:
    _, citations = made("怎么重置密码？", [passage(STEPS)], "打开登录页，点“忘记密码”")
    assert [c.quote for c in citations] == [
        "1. 打开登录页，点“忘记密码”。",
        "2. 输入手机号。",
        "3. 填写验证码并设置新密码。",
    ]
    assert [c.marker for c in citations] == [1, 2, 3]


def test_yes_or_no_is_said_where_the_sentence_says_it() -> None:
    text = "阅览室规定如下。\n阅览室内不得饮食。存包柜可以免费使用两小时。"
    result, (citation,) = made("在阅览室内可以饮食吗？", [passage(text)], "不得饮食")
    assert result.text == "不可以：阅览室内不得饮食。"
    assert result.generated == (Span(0, 4),)
    assert citation.quote == "阅览室内不得饮食。"
    plain, _ = made("阅览室几点开门？", [passage(text)], "两小时")
    assert (plain.text, plain.generated) == ("两小时", ())


def test_disagreement_is_shown_with_sources_and_dates() -> None:
    old = "试用期管理办法\n发布日期：2021年3月1日\n新员工的试用期为三个月，期满转正。"
    new = "新员工的试用期为六个月，自入职起算。\n本办法自2024年7月起施行。"
    shown = [passage(old), passage(new, 2, page=4)]
    at = new.index("六个月")
    output = read(shown, "三个月", alternatives=((0.8, 1, Span(at, at + 3)),))
    both = with_alternatives(draft("试用期多久？", output, shown, stored(shown)), output, shown)
    citations = cite(both.text, "copied", both.claims, stored(shown))
    text = alternatives(both.text, citations, stored(shown), supporting=True)
    assert text.splitlines() == [
        "不同资料的说法不一致：",
        "",
        "- 三个月[1]（《文件1》，2021年3月1日）",
        "- 六个月[2]（《文件2》 第 4 页，2024年7月）",
        "",
        "原文：「新员工的试用期为三个月，期满转正。」[1]",
        "",
        "原文：「新员工的试用期为六个月，自入职起算。」[2]",
    ]
    assert "原文" not in alternatives(both.text, citations, stored(shown), supporting=False)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("公司成立于1998年，员工三百人。", ""),
        ("本规定自 2025 年 1 月 1 日起施行。", "2025 年 1 月 1 日"),
        ("更新：2024-05-06\n正文", "2024-05-06"),
        ("正文。\n\n云川市档案馆\n2023年11月2日\n", "2023年11月2日"),
    ],
)
def test_the_date_that_a_document_gives_for_itself(text: str, date: str) -> None:
    result, (citation,) = made("", [passage(text)], text[:2])
    assert result.text == text[:2]
    assert date_of(citation, {1: text}) == date


def test_answers_for_several_things_stand_side_by_side() -> None:
    shown = [passage("紫藤四月开花。"), passage("牡丹到五月才开花。", 2)]
    drafts = [
        draft("紫藤什么时候开花？", read(shown, "四月"), shown, stored(shown)),
        draft("牡丹什么时候开花？", read(shown, "五月", 1), shown, stored(shown)),
    ]
    both = side_by_side(["紫藤", "牡丹"], drafts)
    assert both.text == "紫藤：四月；牡丹：五月"
    assert [both.text[s.start : s.end] for s in both.generated] == ["紫藤：", "牡丹："]
    citations = cite(both.text, "copied", both.claims, stored(shown))
    assert [(c.quote, c.document_id) for c in citations] == [("四月", "d1"), ("五月", "d2")]
    assert display(both.text, citations, stored(shown), supporting=False) == "紫藤：四月[1]；牡丹：五月[2]"


def test_one_sentence_that_says_both_is_quoted_whole() -> None:
    shown = [passage("名录。紫藤和牡丹分别在四月和五月开花。")]
    drafts = [draft("", read(shown, quote), shown, stored(shown)) for quote in ("四月", "五月")]
    both = side_by_side(["紫藤", "牡丹"], drafts)
    assert both.text == "紫藤和牡丹分别在四月和五月开花。"
    assert both.generated == ()


@pytest.mark.parametrize(
    ("says", "quote", "lead"),
    [
        (False, "满一年未用的，余额转入公共账户", "不是："),
        (False, "余额转入公共账户", ""),  # nothing in it denies or limits
        (True, "余额转入公共账户", "是："),
        (True, "转入后不支持线上使用", ""),  # it denies
        (None, "满一年未用的，余额转入公共账户", ""),
    ],
)
def test_yes_or_no_where_the_reader_is_sure(says: bool | None, quote: str, lead: str) -> None:
    shown = [passage("充值卡满一年未用的，余额转入公共账户。转入后不支持线上使用。")]
    result = draft("充值卡放了两年还算有效吗？", read(shown, quote, verdict=says), shown, stored(shown))
    assert result.text == lead + quote
    assert result.generated == ((Span(0, len(lead)),) if lead else ())
    (citation,) = cite(result.text, "copied", result.claims, stored(shown))
    assert (citation.quote, citation.answer_start) == (quote, len(lead))


def test_what_the_sentence_says_literally_goes_before_the_reader() -> None:
    shown = [passage("阅览室内不得吃东西。")]
    said = draft("阅览室里可以吃东西吗？", read(shown, "不得吃东西", verdict=True), shown, stored(shown))
    assert said.text == "不可以：阅览室内不得吃东西。"


def test_no_verdict_on_other_questions() -> None:
    both = [passage("可以带伞，不可以带宠物。")]
    asked = "能带伞吗，带宠物行不行？"
    assert draft(asked, read(both, "可以带伞", verdict=True), both, stored(both)).text == "可以带伞"
    shown = [passage("展厅九点开门。")]
    assert draft("展厅几点开门？", read(shown, "九点", verdict=True), shown, stored(shown)).text == "九点"
