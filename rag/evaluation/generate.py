"""Questions made from a knowledge base's own passages, by rules.

Chinese asks where the answer stands («质保期为十八个月» → «质保期为多长时间？»), so a statement becomes
a question when its answer gives way to a question word. What comes out is not always what a person
would say; `rag.evaluation.own` keeps only what is found and answered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gglm.expected import FORMS
from rag.text import key, sentences, terms

Kind = Literal["figure", "field", "definition", "name", "faq"]


@dataclass(frozen=True, slots=True)
class Generated:
    """A question, its answer as it stands in the passage, and the stretch that says so."""

    question: str
    answer: str
    evidence: str
    kind: Kind


_WH = {"money": "多少钱", "percent": "多少", "length": "多长时间", "date": "什么时候"}
_CLAUSE = re.compile(r"[，,；;。！？!?\n]")
_FIELD = re.compile(r"(?P<name>[\u4e00-\u9fffA-Za-z]{2,10})[：:]\s?(?P<value>[^；;。！？\n：:]{1,40})(?=[；;。\n]|$)")
_NO_FIELD = re.compile(
    r"注意|说明|例如|比如|备注|提示|如下|以下|包括|警告|问题|原因|其中|示例|答|第.{1,4}[步条章节]|步骤"
)
_DEFINITION = re.compile(
    r"(?P<name>[^，,。；;：:\s\d]{2,14}?)(?:是指|指的是|是(?=一[种个项类款部座家名位])|的意思是)(?P<what>[^。！？\n]{4,60})"
)
_STATEMENT = re.compile(r"(?P<name>[^，,。；;：:\s是]{3,14})是(?P<what>[^，,。！？\n是]{1,30})[。；;]?$")
"""A whole sentence of the form «A是B», both short."""
_VAGUE = re.compile(
    r"^(?:这|那|其|它|他|她|该|本|此|如|若|但|而|也|并|所|就|都|只|还|不|可|我|你|您|谁|因)|(?:[的就也都不只仅应会能还将便]|可以)$|我们|你们"
)
_NAME = re.compile(r"《[^《》\n]{2,20}》|“[^“”\n]{2,12}”|「[^「」\n]{2,12}」")
_FAQ = re.compile(
    r"^(?:问|Q)[：:]\s*(?P<q>[^\n]{4,60}[?？])\s*\n+(?:答|A)[：:]\s*(?P<a>[^\n。！？]{2,80})", re.MULTILINE
)
_MARKUP = re.compile(
    r"^[\s#>*•·◇◆■●\-–]*(?:\d{1,2}(?:\.\d{1,2})+\s+)?(?:[（(]?(?:\d{1,2}|[一二三四五六七八九十]{1,3})(?:[)）、．]|\.(?!\d)|\s+(?=[\u4e00-\u9fff]))\s*)?"
)
_BARE_DAY = re.compile(r"(?:\d{1,2}|[一二三四五六七八九十]{1,3})\s?[日号]")


def questions_of(title: str, heading: str, text: str) -> list[Generated]:
    """All questions that the rules make of one passage; none twice, in the passage's order of rules."""
    topic = heading.split(" › ")[-1] or title
    found: dict[str, Generated] = {}
    for made in (
        *_faqs(text),
        *_fields(topic, text),
        *_definitions(text),
        *_figures(topic, text),
        *_names(topic, text),
    ):
        if made.answer not in made.question:
            found.setdefault(made.question, made)
    return list(found.values())


def _asked(topic: str, clause: str) -> str:
    """A clause with its question word as a question; the topic in front where the clause does not name it."""
    question = _MARKUP.sub("", clause).strip(" ，,：:")
    about = "" if not topic or terms(topic) & terms(question) else f"{topic}，"
    return f"{about}{question}？"


def _figures(topic: str, text: str) -> Iterator[Generated]:
    """«病假工资按80%发放» → «病假工资按多少发放？»: clauses with one figure of a form."""
    for span in sentences(text):
        sentence = text[span.start : span.end]
        if " | " in sentence or not 8 <= len(sentence) <= 120:
            continue
        for form, word in _WH.items():
            matches = [m for m in FORMS[form].finditer(sentence) if _plain_figure(form, m)]
            if len(matches) != 1:
                continue
            match = matches[0]
            start = max((m.end() for m in _CLAUSE.finditer(sentence, 0, match.start())), default=0)
            if len(key(sentence[start : match.start()])) < 4 and start > 1:  # the subject stands a clause earlier
                start = max((m.end() for m in _CLAUSE.finditer(sentence, 0, start - 1)), default=0)
            after = _CLAUSE.search(sentence, match.end())
            end = after.start() if after else len(sentence)
            if len(key(sentence[start : match.start()])) >= 4:
                asked = sentence[start : match.start()].rstrip() + word + sentence[match.end() : end].lstrip()
                yield Generated(_asked(topic, asked), match[0].strip(), sentence, "figure")


def _plain_figure(form: str, match: re.Match[str]) -> bool:
    """Whether a question word can stand for the figure: all of it, no ordinal, and surely of that form."""
    text, sentence = match[0].strip(), match.string
    before, after = sentence[: match.start()][-1:], sentence[match.end() :][:1]
    if before.isdigit() or before in (",", ".", ":", "第") or text[0] == "第" or after in ("级", "楼", "后", "代"):
        return False
    calendar = FORMS["date"].fullmatch(text) is not None and not _BARE_DAY.fullmatch(text)
    if form == "date":
        return calendar
    if form == "length" and _BARE_DAY.fullmatch(text):
        return after in ("内", "前", "以") and not re.search(r"月\s?$", sentence[: match.start()])
    return form != "length" or not calendar


def _fields(topic: str, text: str) -> Iterator[Generated]:
    """«品种：紫藤；区域：长廊» → «紫藤的区域是什么？»; a line of one field is asked of the topic."""
    for line in text.split("\n"):
        line = _MARKUP.sub("", line)
        pairs = [m for m in _FIELD.finditer(line) if not _NO_FIELD.search(m["name"])]
        if not pairs or pairs[0].start() or len(line) > 200:
            continue
        owner, asked = (topic, pairs) if len(pairs) == 1 else (pairs[0]["value"].strip(), pairs[1:])
        for match in asked:
            if owner and match["name"] not in owner:
                yield Generated(f"{owner}的{match['name']}是什么？", match["value"].strip(), line.strip(), "field")


def _definitions(text: str) -> Iterator[Generated]:
    """«骑缝章是指盖在…的章» → «骑缝章是什么？»."""
    for span in sentences(text):
        sentence = text[span.start : span.end]
        plain = _MARKUP.sub("", sentence)
        match = _DEFINITION.match(plain) or _STATEMENT.match(plain)
        if match and not _VAGUE.search(match["name"]):
            yield Generated(f"{match['name']}是什么？", match["what"].strip(), sentence, "definition")


def _names(topic: str, text: str) -> Iterator[Generated]:
    """A name in marks that recurs, asked for in the sentences that hold it (recurring spans, Ram et al. 2021)."""
    counts = Counter(_NAME.findall(text))
    for span in sentences(text):
        sentence = text[span.start : span.end]
        for match in _NAME.finditer(sentence):
            rest = sentence[: match.start()] + sentence[match.end() :]
            if counts[match[0]] > 1 and sentence.count(match[0]) == 1 and 10 <= len(rest) <= 60:
                blank = "哪一部作品或文件" if match[0][0] == "《" else "什么"
                asked = sentence[: match.start()] + blank + sentence[match.end() :]
                yield Generated(_asked(topic, asked.rstrip("。；;！!")), match[0], sentence, "name")


def _faqs(text: str) -> Iterator[Generated]:
    """Questions that the document itself asks and answers."""
    for match in _FAQ.finditer(text):
        yield Generated(match["q"].strip(), match["a"].strip(), match["a"].strip(), "faq")
