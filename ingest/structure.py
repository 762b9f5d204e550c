"""What a plain line is, in Chinese documents: a chapter, an article, a numbered heading, a question …

Texts without markup (TXT, PDF, and most Word files, whose authors format by hand) show their
structure only in their wording: 第三章, 第十二条, 一、, 1.2, 问：. Rules here are cautious: a line
that ends like a sentence is never a heading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ingest.types import BlockKind

_NUMERAL = "[一二三四五六七八九十百千零〇两0-9]"
_MARKDOWN = re.compile(r"(#{1,6})\s+(?=\S)")
_CHAPTER = re.compile(rf"第{_NUMERAL}{{1,7}}([编篇部卷章节])(?=[\s：:、.]|[^\s]{{1,30}}$|$)")
_CHAPTER_LEVEL = {"编": 1, "篇": 1, "部": 1, "卷": 1, "章": 2, "节": 3}
_ARTICLE = re.compile(
    rf"第{_NUMERAL}{{1,7}}条(?:之{_NUMERAL}{{1,3}})?(?!第|款|项|规定|所列|至|、|和|及|的|或|中|，|。|；)"
)
_APPENDIX = re.compile(r"(?:附录|附件|附表)\s*[A-Za-z0-9一二三四五六七八九十]*(?=[\s：:]|$)")
_ENUMERATED = re.compile(r"[一二三四五六七八九十]{1,3}[、.．]")
_DECIMAL = re.compile(r"\d{1,2}((?:[.．]\d{1,2}){0,3})[.．]?\s+(?=[^\d\s])")
_BRACKETED = re.compile(r"【[^【】]{1,30}】$")
_QUESTION = re.compile(r"(?:问(?:题)?|提问|Q(?:uestion)?)\s*[0-9一二三四五六七八九十]*\s*[：:.、．]", re.IGNORECASE)
_ANSWER = re.compile(r"(?:答(?:案|复)?|回答|A(?:nswer)?)\s*[0-9一二三四五六七八九十]*\s*[：:]", re.IGNORECASE)
_ITEM = re.compile(
    r"[-*•·●○▪■□◆◇➢✓√]\s*(?=\S)|[（(][一二三四五六七八九十\d]{1,3}[）)]|\d{1,3}(?:[.．]\d{1,3}){0,3}(?:[、)）]|[.．](?!\d)|\s)"
    r"|[①-⑳⑴-⒇]|[一二三四五六七八九十]{1,3}、|[a-zA-Z][.)）、](?=\s?\S)"
)
_SENTENCE_END = "。；，！？：:;,!?、…"
_PUNCTUATION = re.compile("[，。；：！？、,;:!?]")


def classify(lines: Sequence[str], first_is_title: bool) -> list[tuple[BlockKind, int, int]]:
    """(kind, heading level, characters to cut at the line's start) of each line.

    ``first_is_title``: nothing says yet what the document is called, so its first line may be the
    title (level 1).
    """
    return [_line(lines, i, first_is_title) for i in range(len(lines))]


def starts_element(line: str) -> bool:
    """Whether a line begins something of its own, so that a wrapped line above does not run into it."""
    return bool(
        _ARTICLE.match(line)
        or _CHAPTER.match(line)
        or _ITEM.match(line)
        or _QUESTION.match(line)
        or _ANSWER.match(line)
        or _MARKDOWN.match(line)
        or line.startswith(("【", "|"))
    )


def _line(lines: Sequence[str], i: int, first_is_title: bool) -> tuple[BlockKind, int, int]:
    line = lines[i]
    following = lines[i + 1] if i + 1 < len(lines) else ""
    if mark := _MARKDOWN.match(line):
        if len(line) <= 120:
            return "heading", len(mark[1]), mark.end()
        return "text", 0, 0
    if line.startswith("|") and line.endswith("|") and len(line) > 2:
        return "row", 0, 0
    title_like = len(line) <= 40 and line[-1] not in _SENTENCE_END
    if (chapter := _CHAPTER.match(line)) and title_like:
        return "heading", _CHAPTER_LEVEL[chapter[1]], 0
    if _ARTICLE.match(line):
        return "article", 0, 0
    if _QUESTION.match(line):
        return "question", 0, 0
    if _ANSWER.match(line):
        return "answer", 0, 0
    if title_like and (_APPENDIX.match(line) and len(line) <= 30):
        return "heading", 2, 0
    if _BRACKETED.match(line) and following:
        return "heading", 4, 0
    if i == 0 and first_is_title and _is_title(line, following):
        return "heading", 1, 0
    if _heads_a_section(line, following):
        if _ENUMERATED.match(line) and len(line) <= 30:
            return "heading", 4, 0
        if decimal := _DECIMAL.match(line):
            return "heading", 4 + min(2, decimal[1].count(".") + decimal[1].count("．")), 0
    if _ITEM.match(line):
        return "item", 0, 0
    return "text", 0, 0


def _is_title(line: str, following: str) -> bool:
    return bool(following) and 2 <= len(line) <= 50 and line[-1] not in _SENTENCE_END and not _ITEM.match(line)


def _heads_a_section(line: str, following: str) -> bool:
    """Short, free of punctuation, and followed by a line that is longer or of another kind."""
    body = _ENUMERATED.sub("", line, count=1) if _ENUMERATED.match(line) else line
    if not following or len(line) > 30 or _PUNCTUATION.search(body):
        return False
    if _ENUMERATED.match(line):
        return not _ENUMERATED.match(following)
    return len(following) > len(line) and not (_DECIMAL.match(following) and len(following) <= 30)
