"""How much of a question its answer's own sentence names.

The network was taught by passages that are about the question. Asked over documents that have nothing to do with it, it
finds some span all the same, and is often sure of it; that the sentence around it hardly shares a character with the
question tells it apart (docs/decisions/016). The same holds of several passages given, of which none may answer.
"""

from __future__ import annotations

import re

from gglm.expected import sentence_of
from gglm.text import normalize
from gglm.types import SourceSpan

_ASKING = re.compile(
    r"有没有|是不是|能不能|会不会|要不要|可不可以|能否|可否|是否|多少|多[久长大高]|几|啥时候|什么时候|何时|为何|什么|"
    r"怎么办(?!理)|怎么|怎样|如何|咋|啥|为什么|哪[里儿些个种年天]?|谁|[吗呢吧的了是有]"
)
"""What asks in a question, and no sentence that answers it need say."""


def coverage(question: str, title: str, text: str, span: SourceSpan) -> float:
    """Share (0…1) of the question's distinct characters that stand in the title or the sentence(s) around the span of
    ``text``, a table row's header included; question words are left out, traditional and simplified are one. 0 for a
    question of nothing else.
    """
    asked = _characters(_ASKING.sub("", normalize(question)))
    if not asked:
        return 0.0
    start, end = sentence_of(text, span)
    named = _characters(normalize(f"{title} {_header(text, start, end)} {text[start:end]}"))
    return len(asked & named) / len(asked)


def _header(text: str, start: int, end: int) -> str:
    """The first line of the table that a row with bars lies in."""
    if "|" not in text[start:end]:
        return ""
    header = ""
    for line in reversed(text[:start].split("\n")[:-1]):
        if "|" not in line:
            break
        header = line
    return header


def _characters(text: str) -> set[str]:
    return {c for c in text.lower() if c.isalnum()}
