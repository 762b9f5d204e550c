"""是 or 否 to a yes/no question.

A copied span can answer «可以抽烟吗» only with the sentence that forbids it. Where that sentence's own
clause says 不得, 可以, 无需, 必须 … of what the question asks, the word of the answer follows from it by
rule (`verdict`). Where it does not, the reader may be sure of yes or no; then the word is the one that the
question itself offers (`words`). The word is generated, the sentence cited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.text import key, terms

_YES_NO = re.compile(
    r"(?:[吗么嘛]|了没有?)[?？!！。~～]*$|能不能|可不可以|是不是|是否|有没有|要不要|会不会|需不需要|用不用|行不行|能否|可否|应不应|该不该"
)
_WH = re.compile(r"什么(?!时候都)|怎么|怎样|如何|为什么|哪|谁|多少|几(?!乎)|多久")
_CHOICE = re.compile(r"([能要行会可是有需用应该])(?:不|没)\1")
_NEGATED = re.compile(r"不|没|别(?=[\u4e00-\u9fff])")
_TOPICS: dict[str, str] = {  # how a question asks → which kind of saying answers it
    "need": r"需不需要|要不要|用不用|需要|必须|必需|一定要|非得|非要|得要|是否要|还要|都要|要(?!求|点|是|么)",
    "may": r"能不能|可不可以|能否|可否|可以|允许|能够|能(?!力|源|量|耗)|支持|准许|让(?=[\u4e00-\u9fff])|"
    r"行不行|行吗|可(?=[\u4e00-\u9fff])",
}
_YES = {
    "need": r"必须|须(?!知)|需要|需(?!求)|应当?(?!用|对|届)|一定要|务必",
    "may": r"可以|可(?=[\u4e00-\u9fff])(?!能|靠|行性|见|惜|怕)|能够|能(?!力|源|量|耗|级)|允许|支持|准予|均可|也可",
}
_NO = {
    "need": r"无需|无须|不需要?|不必|不用|毋须|毋需|免[予收交缴填]",
    "may": r"不得|不可(?:以|能)?|不能|不允许|不准|禁止|严禁|无法|不支持|不予|不应|不许|"
    r"谢绝|请勿|切勿|没有办法|暂不",
}
_LIMIT = re.compile(r"除.{1,12}外|未经|除非|只有|如果|若|的话|的情况下|(?:没|未|当|在).{1,15}时(?=[，,])")
"""A condition in the clause or the one before it: no verdict …"""
_DOUBT = re.compile(
    r"不是|并非|根据.{0,8}需要|当.{1,12}时|间接|除外|除非|否则|例外|但|然而|不过|仅|只有|只[能可支适]|才[能可会]|"
    r"原则上|一般|可能|不一定|未必|视|如果|若|的话|未经|不含|以外|之外"
)
"""… nor where the clause limits what it says."""
_WORDS = {"need": ("需要", "不需要"), "may": ("可以", "不可以")}
_CLAUSE = re.compile(r"[，,。；;！!？?\n]")
_STOP = re.compile(
    r"是不是|是否|能不能|可不可以|要不要|需不需要|用不用|能否|可否|可以|需要|必须|允许|支持|能|要|可|吗|么|呢|请问|还|也|都|的|了|吧|我|你们?|您|一定|直接|自己|现在|[?？,，。]"
)
MIN_SHARE = 0.5
"""Share of the question's content characters that the clause must name."""


_DENIES = re.compile(f"{_NO['may']}|{_NO['need']}|没有")
_RESTRICTS = re.compile(
    r"[不没无未别勿禁免]|拒绝|停止|暂停|取消|除外|仅|只[能可限有在]|才[能可会]|谢绝|上限|超过|以上|以下|之前|以前"
)
_OFFERED = re.compile(
    r"可不可以|可以|能不能|能够|能否|能|可否|会不会|会(?!议|员|计|费|长|场|展|籍)|需不需要|需要|用不用|要不要|要(?!求|是|么|点)|"
    r"有没有|有(?!效|关|限|没)|是不是|是否|是|算不算|算|行不行|行吗|对不对|对吗|允许"
)
_PAIRS = {
    "能": ("能", "不能"),
    "会": ("会", "不会"),
    "有": ("有", "没有"),
    "允": ("允许", "不允许"),
    **dict.fromkeys("可行", ("可以", "不可以")),
    **dict.fromkeys("需用要", ("需要", "不需要")),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word that answers, and which code points of the sentence say it."""

    word: str
    start: int
    end: int


def _narrower(subject: str, about: set[str]) -> bool:
    """Whether a subject («有密码的 Word 文件») is a part only of what is asked about («Word 文件»)."""
    modifier, has, _ = subject.rpartition("的")
    return bool(has) and len(set(key(modifier)) - about) >= 3


def asks_yes_no(question: str) -> bool:
    """Whether a question wants 是 or 否."""
    return bool(_YES_NO.search(question.strip())) and not _WH.search(question)


def plausible(yes: bool, quote: str) -> bool:
    """Whether a quotation can bear out the reader's word: no «no» without a word that denies or limits, no «yes» with
    one that denies. A wrong word does more harm than none."""
    return not _DENIES.search(quote) if yes else bool(_RESTRICTS.search(quote))


def asks_twice(question: str) -> bool:
    """Whether two clauses ask for yes or no («能拍照吗，带三脚架行不行»): one word cannot answer both."""
    return sum(bool(_YES_NO.search(clause.strip())) for clause in _CLAUSE.split(question)) > 1


def words(question: str) -> tuple[str, str]:
    """Yes and no as the question asks for them: 能 and 不能, 需要 and 不需要 …, else 是 and 不是."""
    offered = [m for clause in _CLAUSE.split(question) if (m := _OFFERED.search(clause))]
    return _PAIRS.get(offered[-1][0][0], ("是", "不是")) if offered else ("是", "不是")


def verdict(question: str, sentence: str) -> Verdict | None:
    """The word that the sentence says literally; None: it says neither, or not beyond doubt."""
    if not asks_yes_no(question) or _NEGATED.search(_CHOICE.sub("", question)):
        return None
    kind = next((name for name, pattern in _TOPICS.items() if re.search(pattern, question)), None)
    if kind is None:
        return None
    about = set(key(_STOP.sub("", question)))
    best: tuple[float, int, int] | None = None
    at = 0
    for clause in _CLAUSE.split(sentence):
        share = len(about & set(key(clause))) / max(1, len(about))
        if re.search(f"{_NO[kind]}|{_YES[kind]}", clause) and (best is None or share > best[0]):
            best = (share, at, at + len(clause))
        at += len(clause) + 1
    if best is None or best[0] < MIN_SHARE:
        return None
    clause = sentence[best[1] : best[2]]
    before = max((m.start() for m in _CLAUSE.finditer(sentence, 0, max(0, best[1] - 1))), default=0)
    if _LIMIT.search(sentence[before : best[2]]):
        return None
    if _DOUBT.search(clause) or not terms(_STOP.sub("", question)) & terms(clause):
        return None
    no = list(re.finditer(_NO[kind], clause))
    rest = re.sub(_NO[kind], lambda m: "□" * len(m[0]), clause)
    yes = list(re.finditer(_YES[kind], rest))
    if bool(no) == bool(yes) or len(no) > 1 or _narrower(clause[: (no or yes)[0].start()], about):
        return None
    positive, negative = _WORDS[kind]
    if re.search(r"是不是|是否", question):
        positive, negative = "是", "不是"
    elif kind == "may" and "可以" not in question and "能" in question:
        positive, negative = "能", "不能"
    return Verdict(negative if no else positive, best[1], best[2])
