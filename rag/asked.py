"""Questions that the documents themselves ask: FAQ entries, and headings that say what is asked for.

Where a line of a passage is the user's question in all but fillers («忘记打卡了怎么办» – «问：忘记打卡怎么办？»), the
text beneath it is the answer, whatever else looks like one. The same holds for a heading, where the question asks
how something is done or what it is («怎么删除一个文档» – «删除文档»).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rag.text import key, numbers, sentences
from rag.types import Passage, ReaderOutput, Span

MIN_RATIO = 0.6
"""Length of the question over that of the line, for FAQ entries …"""
MIN_HEADING_RATIO = 0.8
"""… and for headings, which say less."""
MAX_ANSWER = 160
"""Characters of a paragraph that is taken as the answer; more is cut at a sentence."""

_QUESTION_MARK = re.compile(r"\s*(?:【?(?:问|提问|问题)\s*\d*】?\s*[:：.、]|Q\s*\d*\s*[:：.、])\s*", re.IGNORECASE)
_ANSWER_MARK = re.compile(r"\s*(?:【?(?:答|回答|解答|答案)】?\s*[:：]|A\s*\d*\s*[:：])\s*", re.IGNORECASE)
_NUMBERED = re.compile(r"\s*(?:[（(]?(?:\d{1,3}|[一二三四五六七八九十]{1,3})[)）.、．])\s*")
_ITEM = re.compile(r"[-*•·●▪]\s|[①-⑳]|[（(]?\d{1,2}[)）.、．]\s*\D")
_FILLER = re.compile(
    "请问|请|能不能|可不可以|能否|可否|可以|能|吗|么(?=$)|呢|吧|啊|呀|的|了|我们|我|你们|你|您|需要|要|想|应该|该|一下|一个|把|给"
)
_HOW = re.compile("怎么样|怎么办|怎么|什么是|是什么|方法|步骤|流程|介绍")
_SAME = {
    "怎样|如何|咋": "怎么",
    "为什么|为啥": "为何",
    "什么时候|啥时候": "何时",
    "哪儿|什么地方": "哪里",
    "啥": "什么",
    "别的|其它|其余": "其他",
}
_NOT = re.compile("[不没未无非]")
"""With one more of these, it is the opposite question."""
_SENTENCE_END = "。！？!?；;：:，,…"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that asks, and the paragraph beneath it: spans of one passage's text."""

    question: Span
    body: Span
    heading: bool


def settled(question: str, output: ReaderOutput, passages: Sequence[Passage]) -> ReaderOutput:
    """The reader's output, replaced where a passage asks the question itself and answers it beneath.

    A span that the reader found in that answer stays; it only counts as answered. Beneath a heading it
    must begin where the text does, since a reader takes the later sentences for how something is done, too.
    """
    found = find(question, passages)
    if found is None or output.kind != "copied":
        return output
    ratio, index, entry = found
    sure = max(output.p_answerable, ratio)
    if len(output.spans) == 1:
        at, source, _ = output.spans[0]
        inside = at == index and entry.body.start <= source.start and source.end <= entry.body.end
        if inside and (not entry.heading or source.start == entry.body.start):
            return replace(output, answerable=True, p_answerable=sure)
    body = _cut(passages[index].text, entry.body)
    text = passages[index].text[body.start : body.end]
    return replace(
        output,
        text=text,
        answerable=True,
        p_answerable=sure,
        confidence=max(output.confidence, ratio),
        spans=((index, body, Span(0, len(text))),),
        alternatives=(),
    )


def find(question: str, passages: Sequence[Passage]) -> tuple[float, int, Entry] | None:
    """The entry that asks the question, as (0…1 how nearly, number of the passage, entry); the nearest one, an
    FAQ entry before a heading, the first passage first.
    """
    plain = _essence(question)
    how = _HOW.sub("", plain) if _HOW.search(plain) else ""
    found: list[tuple[float, int, Entry]] = []
    for index, passage in enumerate(passages):
        for entry in entries(passage.text):
            line = _essence(_bare(passage.text[entry.question.start : entry.question.end]))
            if numbers(line) != numbers(plain) or len(_NOT.findall(line)) != len(_NOT.findall(plain)):
                continue
            if entry.heading:
                ratio = _alike(how, _HOW.sub("", line), MIN_HEADING_RATIO) if how else 0.0
            else:
                ratio = _alike(plain, line, MIN_RATIO)
            if ratio:
                found.append((ratio, index, entry))
    return min(found, key=lambda f: (f[2].heading, -f[0], f[1]), default=None)


def entries(text: str) -> Iterator[Entry]:
    """Lines that ask or head something, each with the first paragraph beneath it."""
    lines = [Span(m.start(), m.end()) for m in re.finditer(r"\S(?:[^\n]*\S)?", text)]
    for i, line in enumerate(lines[:-1]):
        said = text[line.start : line.end]
        asks = bool(_QUESTION_MARK.match(said)) or said.endswith(("？", "?"))
        if not asks and not _heads(said):
            continue
        body = lines[i + 1]
        answer = text[body.start : body.end]
        if _QUESTION_MARK.match(answer) or answer.endswith(("？", "?")) or _heads(answer):
            continue  # a list of questions, or a heading above its first subheading
        marked = _ANSWER_MARK.match(answer)
        start = body.start + (marked.end() if marked else 0)
        if start < body.end:
            yield Entry(line, Span(start, body.end), heading=not asks)


def _heads(line: str) -> bool:
    """Short, not ended like a sentence, no answer and no item of a list."""
    short = len(line) <= 24 and line[-1] not in _SENTENCE_END and "|" not in line and "\t" not in line
    return short and not _ANSWER_MARK.match(line) and not _ITEM.match(line)


def _bare(line: str) -> str:
    """A line without the mark that makes it a question, or its number."""
    for mark in (_QUESTION_MARK, _NUMBERED):
        if match := mark.match(line):
            line = line[match.end() :]
    return line


def _essence(text: str) -> str:
    """A wording without what may change in it, one word for each way to ask."""
    text = key(text)
    for ways, one in _SAME.items():
        text = re.sub(ways, one, text)
    return _FILLER.sub("", text)


def _alike(asked: str, line: str, least: float) -> float:
    """Length of the question over that of a line which says all that it says, in order; else 0."""
    if len(asked) < 2 or len(asked) < least * len(line):
        return 0.0
    rest = iter(line)
    return len(asked) / len(line) if all(character in rest for character in asked) else 0.0


def _cut(text: str, body: Span) -> Span:
    """The sentences of a paragraph that fit, one at least."""
    if body.end - body.start <= MAX_ANSWER:
        return body
    parts = sentences(text[body.start : body.end])
    fitting = [s for s in parts if s.end <= MAX_ANSWER] or parts[:1]
    return Span(body.start + fitting[0].start, body.start + fitting[-1].end)
