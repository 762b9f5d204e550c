"""Follow-up questions made to stand alone: the model's rewrite where it is sound, rules where it is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rag.references import ORDINAL, named_by_answer, ordinal, questions_asked, topic_of
from rag.smalltalk import remark, without_courtesy
from rag.text import key, terms
from rag.types import Turn


@runtime_checkable
class Rewriter(Protocol):
    """A reader that can rewrite a question by its history."""

    def rewrite(self, question: str, history: Sequence[Turn]) -> str: ...


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question for the reader, and what to search with: (query, weight), the first counts most."""

    question: str
    queries: tuple[tuple[str, float], ...]
    plain: str = ""
    """The question as typed, to be read first; empty where nothing was rewritten."""


_PRONOUN = re.compile(
    r"它们|(?<!其)他们|她们|它|(?<![其吉])他(?!人|项|日|乡|国|山|们)|她|(?<!其)前者|后者|"
    r"这(?:个|些|种|项|款|本书|部|家|位|里|样|事|东西)|(?<!像以前)那(?:个|些|种|项|款|本书|部|家|位|里|样|座)|"
    r"(?:前|后|上)面(?:那|这|的)?(?:个|种|位|座|项)?|上述|刚才(?:说|提到)?的?|"
    r"(?<!应)该(?!如何|怎|不|死)(?=[\u4e00-\u9fff])|(?<![尤极与])其(?!他|它|中|余|实|次|相)|(?<![因对彼])此(?!外|次|时|前|后)"
)
_ELLIPSIS = re.compile(r"^(?:那么?)?(.{1,14}?)(?:的话)?呢[?？。]?$")
_AMOUNT = re.compile(
    r"(?:费用?|价格|价钱|金额|余额|人数|数量|比例|利率|面积|长度|高度|重量|尺寸|期限?|时间|时长|年限)$"
)
_ATTRIBUTE = re.compile(
    _AMOUNT.pattern[:-1]
    + r"$|(?:等级|地址|地点|电话|号码|邮箱|名称|颜色|标准|条件|材料|手续|流程|步骤|办法|方法|原因|要求|规定)$"
)
"""What a thing has, so that «保修期呢» asks for it of the same thing; «香水呢» names another thing."""
_FUNCTION = re.compile(
    r"多少|几(?=[\u4e00-\u9fff])|什么时候|什么|怎么办|怎么|怎样|如何|为什么|为何|哪[里儿些个种]?|谁|是否|能不能|可不可以|是不是|有没有|要不要|"
    r"多[久长远大高深重快]|何时|时间|可以|需要|[吗呢吧的了是有要能会也还]|[?？。!！]"
)
_LEAD_IN = re.compile(r"^(?:顺便(?:再)?问(?:一?下)?|对了|另外|还有|算了|行|好吧?|那我?再问(?:一?下)?)[，,、\s]\s*")
_COMPLETE_TERMS = 5
TALK_WEIGHT = 0.8
"""Weight of the search with the last questions and this one together, beside the rewrite's 1 …"""
TALK_WEIGHT_MODEL = 0.3
"""… and beside a model's rewrite, which names more."""
TALK_QUESTIONS = 4


def followup(question: str) -> bool:
    """Whether the wording alone says that the question leans on what was said before."""
    text = question.strip()
    return bool(_PRONOUN.search(text) or _ELLIPSIS.match(text))


def by_rules(question: str, history: Sequence[Turn]) -> str:
    """The question with what it leans on put in: for the pronoun or ordinal, or in front.

    Pronouns stand for what the last answer named, else for the topic of the latest question that
    had one of its own.
    """
    asked = questions_asked(history)
    text = _LEAD_IN.sub("", without_courtesy(question).strip())
    if not asked or remark(question) or contained(text):
        return question
    if found := ordinal(text, history):
        place, thing = found
        return text[: place.start()] + thing + text[place.end() :]
    topic = _topic(asked)
    if ellipsis := _ELLIPSIS.match(text):
        return _completed(ellipsis[1], asked, topic)
    if pronoun := _PRONOUN.search(text):
        thing = named_by_answer(history) or topic
        if not thing or key(thing) in key(text):
            return text
        return text[: pronoun.start()] + thing + text[pronoun.end() :]
    if not topic or key(topic) in key(text):
        return text
    return f"{topic}，{text}"


def _topic(asked: Sequence[str]) -> str:
    """Topic of the latest question that brought one in: «BCD-400呢» too, «保修期呢» not."""
    for question in reversed(asked):
        match = _ELLIPSIS.match(without_courtesy(question).strip())
        if match and not _ATTRIBUTE.search(match[1]) and not _PRONOUN.search(match[1]):
            return match[1].removesuffix("的")
        if complete(question):
            return topic_of(question)
    return topic_of(asked[0])


def _completed(thing: str, asked: Sequence[str], topic: str) -> str:
    """«X呢» made whole: X as a property of the topic, in the place of the topic, or behind the question before it."""
    anchor = next((q for q in reversed(asked) if complete(q)), asked[0]).strip().strip("。？?！!")
    owner = _ATTRIBUTE.sub("", topic).rstrip("的")
    if owner and _ATTRIBUTE.search(thing) and key(thing) not in key(anchor):
        return f"{owner}的{thing}是多少？" if _AMOUNT.search(thing) else f"{owner}的{thing}是什么？"
    if len(topic) >= 2 and len(topic) == len(thing) and (topic[0] == thing[0] or topic[-1] == thing[-1]):
        return f"{anchor.replace(topic, thing, 1)}？"  # «唐朝的都城在哪里» and «宋朝呢»
    return f"{anchor}，{thing}呢？"


def complete(question: str) -> bool:
    """Whether a question names enough to stand alone and refers to nothing said before."""
    content = _FUNCTION.sub("", without_courtesy(question))
    return (not followup(question) or contained(question)) and len(terms(content)) >= _COMPLETE_TERMS


def contained(question: str) -> bool:
    """Whether a pronoun stands for something that the question itself named before it."""
    match = _PRONOUN.search(question)
    return match is not None and len(terms(_FUNCTION.sub("", question[: match.start()]))) >= _COMPLETE_TERMS + 1


_NEGATIONS = "不没无非未别勿莫否"
_ASKING = {
    "how many": "几|多少|多大|多高|多长|多重|多深|多远|多宽|多快",
    "how long": "多久|多长时间|几天|几年|几个月|几分钟|几小时",
    "when": "什么时候|何时|几点|几月|哪天|哪年|哪一年",
    "who": "谁|哪位|什么人",
    "where": "哪里|哪儿|在哪|何处|什么地方",
    "why": "为什么|为何|为啥|怎么会|原因",
    "how": "怎么|怎样|如何|咋",
}
_BOUND_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9.+#_-]*|\d+(?:[.,:]\d+)*")
_GLUE = set("的在是吗呢有多少什么怎样如何哪个和与跟到对把被让给从用时里中上要能会可以需请这那为了吃做去")
MAX_ADDED = 40
"""Characters that a rewrite may be longer than the question."""


def _asking(text: str) -> set[str]:
    """What kinds of question a text asks, by its question words."""
    return {kind for kind, words in _ASKING.items() if re.search(words, text)}


def sound(rewritten: str, question: str, history: Sequence[Turn]) -> bool:
    """Whether a model's rewrite may replace the question. One doubt is enough to say no; rules then apply.

    It must keep what the question says: its negations, its kind of question, four fifths of its
    characters (pronouns and links aside). Of what it adds, all but an eighth must stand in the talk.
    And it must be `plausible`.
    """
    text = rewritten.strip()
    said = "".join(t.content for t in history) + question
    for sign in _NEGATIONS:
        if question.count(sign) > text.count(sign) or (text.count(sign) > question.count(sign) and sign not in said):
            return False
    wanted = _asking(question)
    return plausible(text, question, history, 0.8, 0.125) and (not wanted or bool(wanted & _asking(text)))


def plausible(rewritten: str, question: str, history: Sequence[Turn], keeps: float = 0.5, adds: float = 0.2) -> bool:
    """Whether a model's rewrite is good enough to search with, beside other queries.

    It keeps the question's numbers, Latin words and the share ``keeps`` of its characters; what it adds
    stands in the talk, every number and Latin word, and of the rest all but the share ``adds``. It
    does not run on, repeat itself, repeat an earlier question, or still lean on the talk.
    """
    text = rewritten.strip()
    if not text or "\n" in text or "\ufffd" in text or len(text) > len(question) + MAX_ADDED:
        return False
    if re.search(r"(.{3,})\1", text) or (followup(text) and not contained(text)):
        return False
    if any(key(text) == key(t.content) for t in history) and key(text) != key(question):
        return False
    said = "".join(t.content for t in history) + question
    bound = {word.lower() for word in _BOUND_WORDS.findall(text)}
    if not {word.lower() for word in _BOUND_WORDS.findall(question)} <= bound:
        return False
    if not bound <= {word.lower() for word in _BOUND_WORDS.findall(said)}:
        return False
    core = key(_PRONOUN.sub("", ORDINAL.sub("", _LEAD_IN.sub("", question))).replace("呢", "").removeprefix("那"))
    kept = set(core) - _GLUE or set(core)
    new = set(key(text))
    if kept and len(kept & new) < keeps * len(kept):
        return False
    added = new - set(key(question))
    return len(added - set(key(said)) - _GLUE) <= adds * len(new)


def standalone(question: str, history: Sequence[Turn], rewriter: object = None) -> Standalone:
    """Make ``question`` stand alone.

    A question that is complete keeps its wording for the reader and stays the heaviest query, so
    that history never makes it worse; no model is asked for it. A follow-up is searched as
    rewritten, and together with the last questions: what rules leave out, those mostly name. (Retrieval
    R@1 of 327 follow-ups in authored_conversations: .37 as typed, .65 by the rewrite alone, .74 by both.)
    """
    plain = question.strip() if remark(question) else without_courtesy(question).strip()
    asked = questions_asked(history)
    if not asked or remark(question):
        return Standalone(plain, ((plain, 1.0),))
    rewritten = by_rules(plain, history)
    if complete(plain):
        return Standalone(plain, ((plain, 1.0), (rewritten, 0.3)) if rewritten != plain else ((plain, 1.0),))
    queries = {rewritten: 1.0}
    talk = TALK_WEIGHT
    if isinstance(rewriter, Rewriter):
        made = rewriter.rewrite(plain, history).strip()
        if made != plain and sound(made, plain, history):
            rewritten, queries, talk = made, {made: 1.0}, TALK_WEIGHT_MODEL
        elif made != plain and plausible(made, plain, history):
            queries.setdefault(made, TALK_WEIGHT)
    queries.setdefault(" ".join([*(q.strip() for q in asked[-TALK_QUESTIONS:]), plain]), talk)
    return Standalone(rewritten, tuple(queries.items()), plain if rewritten != plain else "")
