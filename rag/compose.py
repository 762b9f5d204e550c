"""From copied spans to an answer that is complete, and to the text that a person reads.

Tables and lists are seen in the canonical text as lines: rows whose cells name their columns
(«品种：紫藤；区域：长廊») or stand between bars under a header row, and items with a bullet or number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rag.cite import Evidence
from rag.text import key, sentence_around, terms
from rag.types import Citation, Passage, ReaderOutput, Span
from rag.verdict import asks_twice, asks_yes_no, plausible, verdict, words

NOT_FOUND = "资料中没有找到这个问题的答案。"
NOTHING_RELEVANT = "资料中没有找到与这个问题有关的内容。"
EMPTY = "资料中没有找到答案：这个知识库里还没有任何内容。请先添加文档，例如运行 chatgglm ingest 文件或文件夹。"

ALTERNATIVE = 0.5
"""How likely, beside the best answer, another one must be to be shown with it."""
ALTERNATIVE_ALIKE = 0.02
"""The same where the sentences around both hardly differ but for the answer: a likelihood tells little there."""
ALTERNATIVE_RELEVANT = 0.03
"""Least relevance of the other one's passage, in the calibration of the shipped reader (docs/log.md)."""
_ITEM = re.compile(
    r"\s*(?P<bullet>[-*•·●▪◦‣]\s+|[①-⑳]|[（(]?(?:\d{1,2}|[一二三四五六七八九十]{1,3})[)）.、．]\s*(?!\d)|第[一二三四五六七八九十\d]{1,3}步[:：、，\s]?|步骤\s*[\d一二三四五六七八九十]{1,3}[:：、.\s]?)"
)
_ORDERED = re.compile(r"\s*(?:[（(]?[\d一二三四五六七八九十]|[①-⑳]|第|步骤)")
_LIST_QUESTION = re.compile(
    r"哪些|哪几(?:种|类|项|个|步|点|样|条)|步骤|流程|程序|清单|分别(?:是|有)|都(?:有|要|需要|包括)(?:什么|啥)|(?:什么|啥)(?:材料|条件|要求|手续|资料|证件)|包括什么|包含什么"
)
_HOW_QUESTION = re.compile(r"怎么|怎样|如何")
_PROCEDURE = re.compile(r"步骤|流程|方法|如下|操作|依次|按以下|程序")
_SEPARATOR = re.compile(r"[\s|:+-]*-[\s|:+-]*")
_FIGURE = re.compile(r"[\d一二三四五六七八九十百千万两半.]+")
_MAX_LIST_CHARS = 600
_DATE = r"(?:(?:19|20)\d\d\s?年(?:\s?\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?)?|(?:19|20)\d\d[-./]\d{1,2}[-./]\d{1,2})"
_DATED = re.compile(
    rf"(?:日期|时间|发布|印发|修订|更新|制定)[于：:\s]{{0,3}}(?P<after>{_DATE})|"
    rf"(?P<before>{_DATE})\s?(?:起|版|施行|实施|执行|生效|发布|印发|修订|更新|制定)|^\s*(?P<alone>{_DATE})\s*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer before its citations are verified."""

    text: str
    claims: tuple[Evidence, ...]
    disagree: bool = False
    generated: tuple[Span, ...] = ()
    """Stretches of the text that no source holds; see `rag.types.Answer`."""


def draft(question: str, output: ReaderOutput, passages: Sequence[Passage], texts: Mapping[int, str]) -> Draft:
    """The reader's output as an answer with claims: lists completed and cited item by item, table rows with
    their header, yes or no where the sentence says so.
    """
    whole = [(passages[i], source) for i, source, span in output.spans if span == Span(0, len(output.text))]
    if output.kind == "copied" and len(output.spans) == 1 and whole:
        passage, source = whole[0]
        if items := _whole_list(question, passage, source):
            return _joined([(passage, item, output.confidence) for item in items])
        if parts := _table_parts(passage, source, texts.get(passage.version_id, "")):
            return _joined([(passage, part, output.confidence) for part in parts])
        if said := _yes_or_no(question, passage, source, output):
            return said
    return Draft(
        output.text,
        tuple(Evidence(passages[i], source, span, output.confidence) for i, source, span in output.spans),
    )


def with_alternatives(draft: Draft, output: ReaderOutput, passages: Sequence[Passage]) -> Draft:
    """Add the answers of other documents that say something else with near the same confidence.

    Only short, whole answers are compared. Two of them differ when neither holds the other.
    """
    if output.kind != "copied" or len(draft.claims) != 1 or len(draft.text) > 30 or draft.generated:
        return draft
    claim = draft.claims[0]
    kept = [(claim.passage, claim.source, claim.score)]
    for score, index, source in output.alternatives:
        passage = passages[index]
        text = passage.text[source.start : source.end]
        least = ALTERNATIVE_ALIKE if _alike(passage, source, claim) else ALTERNATIVE
        if (
            score >= least
            and output.relevance[index] >= ALTERNATIVE_RELEVANT
            and len(text) <= 30
            and all(passage.document_id != other.document_id for other, _, _ in kept)
            and all(_differ(text, other.text[span.start : span.end]) for other, span, _ in kept)
            and _same_question(passage, source, claim)
        ):
            kept.append((passage, source, score * claim.score))
    if len(kept) == 1:
        return draft
    return replace(_joined(kept[:3], separator="；"), disagree=True)


def side_by_side(things: Sequence[str], drafts: Sequence[Draft]) -> Draft:
    """The answers for several things, each behind its name («紫藤：四月；牡丹：五月»); one sentence stays one.

    The names are the question's own words and count as generated.
    """
    claims = [claim for draft in drafts for claim in draft.claims]
    first = claims[0]
    around = sentence_around(first.passage.text, first.source.start, first.source.end)
    if all(c.passage == first.passage and around.start <= c.source.start < around.end for c in claims):
        return _joined([(first.passage, around, min(c.score for c in claims))])
    text = ""
    moved: list[Evidence] = []
    names: list[Span] = []
    for thing, draft in zip(things, drafts, strict=True):
        text += "；" if text else ""
        names.append(Span(len(text), len(text) + len(thing) + 1))
        text += f"{thing}："
        for claim in draft.claims:
            at = Span(claim.answer.start + len(text), claim.answer.end + len(text))
            moved.append(replace(claim, answer=at))
        names += [Span(span.start + len(text), span.end + len(text)) for span in draft.generated]
        text += draft.text
    return Draft(text, tuple(moved), generated=tuple(names))


def display(answer: str, citations: Sequence[Citation], texts: Mapping[int, str], supporting: bool) -> str:
    """The answer with [n] behind each cited stretch, then the supporting sentences, quoted and cited."""
    marked = answer
    for citation in sorted(citations, key=lambda c: -c.answer_end):
        marked = f"{marked[: citation.answer_end]}[{citation.marker}]{marked[citation.answer_end :]}"
    if not supporting:
        return marked
    quoted: dict[str, int] = {}
    for citation in citations:
        sentence = supporting_sentence(citation, texts)
        if len(key(sentence)) > 1.25 * len(key(answer[citation.answer_start : citation.answer_end])):
            quoted.setdefault(sentence, citation.marker)
    lines = [f"原文：「{sentence}」[{marker}]" for sentence, marker in list(quoted.items())[:3]]
    return "\n\n".join([marked, *lines])


def alternatives(answer: str, citations: Sequence[Citation], texts: Mapping[int, str], supporting: bool) -> str:
    """Answers that disagree, for people: each with its source and date, and the sentence around it."""
    lines = ["不同资料的说法不一致：", ""]
    quoted: list[str] = []
    for citation in citations:
        dated = date_of(citation, texts)
        where = f"《{citation.title}》" + (f" 第 {citation.page} 页" if citation.page else "")
        lines.append(f"- {citation.quote}[{citation.marker}]（{where}{'，' + dated if dated else ''}）")
        sentence = supporting_sentence(citation, texts)
        if supporting and key(sentence) != key(citation.quote):
            quoted.append(f"原文：「{sentence}」[{citation.marker}]")
    return "\n\n".join(["\n".join(lines), *quoted])


def date_of(citation: Citation, texts: Mapping[int, str]) -> str:
    """The date that a document gives for itself, as it writes it: in its title or path, or where it says
    when it was issued or takes effect, or on a line of its own; empty where it gives none.
    """
    if match := re.search(_DATE, f"{citation.title} {citation.path}"):
        return match[0]
    match = _DATED.search(texts.get(citation.version_id, ""))
    return next(filter(None, match.groups()), "") if match else ""


def supporting_sentence(citation: Citation, texts: Mapping[int, str]) -> str:
    """The stored sentence around a quote; for a table row, the header row and the row."""
    text = texts[citation.version_id]
    rows = _row_and_header(text, citation.char_start, citation.char_end)
    if rows is not None:
        header, row = rows
        lines = [text[s.start : s.end] for s in (header, row) if s is not None]
        return "\n".join(lines)
    span = sentence_around(text, citation.char_start, citation.char_end)
    sentence = text[span.start : span.end]
    if bullet := _ITEM.match(sentence):
        sentence = sentence[bullet.end() :] if bullet.end() <= citation.char_start - span.start else sentence
    return sentence.lstrip("#> ").strip()


def refusal(reason_text: str, passages: Sequence[Passage], count: int = 3) -> str:
    """A refusal for people: what was not found, then the nearest passages."""
    if not passages:
        return reason_text
    lines = [reason_text, "", "最接近的内容："]
    for number, passage in enumerate(passages[:count], start=1):
        page = f" 第 {passage.page} 页" if passage.page else ""
        snippet = " ".join(passage.text.split())
        lines.append(f"{number}. 《{passage.title}》{page}：{snippet[:60]}{'…' if len(snippet) > 60 else ''}")
    return "\n".join(lines)


def _joined(parts: Sequence[tuple[Passage, Span, float]], separator: str = "\n") -> Draft:
    text = ""
    claims = []
    for passage, source, score in parts:
        text += separator if text else ""
        quote = passage.text[source.start : source.end]
        claims.append(Evidence(passage, source, Span(len(text), len(text) + len(quote)), score))
        text += quote
    return Draft(text, tuple(claims))


def _differ(one: str, other: str) -> bool:
    a, b = key(one), key(other)
    return bool(a and b) and a not in b and b not in a


def _same_question(passage: Passage, source: Span, claim: Evidence) -> bool:
    """Both answers are figures in a common unit or neither is one, and their sentences share wording."""
    one = passage.text[source.start : source.end]
    other = claim.passage.text[claim.source.start : claim.source.end]
    if bool(_FIGURE.search(one)) != bool(_FIGURE.search(other)):
        return False
    if _FIGURE.search(one) and not set(_FIGURE.sub("", key(one))) & set(_FIGURE.sub("", key(other))):
        return False
    return len(_context(passage, source) & _context(claim.passage, claim.source)) >= 2


def _alike(passage: Passage, source: Span, claim: Evidence) -> bool:
    """Whether the sentences around two answers say nearly the same otherwise."""
    one, other = _context(passage, source), _context(claim.passage, claim.source)
    shared = len(one & other)
    return shared >= 5 and shared >= 0.75 * min(len(one), len(other))


def _context(passage: Passage, span: Span) -> set[str]:
    """Terms of the sentence around a span and of its heading, the span's own left out."""
    around = sentence_around(passage.text, span.start, span.end)
    before, after = passage.text[around.start : span.start], passage.text[span.end : around.end]
    return terms(f"{passage.heading} {before} {after}")


def _lines(text: str) -> list[Span]:
    """The lines that are not blank, without the white space at their edges."""
    spans = []
    start = 0
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped:
            left = start + len(line) - len(line.lstrip())
            spans.append(Span(left, left + len(stripped)))
        start += len(line) + 1
    return spans


def _yes_or_no(question: str, passage: Passage, source: Span, output: ReaderOutput) -> Draft | None:
    """«可以：…», the sentence quoted that says it or, where the reader is sure, what it found; else None."""
    if source.end > len(passage.text) or asks_twice(question):  # unverifiable; two questions
        return None
    around = sentence_around(passage.text, source.start, source.end)
    if found := verdict(question, passage.text[around.start : around.end]):
        word, quoted = found.word, around
    elif (
        output.verdict is not None
        and asks_yes_no(question)
        and plausible(output.verdict, passage.text[source.start : source.end])
    ):
        word, quoted = words(question)[not output.verdict], source
    else:
        return None
    lead, quote = f"{word}：", passage.text[quoted.start : quoted.end]
    claim = Evidence(passage, quoted, Span(len(lead), len(lead) + len(quote)), output.confidence)
    return Draft(lead + quote, (claim,), generated=(Span(0, len(lead)),))


def _whole_list(question: str, passage: Passage, source: Span) -> list[Span] | None:
    """The items of the whole list where a question asks for one and the span lies in it or introduces it."""
    asks_list = bool(_LIST_QUESTION.search(question))
    if not asks_list and not _HOW_QUESTION.search(question):
        return None
    text = passage.text
    lines = _lines(text)
    at = next((i for i, line in enumerate(lines) if line.start <= source.start < line.end), None)
    if at is None:
        return None
    is_item = [bool(_ITEM.match(text[line.start : line.end])) for line in lines]
    if not is_item[at]:
        introduces = text[lines[at].start : lines[at].end].endswith((":", "："))
        if not introduces or at + 1 >= len(lines) or not is_item[at + 1]:
            return None
        at += 1
    first = last = at
    while first > 0 and is_item[first - 1]:
        first -= 1
    while last + 1 < len(lines) and is_item[last + 1]:
        last += 1
    whole = Span(lines[first].start, lines[last].end)  # a span that runs on past the list is cut there
    intro = text[lines[first - 1].start : lines[first - 1].end] if first else ""
    about = terms(question)
    introduced = intro.endswith((":", "：")) or bool(about & terms(passage.heading.split(" › ")[-1]))
    if last == first or whole.end - whole.start > _MAX_LIST_CHARS or not introduced:
        return None
    if not asks_list:
        ordered = all(_ORDERED.match(text[line.start : line.end]) for line in lines[first : last + 1])
        if not ordered or not _PROCEDURE.search(intro + passage.heading.split(" › ")[-1]):
            return None
    if not about & terms(intro + " " + passage.heading + " " + text[whole.start : whole.end]):
        return None
    return lines[first : last + 1]


def _is_row(line: str) -> bool:
    return " | " in line or "\t" in line


def _row_and_header(text: str, start: int, end: int) -> tuple[Span | None, Span] | None:
    """(header row, row) of the table row that holds ``start:end``; header None if the row is it."""
    left = text.rfind("\n", 0, start) + 1
    right = text.find("\n", max(start, end - 1))
    right = len(text) if right < 0 else right
    row = text[left:right]
    if "\n" in text[start:end].strip("\n") or not _is_row(row):
        return None
    header: Span | None = None
    top = left
    while top > 0:
        above = text.rfind("\n", 0, top - 1) + 1
        line = text[above : top - 1]
        if not _is_row(line):
            break
        if not _SEPARATOR.fullmatch(line) and line.strip():
            header = Span(above, top - 1)
        top = above
    return header, Span(left, right)


def _table_parts(passage: Passage, source: Span, stored: str) -> list[Span] | None:
    """Header row and row, where the span runs over several cells of a row and both are in the passage."""
    quote = passage.text[source.start : source.end]
    if not _is_row(quote.strip()):
        return None
    found = _row_and_header(stored, passage.char_start + source.start, passage.char_start + source.end)
    if found is None or found[0] is None:
        return None
    spans = []
    for span in found:
        assert span is not None
        start, end = span.start - passage.char_start, span.end - passage.char_start
        if start < 0 or end > len(passage.text):
            return None
        spans.append(Span(start, end))
    return spans
