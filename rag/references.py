"""What the pronouns and ordinals of a follow-up stand for, by the wording of the talk before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.smalltalk import classify, without_courtesy
from rag.text import key
from rag.types import Turn

_TOPIC_END = re.compile(
    r"怎么|怎样|如何|为什么|为何|什么|多少|多[久长远大高深重快早]|几|哪|谁|是否|能不能|可不可以|是不是|有没有|要不要|行不行|可以|能(?!力|源|量)|会(?!议|员|计|费)|"
    r"应该|应当|需要|必须|要(?!求|点)|允许|适合|有(?!限|关)|是|占|在(?!线|职|校)|吗|呢|找(?=谁)|去(?=哪)|"
    r"(?<=[\u4e00-\u9fff]{2})的(?=.{0,6}(?:是|叫|有|多|几|怎|什|在哪))"
)
_LEAD = re.compile(
    r"^(?:请(?:问|介绍一下|介绍|告诉我|说说)?|介绍一下|我(?:想|要)(?:问|了解|知道)?(?:一下)?|在|如何|怎么|怎样|什么是|为什么|有?哪几?[些种个款]|什么|几个月|可以|能|你们|这个|这款|该|我家|我)+"
)
_TRAIL = re.compile(
    r"(?:平时|一般|现在|到底|究竟|最[多少长快早晚]|通常|每次|每[天年月周]|一共|总共|大概|还|都|又|里面?|上|期间|就|也|只)+$"
)
_ASKS_NAME = re.compile(
    r"(?:是|叫|为|选|推荐)(?:的是)?(?:谁|什么|哪[一个位座家种部款本只]?)|^(?:谁|哪[个位座家种部款本只])|哪[个位座家种部款本只一]"
)
_ASKS_WHO_IT_IS = re.compile(r"^(?:那么?)?[^的]{1,10}(?:到底|究竟)?是(?:谁|什么|啥)[?？。啊呀]*$")
"""«张衡是谁»: what follows is about the one asked after, not about what the answer calls him."""
_NAMED = re.compile(r"(?:是|为|叫做?|名叫)(?P<name>[^，,。；;！!：:是为]{2,12})[。.！!]?$")
_PAIR = re.compile(
    r"(?P<first>[^，,。？?和与跟]{1,12}?)(?:和|与|跟|还是|以及)(?P<second>[^，,。？?]{1,12}?)"
    r"(?=的|有|哪|区别|不同|差别|谁|怎么|都|分别|相比|之间|$)"
)
_LIST = re.compile(r"[^，,。；;：:、\s]{1,14}(?:、[^，,。；;：:、\s]{1,14})+")
_LIST_TAIL = re.compile(r"(?:等|[一二两三四五六七八九十几]+[个种类项位部座]).*$")
_MARKED = re.compile(r"《[^《》]{1,20}》|“[^“”]{1,16}”")
REFUSED = re.compile(r"^(?:资料中?(?:没有|未)|没有找到|抱歉)")
"""Replies that hold no answer."""

ORDINAL = re.compile(
    r"(?P<first>(?<!其)前者|前(?:面|一)那?(?:个|种|位|座|款|项|部)|第一(?:个|种|位|座|款|项|部)(?![月人次年]))|"
    r"(?P<last>后者|后(?:面|一)那?(?:个|种|位|座|款|项|部)|最后那?(?:个|种|位|座|款|项|部))|"
    r"(?P<second>第二(?:个|种|位|座|款|项|部)(?![月人次年]))|(?P<third>第三(?:个|种|位|座|款|项|部)(?![月人次年]))"
)


def topic_of(question: str) -> str:
    """What a question is about, by its wording: «扫地机器人» of «扫地机器人怎么充电？»; may be empty."""
    text = _LEAD.sub("", without_courtesy(question).strip().strip("。？?！!"))
    match = _TOPIC_END.search(text, 2) if len(text) > 2 else None
    topic = _TRAIL.sub("", text[: match.start()] if match else text)
    return topic.strip("，, 的").strip() if len(topic) <= 24 else ""


def questions_asked(history: Sequence[Turn]) -> list[str]:
    """The user's messages that were more than small talk."""
    return [t.content for t in history if t.role == "user" and t.content.strip() and not classify(t.content)]


def last_reply(history: Sequence[Turn]) -> str:
    """The latest answer, empty where it was a refusal."""
    reply = next((t.content for t in reversed(history) if t.role == "assistant"), "").strip()
    return "" if REFUSED.match(reply) else reply


def named_by_answer(history: Sequence[Turn]) -> str:
    """What the last answer named, where the last question asked for a name: «木星»; else empty."""
    asked, reply = questions_asked(history), last_reply(history)
    if not asked or not reply or not _ASKS_NAME.search(asked[-1]) or _ASKS_WHO_IT_IS.match(asked[-1]):
        return ""
    match = _NAMED.search(reply)
    name = match["name"] if match else reply.strip("。.！! ")
    if (
        len(name) > 12
        or re.search(r"[，,。；;：:]|[吧吗嘛呢啦很真]", name)
        or re.match(r"不|没|可以|能|是|有|你|我", name)
    ):
        return ""
    return re.sub(r"^.*的(?=.{2,}$)", "", name) if match else name


def ordinal(question: str, history: Sequence[Turn]) -> tuple[re.Match[str], str] | None:
    """The ordinal («前者», «第二个») in a question and what it points at; None: none, or it is not clear."""
    match = ORDINAL.search(question)
    if match is None:
        return None
    for items in _enumerations(history):
        index = {"first": 0, "second": 1, "third": 2, "last": len(items) - 1}[match.lastgroup or "first"]
        if index < len(items):
            return match, items[index]
    return None


def _enumerations(history: Sequence[Turn]) -> list[list[str]]:
    """Things named side by side, the latest first: in the last answer by «、», in a question as «A和B»."""
    found = []
    reply = last_reply(history)
    for match in _LIST.finditer(reply):
        items = _LIST_TAIL.sub("", match[0]).split("、")
        items = [part for item in items for part in re.split(r"和|及|或", item) if part]
        marked = [_MARKED.search(item) for item in items]
        if all(marked):
            items = [m[0] for m in marked if m]
        elif len(items) > 1:  # words before the first item hang on to it
            items[0] = items[0][-max(len(item) for item in items[1:]) :]
        if len(items) > 1:
            found.append(items)
    for question in reversed(questions_asked(history)):
        if pair := _PAIR.search(_LEAD.sub("", without_courtesy(question).strip("。？?！! "))):
            first, second = pair["first"].strip(), pair["second"].strip()
            if key(first) and key(second):
                found.append([first, second])
                break
    return found
