"""Follow-up questions made to stand alone: the model's rewrite where it is sound, rules where it is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rag.smalltalk import classify, without_courtesy
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
    """The question as typed, to be read where the rewrite finds nothing; empty: do not."""


_PRONOUN = re.compile(
    r"它们|(?<!其)他们|她们|它|(?<![其吉])他(?!人|项|日|乡|国|们)|她|(?<!其)前者|后者|"
    r"这(?:个|些|种|项|款|本书|部|家|位|里|样|事|东西)|那(?:个|些|种|项|款|本书|部|家|位|里|样|座)|"
    r"(?:前|后|上)面(?:那|这|的)?(?:个|种|位|座|项)?|上述|刚才(?:说|提到)?的?|"
    r"(?<!应)该(?!如何|怎|不|死)(?=[\u4e00-\u9fff])|(?<![尤极与])其(?!他|它|中|余|实|次)|(?<!因)此(?!外|次|时)"
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
_TOPIC_END = re.compile(
    r"怎么|怎样|如何|为什么|为何|什么|多少|多[久长远大高深重快]|几|哪|谁|是否|能不能|可不可以|是不是|有没有|要不要|可以|能(?!力|源|量)|会(?!议|员|计|费)|"
    r"应该|应当|需要|必须|要(?!求|点)|允许|适合|有(?!限|关)|是|占|在(?!线|职|校)|吗|呢|(?<=[\u4e00-\u9fff]{2})的(?=.{0,6}(?:是|叫|有|多|几|怎|什))"
)
_LEAD = re.compile(
    r"^(?:请(?:问|介绍一下|介绍|告诉我|说说)?|介绍一下|我(?:想|要)(?:问|了解|知道)?(?:一下)?|在|如何|怎么|怎样|什么是|为什么|哪些|什么|几个月|可以|能|你们|这个|这款|该)+"
)
_COMPLETE_TERMS = 5


def followup(question: str) -> bool:
    """Whether the wording alone says that the question leans on what was said before."""
    text = question.strip()
    return bool(_PRONOUN.search(text) or _ELLIPSIS.match(text))


def topic_of(question: str) -> str:
    """What a question is about, by its wording: «扫地机器人» of «扫地机器人怎么充电？»; may be empty."""
    text = _LEAD.sub("", without_courtesy(question).strip().strip("。？?！!"))
    match = _TOPIC_END.search(text, 2) if len(text) > 2 else None
    topic = text[: match.start()] if match else text
    return topic.strip("，, 的").strip() if len(topic) <= 24 else ""


def by_rules(question: str, history: Sequence[Turn]) -> str:
    """The question with the topic of the talk put in: for the pronoun, or in front.

    The topic comes from the latest question that was complete by itself.
    """
    asked = _asked(history)
    if not asked:
        return question
    text = without_courtesy(question).strip()
    anchor = next((q for q in reversed(asked) if complete(q)), asked[0])
    topic = topic_of(anchor)
    if match := _ELLIPSIS.match(text):
        thing = _ATTRIBUTE.sub("", topic).rstrip("的")
        if thing and _ATTRIBUTE.search(match[1]) and key(match[1]) not in key(anchor):
            return f"{thing}的{match[1]}是多少？" if _AMOUNT.search(match[1]) else f"{thing}的{match[1]}是什么？"
        return f"{anchor.strip().strip('。？?！!')}，{match[1]}呢？"
    if not topic or key(topic) in key(text):
        return question
    if match := _PRONOUN.search(text):
        return text[: match.start()] + topic + text[match.end() :]
    return f"{topic}，{text}"


def complete(question: str) -> bool:
    """Whether a question names enough to stand alone and refers to nothing said before."""
    content = _FUNCTION.sub("", without_courtesy(question))
    return not followup(question) and len(terms(content)) >= _COMPLETE_TERMS


def _asked(history: Sequence[Turn]) -> list[str]:
    return [t.content for t in history if t.role == "user" and t.content.strip() and not classify(t.content)]


def sound(rewritten: str, question: str, history: Sequence[Turn]) -> bool:
    """Whether a model's rewrite may replace the question.

    It must keep what the question says (pronouns and links aside), draw what it adds from the
    history, and not run on.
    """
    text = rewritten.strip()
    if not text or len(text) > len(question) + 40:
        return False
    kept = set(key(_PRONOUN.sub("", question).replace("呢", "").removeprefix("那")))
    new = set(key(text))
    known = set(key(question + "".join(t.content for t in history))) | set("的在是吗呢有多少什么怎")
    if kept and len(kept & new) < 0.75 * len(kept):
        return False
    return len(new - known) <= 0.15 * len(new)


def standalone(question: str, history: Sequence[Turn], rewriter: object = None) -> Standalone:
    """Make ``question`` stand alone.

    A question that is complete keeps its wording for the reader and stays the heaviest query, so
    that history never makes it worse; a follow-up is searched both rewritten and as it was typed
    beside the question before it.
    """
    plain = without_courtesy(question).strip()
    asked = _asked(history)
    if not asked:
        return Standalone(plain, ((plain, 1.0),))
    rewritten = by_rules(plain, history)
    if isinstance(rewriter, Rewriter):
        made = rewriter.rewrite(plain, history).strip()
        if made != plain and sound(made, plain, history):
            rewritten = made
    if complete(plain):
        return Standalone(plain, ((plain, 1.0), (rewritten, 0.3)) if rewritten != plain else ((plain, 1.0),))
    queries = {rewritten: 1.0}
    for query, weight in ((f"{asked[-1].strip()} {plain}", 0.6), (plain, 0.4)):
        queries.setdefault(query, weight)
    again = plain if rewritten != plain and not followup(plain) else ""
    return Standalone(rewritten, tuple(queries.items()), again)
