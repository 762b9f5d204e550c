"""What form an answer must have, by the wording of its question: an amount, a length of time, a date …

A small reader finds the right place more often than the right ends. Where the question itself says
what is wanted («几个月», «多少钱»), the figure in that place is the answer, and a place without one
is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from gglm.text import normalize
from gglm.types import Source, SourceSpan, SpanCandidate

MISFIT = 0.5
"""What is left of p_answerable where the question asks for a figure and no likely place holds one.
Of such questions, one in twenty has an answer all the same (CMRC and authored dev sets)."""

_DIGITS = r"\d[\d,，]*(?:\.\d+)?"
_HAN = "[零〇一二两三四五六七八九十百千万半]"
_NUMBER = rf"(?:{_DIGITS}|{_HAN}+)(?:\s?[百千万亿]{{1,2}})?"
_TO = r"\s?(?:——|[—–\-~～至到])\s?"
_RANGE = rf"(?:第|约|近)?{_NUMBER}(?:{_TO}{_NUMBER})?"
_BOUND = r"(?:以上|以下|以内|之内|左右)?"


def _amount(unit: str) -> str:
    """A number or range with a unit: «5元», «3—5元», «200米至300米», «五百元以上二千元以下»."""
    one = rf"{_RANGE}\s?[余多来]?(?:{unit}){_BOUND}"
    return rf"{one}(?:(?:{_TO}|(?<=[上下])\s?){one})?"


_MONEY = rf"[¥￥$]\s?{_RANGE}|{_amount('元|块钱|块|美元|港元|欧元|角')}(?:/{_HAN}?\w)?"
_PERCENT = rf"{_RANGE}\s?[%％‰]|[百千万]分之{_HAN}+(?:点{_HAN}+)?|{_HAN}成(?!立|为|员)"
_LENGTH = _amount(
    "个?工作日|个?自然日|[个個]?星期|[个個]?小[时時]|[个個]?半?月|周年|周岁|分[钟鐘]|秒[钟鐘]?|学年|周|天|日|年|刻钟"
)
_PART_OF_DAY = "(?:上午|下午|晚上?|中午|凌晨|早上?|次日)?"
_CLOCK = rf"{_PART_OF_DAY}(?:\d{{1,2}}[:：]\d{{2}}|{_NUMBER}[点时](?:半|{_NUMBER}分?)?)"
_CLOCKS = rf"(?:每[天日周]|周{_HAN})?\s?{_CLOCK}(?:{_TO}{_CLOCK})?(?:、{_CLOCK})*"
_DAY = rf"{_NUMBER}(?:{_TO}{_NUMBER})?\s?[日号]"
_YEAR = rf"(?:公元前?\s?{_NUMBER}|前{_DIGITS}|\d{{3,4}}|[零〇一二三四五六七八九]{{3,4}})\s?年"
_ERA = r"[\u4e00-\u9fff]{2}[元一二三四五六七八九十]{1,4}年"
"""A year as its reign counted it, beside the common one: «嘉靖四十四年（1565年）»."""
_DATE = (
    rf"{_ERA}\s?[（(](?:公元)?{_YEAR}[）)](?:\s?{_NUMBER}\s?月(?:\s?{_DAY})?)?|"
    rf"{_YEAR}(?:\s?{_NUMBER}\s?月)?(?:\s?{_DAY})?|"
    rf"(?:每年|次年)?{_NUMBER}\s?月(?!内|之内|以[内上下])(?:\s?{_DAY})?|每[年月季周]{_DAY}|次月{_DAY}|"
    rf"{_DAY}(?!内|之内|以[内上下]|前|后|无|未)|"
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|每?(?:周|星期|礼拜)[一二三四五六日天]"
)
_DATES = rf"(?:{_DATE})(?:{_TO}(?:{_DATE}))?"
FORMS = {name: re.compile(form) for name, form in (
    ("money", _MONEY), ("percent", _PERCENT), ("length", _LENGTH), ("date", _DATES), ("clock", _CLOCKS)
)}  # fmt: skip
"""The forms by name, to find figures with."""
_UNITS = {  # how a question may name a unit → how its answer may
    "回": "次回",
    "趟": "趟次班",
    "天": "天日",
    "岁": "岁",
    "口": "口人",
    "名": "名人位",
    "个人": "人名位",
    "人": "人名位",
    "块": "元块",
    "米": "米",
    "页": "页",
    "遍": "遍次",
    "度": "度℃°",
}
_MEASURE = (
    "[个名人位次回趟遍页张份台部辆架件套款种类项条款章节级层楼座栋家所门"
    "匹头只支本册卷枚颗粒斤克吨米里亩度倍届期代站班集岁口队升度瓶箱包袋户]"
)
_LONG_UNITS = "平方米|平方公里|平方千米|立方米|公里|千米|厘米|毫米|公斤|千克|公顷|毫升|人次"

_PRICE_Q = re.compile(r"(?<!付)(?<!收)多少钱|几[块元]|多少[块元]|什么价|几[百千万](?!年|人|名|米|亩|字)")
_MONEY_Q = re.compile(
    r"多少(?:费用|钱)|(?:价格|费用|租金|押金|罚款|金额|工资|单价|总价|总额|收费|运费)(?:(?:是|为|要|得|交|收)?(?:多少|几)|[?？]?$)|"
    r"(?:罚|赔|付|交|收|涨|降)多少[?？]?$"
)
_PERCENT_Q = re.compile(r"百分之几|百分之多少|(?:比例|利率|费率|税率|概率|折扣|占比)(?:是|为|有)?(?:多少|几)|几成")
_LENGTH_Q = re.compile(
    r"多久|多长时间|(?<!哪)(?:几|多少)(?:个)?(?:工作日|自然日|小[时時]|月(?!份)|星期|分钟|天|日(?!期)|年(?!级|前)|周|秒)"
)
_CLOCK_Q = re.compile(r"几点|哪两个点|哪个时段|哪几个时段")
_DATE_Q = re.compile(r"哪(?:一)?[天年](?!到)|几月|哪(?:一)?个?月|何时|何年|哪几天|哪日|(?:是|在|从)什么时候")
_COUNT_Q = re.compile(rf"(?<!哪)(?:几|多少)\s?({_LONG_UNITS}|{_MEASURE})")


_NO_FIGURE = re.compile(r"什么(?!时候)|怎么|怎样|如何|为什么|为何|谁|哪[里儿些]|啥(?!时候)|咋|[吗么]$")
_ASIDE = re.compile(r"不管|无论|不论|没什么|没啥|不知道|都行|都可以|在吗|你好|您好")
"""A clause that asks nothing, question word or not: «不管什么原因», «在吗»."""
_PART = re.compile(r"[，,、？?；;。]")


@lru_cache(maxsize=256)
def expected(question: str) -> re.Pattern[str] | None:
    """The pattern that the answer's core must match; None: the wording does not say, or asks two things
    («几点前到账？没存够有什么后果»), which one figure does not answer.
    """
    form = _form(question)
    parts = [part.strip() for part in _PART.split(question) if not _ASIDE.search(part)] if form else []
    if any(_NO_FIGURE.search(part) and not _form(part) for part in parts) and any(map(_form, parts)):
        return None
    return re.compile(form) if form else None


def _form(question: str) -> str | None:
    if _PRICE_Q.search(question):
        return _MONEY
    if _MONEY_Q.search(question):
        return f"{_MONEY}|{_PERCENT}"
    if _PERCENT_Q.search(question):
        return _PERCENT
    if _CLOCK_Q.search(question):
        return _CLOCKS
    if _LENGTH_Q.search(question):
        return _LENGTH
    if _DATE_Q.search(question):
        return f"{_DATES}|{_CLOCKS}"
    if match := _COUNT_Q.search(question):
        unit = match[1]
        return _amount(f"[{_UNITS.get(unit, unit)}]" if len(unit) == 1 else unit)
    return None


FLOOR = 0.05
"""A candidate less likely than this, beside the best, is not looked at."""
MARGIN = 3
"""Characters that a candidate may hold beside its figure."""
_SENTENCE_END = "。！？!?\n"
_MAX_SENTENCE = 160
_CLAUSE = "，,。；;：:\n"
_HAN_CHARACTER = re.compile("[\u4e00-\u9fff]")
_LIMITING = re.compile("[不未至最每约近超逾满达共仅只前后首次当同翌本今去明上下整第多少高低大]")


def fit(question: str, texts: Sequence[str], candidates: Sequence[SpanCandidate]) -> SpanCandidate | None:
    """The likeliest candidate that has the expected form, cut down to it, or the figure beside one that
    has not; None: leave the answer alone.

    A candidate that is little more than the figure stays whole («每月1—5日», «不超过6个»), unless it begins
    inside a word («每平|方米30元»).
    """
    pattern = expected(question)
    if pattern is None or not candidates:
        return None
    about = set(_plain(question))
    least = max(c.score for c in candidates) + math.log(FLOOR)
    likely = [c for c in candidates if c.score >= least]
    for beside in (False, True):  # a figure in the candidate, else one in the same sentence
        for candidate in likely:
            span, text = candidate.span, texts[candidate.span.source]
            left, right = sentence_of(text, span)
            found = [
                (left + m.start(), left + m.end())
                for m in pattern.finditer(text[left:right])
                if beside or (left + m.start() < span.end and span.start < left + m.end())
            ]
            if not found:
                continue
            start, end = max(found, key=lambda m: (_shared(about, text, m[0], m[1]), -abs(m[0] - span.start)))
            extra = len(_plain(text[span.start : span.end])) - len(_plain(text[start:end]))
            if span.start <= start and end <= span.end and extra <= MARGIN:
                end = span.end
                if not _cuts_a_word(text, span.start, start):
                    start = span.start
            return SpanCandidate(SourceSpan(span.source, start, end), text[start:end], candidate.score)
    return None


def _cuts_a_word(text: str, start: int, figure: int) -> bool:
    """Does a span begin amid Chinese characters, with more before its figure than a word that limits it?"""
    before, lead = text[max(0, start - 1) : start], text[start:figure]
    return bool(lead and _HAN_CHARACTER.match(before) and _HAN_CHARACTER.match(lead) and not _LIMITING.match(lead))


def _shared(about: set[str], text: str, start: int, end: int) -> int:
    """How many of the asked characters stand in the words before a figure, back to the last clause mark."""
    clause = max(text.rfind(mark, 0, start) for mark in _CLAUSE) + 1
    return len(about & set(_plain(text[clause:end])))


def sentence_of(text: str, span: SourceSpan) -> tuple[int, int]:
    """The sentence(s) that hold a span, no more than `_MAX_SENTENCE` characters to either side; a semicolon
    ends one only where it would be too long.
    """
    for marks in (_SENTENCE_END, _SENTENCE_END + "；;"):
        left = max(text.rfind(mark, 0, span.start) for mark in marks) + 1
        ends = [at for mark in marks if (at := text.find(mark, max(span.start, span.end - 1))) >= 0]
        right = max(span.end, min(ends, default=len(text)))
        if right - left <= _MAX_SENTENCE:
            break
    return max(left, span.start - _MAX_SENTENCE), min(right, span.end + _MAX_SENTENCE)


def _plain(text: str) -> str:
    """Text to compare by: letters, digits and the signs that change a value."""
    return "".join(c for c in normalize(text).lower() if c.isalnum() or c in "%‰.+-°")


def fitted(
    question: str, sources: Sequence[Source], candidates: tuple[SpanCandidate, ...]
) -> tuple[tuple[SpanCandidate, ...], float]:
    """Candidates with the figure that the question asks for ahead, and what is left of the belief in them."""
    pattern = expected(question)
    if pattern is None or not candidates:
        return candidates, 1.0
    figure = fit(question, [s.text for s in sources], candidates)
    chosen = figure or candidates[0]
    others = (c for c in candidates if pattern.search(c.text) and not _overlap(c.span, chosen.span))
    return (chosen, *others), 1.0 if figure else MISFIT


def _overlap(one: SourceSpan, other: SourceSpan) -> bool:
    return one.source == other.source and one.start < other.end and other.start < one.end
