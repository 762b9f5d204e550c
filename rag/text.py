"""Small text helpers of retrieval and answering: sentences, keys to compare by, content bigrams."""

from __future__ import annotations

import re
import unicodedata

from rag.types import Span

_STRONG_END = "。！？!?\n"
_SENTENCE_END = _STRONG_END + "；;"
_CLOSERS = "”’」』）)】》\"'"
_CLAUSE_END = "，,、：:"
_WORD = re.compile(r"[a-z]+|\d+(?:[.,:]\d+)*|[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def key(text: str) -> str:
    """Text to compare by: NFKC, lower case, letters, digits and the signs that change a value."""
    folded = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in folded if c.isalnum() or c in "%‰.+-°")


def terms(text: str) -> set[str]:
    """What a text is about: Han bigrams (a lone character as itself), Latin words and numbers."""
    found: set[str] = set()
    for run in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if run[0].isascii() or len(run) == 1:
            found.add(run)
        else:
            found.update(run[i : i + 2] for i in range(len(run) - 1))
    return found


def numbers(text: str) -> set[str]:
    """The numbers in Arabic digits that a text names, thousands commas removed."""
    folded = unicodedata.normalize("NFKC", text)
    return {n.replace(",", "") for n in re.findall(r"\d+(?:[.,:]\d+)*", folded)}


def sentences(text: str) -> list[Span]:
    """Sentences with their closing marks, white space at the edges left out, in order."""
    spans: list[Span] = []
    start = 0
    i = 0
    while i < len(text):
        if text[i] in _SENTENCE_END:
            i += 1
            while i < len(text) and text[i] in _SENTENCE_END + _CLOSERS and text[i] != "\n":
                i += 1
            _append_trimmed(spans, text, start, i)
            start = i
        else:
            i += 1
    _append_trimmed(spans, text, start, len(text))
    return spans


def sentence_around(text: str, start: int, end: int, limit: int = 160) -> Span:
    """The sentence(s) that hold ``text[start:end]``, no longer than ``limit`` unless the span is.

    A semicolon ends a sentence, and a clause mark a part of it, only where it would be too long.
    """
    whole = _between(text, start, end, _STRONG_END)
    if whole.end - whole.start > limit:
        whole = _between(text, start, end, _SENTENCE_END)
    if whole.end - whole.start <= limit:
        return whole
    room = max(0, limit - (end - start))
    left, right = max(whole.start, start - room // 2), min(whole.end, end + room // 2)
    if left > whole.start:
        left = next((i + 1 for i in range(left, start) if text[i] in _CLAUSE_END), start)
    if right < whole.end:
        right = next((i for i in range(right - 1, end - 1, -1) if text[i] in _CLAUSE_END), end)
    return _trimmed(text, left, right) or Span(start, end)


def _between(text: str, start: int, end: int, marks: str) -> Span:
    """From behind the last mark before ``start`` to behind the first at or after ``end`` − 1."""
    left = max(text.rfind(mark, 0, start) for mark in marks) + 1
    while left < start and text[left] in _CLOSERS:
        left += 1
    right = _next(text, max(start, end - 1), marks)
    return _trimmed(text, left, max(right, end)) or Span(start, end)


def _next(text: str, start: int, marks: str) -> int:
    """Offset behind the first mark at or after ``start`` and the closers that follow it."""
    for i in range(start, len(text)):
        if text[i] in marks:
            if text[i] == "\n":
                return i
            i += 1
            while i < len(text) and text[i] in _CLOSERS:
                i += 1
            return i
    return len(text)


def _trimmed(text: str, start: int, end: int) -> Span | None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end) if start < end else None


def _append_trimmed(spans: list[Span], text: str, start: int, end: int) -> None:
    span = _trimmed(text, start, end)
    if span is not None:
        spans.append(span)
