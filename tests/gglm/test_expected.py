"""What form an answer must have, and cutting a reader's candidate down to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.expected import expected, fit
from gglm.types import SourceSpan, SpanCandidate


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("租金多少钱一个月", ["58元", "¥1,200", "五百元以上二千元以下", "20元/台", "38.6万元"]),
        ("罚款金额是多少", ["二百元", "3万元以上10万元以下"]),
        ("托管费率多少", ["0.05%", "5‰", "百分之三点五", "千分之二", "1.5 %"]),
        ("质保多久", ["18 个月", "三年", "半年", "24小时", "3—5个工作日", "15日"]),
        ("几个工作日内办结", ["5个工作日"]),
        ("讲解每天几点开始", ["10:00、14:30", "下午两点半", "22:30至次日6:00"]),
        ("哪年合并的", ["1996年", "公元前221年"]),
        ("头一批货哪天交", ["6月10日", "2026 年 5 月 25 日", "每月1—5日", "周一"]),
        ("一年最多几回", ["2次", "两次"]),
        ("满多少页盖骑缝章", ["5页", "5 页"]),
        ("面积有多少平方米", ["4998平方米", "约4.81万平方米"]),
        ("来了多少观众，多少人", ["8,912人", "三百名"]),
        ("烤箱预热到多少度", ["190℃", "180 度", "45°"]),
    ],
)
def test_the_form_of_figures(question: str, answers: list[str]) -> None:
    pattern = expected(question)
    assert pattern is not None
    for answer in answers:
        match = pattern.search(answer)
        assert match is not None, answer
        assert match.group().strip() == answer


@pytest.mark.parametrize(
    "question",
    ["谁保管公章", "怎么申请退款", "分为哪几个部分", "哪几种口味", "楚塘博物馆的特展叫什么名字", "能带宠物吗", ""],
)
def test_wording_that_names_no_form(question: str) -> None:
    assert expected(question) is None


@pytest.mark.parametrize(
    "question", ["钱要几点前到账？没存够有什么后果", "多久能好，坏了找谁", "什么条件能退，几天内到账"]
)
def test_a_question_for_two_things_wants_no_figure_alone(question: str) -> None:
    assert expected(question) is None


@pytest.mark.parametrize(
    "question",
    [
        "不管什么原因，退款几天到账？", "无论在哪里下单，几天发货？", "没什么问题的话，几天到账？",
        "我不知道怎么办理，补卡要多少钱？", "谁来办都行，要多少钱？", "你好，在吗？几点开门？",
    ],
)  # fmt: skip
def test_a_clause_that_asks_nothing_leaves_the_figure_wanted(question: str) -> None:
    assert expected(question) is not None


def cut(question: str, text: str, *quotes: str) -> str | None:
    """What is left of the likeliest fitting candidate; candidates are given by their wording."""
    found = fit(question, [text], [candidate(text, text.index(q), len(q), -0.1 * i) for i, q in enumerate(quotes)])
    if found is None:
        return None
    assert found.text == text[found.span.start : found.span.end]
    return found.text


def candidate(text: str, start: int, length: int, score: float = 0.0) -> SpanCandidate:
    return SpanCandidate(SourceSpan(0, start, start + length), text[start : start + length], score)


TEXT = "一台热风炉，单价52,000 元，质保18个月。轴承、皮带等易损件6个月。乙方接报修后24小时内到场。"


def test_a_long_candidate_is_cut_to_its_figure() -> None:
    assert cut("皮带保多长时间？", TEXT, "轴承、皮带等易损件6个月。乙方接报修") == "6个月"


def test_of_several_figures_the_one_by_the_asked_words_is_taken() -> None:
    assert cut("易损件保修多久", TEXT, TEXT) == "6个月"
    assert cut("报修后多久到场", TEXT, TEXT) == "24小时内"[:4]


def test_a_candidate_without_the_form_gives_way_to_the_next() -> None:
    assert cut("热风炉一台多少钱", TEXT, "质保18个月", "热风炉，单价52,000 元") == "52,000 元"


def test_a_figure_cut_off_by_the_reader_is_completed() -> None:
    assert cut("热风炉一台多少钱", TEXT, "52,0") == "52,000 元"


def test_a_candidate_that_is_little_more_than_its_figure_stays() -> None:
    assert cut("单表最多几个索引", "单表索引不超过 6 个，主键除外。", "不超过 6 个") == "不超过 6 个"


def test_a_candidate_that_begins_inside_a_word_is_cut() -> None:
    storage = "仓储费按每平方米30元收取，次年起另议。"
    assert cut("仓库每平多少钱", storage, "方米30元") == "30元"
    assert cut("仓库每平多少钱", storage, "按每平方米30元") == "30元", "more than a word beside its figure"
    assert cut("每月哪几天不办", "盘点：每月1—5日停办。", "每月1—5日") == "每月1—5日"


def test_nothing_fits() -> None:
    assert cut("热风炉一台多少钱", TEXT, "轴承、皮带") is None, "another sentence"
    assert cut("热风炉一台多少钱", TEXT, "质保") == "52,000 元", "the same sentence"
    assert cut("谁来维修", TEXT, "乙方") is None, "the wording names no form"
    assert fit("多少钱", [TEXT], []) is None
    at = TEXT.index("轴承")
    unlikely = candidate(TEXT, TEXT.index("52,000"), 8, -4.6)
    assert fit("热风炉一台多少钱", [TEXT], [candidate(TEXT, at, 2), unlikely]) is None


def test_ranges_and_reigns_stay_whole() -> None:
    assert cut("海拔多少米", "此花生于海拔300米至1,800米的山地。", "生于海拔300米至1,800米的山地") == "300米至1,800米"
    born = "作者生于嘉靖九年（1530年）三月，卒年不详。"
    assert cut("作者生于哪一年", born, "嘉靖九年（1530年）三月") == "嘉靖九年（1530年）三月"


@given(
    text=st.text(alphabet="甲乙0123456789元年月日,.，。个 \n", min_size=1, max_size=120),
    question=st.sampled_from(["多少钱", "多久", "几个月", "哪天", "几点", "多少人"]),
    data=st.data(),
)
def test_what_comes_back_is_a_figure_of_the_text(text: str, question: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    found = fit(question, [text], [candidate(text, start, end - start)])
    if found is not None:
        pattern = expected(question)
        assert pattern is not None
        assert pattern.search(found.text)
        assert found.text == text[found.span.start : found.span.end]


def test_a_hostile_text_is_read_at_once() -> None:
    import time

    begin = time.perf_counter()
    for question in ("多少钱", "多久", "哪天", "几点", "多少人"):
        for text in ("1" * 5000, "一" * 5000, "1年" * 2500, "10:00、" * 1000, "约第" * 2500):
            fit(question, [text], [candidate(text, 2000, 1)])
    assert time.perf_counter() - begin < 5
