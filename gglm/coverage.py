"""How much of a question its answer's own sentence names.

The network was taught by passages that are about the question. Asked over documents that have nothing to do with it, it
finds some span all the same, and is often sure of it; that the sentence around it hardly shares a character with the
question tells it apart (AUROC .95 where the network's own signs have .89, docs/log.md).
"""

from __future__ import annotations

import re

from gglm.text import normalize

_ASKING = re.compile(
    r"多少|多[久长大高]|几|什么时候|何时|什么|怎么办|怎么|怎样|如何|为什么|哪[里儿些个种年天]?|谁|是否|能不能|[吗呢吧的了是有]"
)
"""What asks in a question, and no sentence that answers it need say."""
_END = re.compile(r"[。！？!?\n]")
_MAX_SENTENCE = 160


def coverage(question: str, title: str, text: str, start: int, end: int) -> float:
    """Share (0…1) of the question's distinct characters that stand in the title or the sentence(s) around
    ``text[start:end]``; question words are left out, traditional and simplified are one. 1 where nothing else is asked.
    """
    asked = _characters(_ASKING.sub("", normalize(question)))
    if not asked:
        return 1.0
    left = max((m.end() for m in _END.finditer(text, 0, start)), default=0)
    close = _END.search(text, max(start, end - 1))
    right = close.start() if close else len(text)
    around = text[max(left, start - _MAX_SENTENCE) : min(right, end + _MAX_SENTENCE)]
    return len(asked & _characters(normalize(f"{title} {around}"))) / len(asked)


def _characters(text: str) -> set[str]:
    return {c for c in text.lower() if c.isalnum()}
