"""Where Chinese (and Western) sentences end, with exact offsets.

A sentence runs to 。！？ (or . ! ? where they end one) with the closing quotes and brackets behind
them. A mark inside quotes or brackets ends none, unless they close right behind it or never.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_PAIRS = {
    "“": "”",
    "‘": "’",
    "「": "」",
    "『": "』",
    "（": "）",
    "《": "》",
    "〈": "〉",
    "【": "】",
    "〔": "〕",
    "(": ")",
    "[": "]",
}
_CLOSERS = "”’」』）》〉】〕)]\"'"
_OPEN_OR_CLOSE = re.compile("[" + re.escape("".join(_PAIRS) + "".join(_PAIRS.values())) + "]")
_END = re.compile(
    rf"(?:[。！？｡]|[!?](?![A-Za-z0-9=&/%])|\.(?=\s|$|[{re.escape(_CLOSERS)}]))[。！？!?.…]*[{re.escape(_CLOSERS)}]*|…+[”’」』]"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|Nos|Fig|Figs|Eq|vs|etc|cf|al|Inc|Ltd|Co|Corp|approx|Vol|pp?|e\.g|i\.e)|^\s*\d{1,3}|[(\[]\d{1,3})$"
)
_SOFT = (re.compile("[；;]+[”’」』）》】]*"), re.compile("[，、：,:—…]+[”’」』）》】]*"), re.compile(r"\s+"))
_MAX_PAIR = 400
_MIN_PIECE = 24
"""Cuts after commas and spaces that are closer together than this are not worth having."""


def sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of ``text[start:end]``, without white space at their edges."""
    begin = start
    for stop in _ends(text, start, end):
        if span := _trim(text, begin, stop):
            yield span
        begin = stop
    if span := _trim(text, begin, end):
        yield span


def pieces(text: str, start: int, end: int, maximum: int) -> Iterator[tuple[int, int, int]]:
    """A sentence that is too long, in (start, end, roughness) pieces of at most ``maximum`` characters.

    ``roughness`` says how bad a cut before the piece is: 0 the sentence's own start, 1 after a
    sentence inside quotes or a semicolon, 2 after a comma, 3 at a space, 4 within a word.
    """
    cuts: dict[int, int] = {}
    for found in _END.finditer(text, start, end):
        cuts[found.end()] = 1
    for roughness, pattern in enumerate(_SOFT, start=1):
        for found in pattern.finditer(text, start, end):
            cuts.setdefault(found.end(), roughness)
    begin, rough = start, 0
    for stop in [*sorted(c for c in cuts if start < c < end), end]:
        if stop < end and cuts[stop] > 1 and stop - begin < _MIN_PIECE:
            continue
        while stop - begin > maximum:
            middle = _safe_cut(text, begin, begin + maximum)
            if span := _trim(text, begin, middle):
                yield (*span, rough)
            begin, rough = middle, 4
        if span := _trim(text, begin, stop):
            yield (*span, rough)
        begin, rough = stop, cuts.get(stop, 0)


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    nested = _nested(text, start, end)
    inside = 0
    for found in _END.finditer(text, start, end):
        stop = found.end()
        while inside < len(nested) and nested[inside][1] < stop:
            inside += 1
        if inside < len(nested) and nested[inside][0] < stop <= nested[inside][1]:
            continue
        if found[0][0] == "." and _ABBREVIATION.search(text, max(start, found.start() - 12), found.start()):
            continue
        if stop < end:
            yield stop


def _nested(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Outermost quoted or bracketed stretches (from the opener to its closer), in order."""
    stack: list[tuple[str, int]] = []
    found: list[tuple[int, int]] = []
    for mark in _OPEN_OR_CLOSE.finditer(text, start, end):
        char, position = mark[0], mark.start()
        if char in _PAIRS:
            stack.append((_PAIRS[char], position))
            del stack[:-32]
            continue
        for depth in range(len(stack) - 1, -1, -1):
            if stack[depth][0] == char:
                opened = stack[depth][1]
                del stack[depth:]
                if position - opened <= _MAX_PAIR:
                    while found and found[-1][0] > opened:
                        found.pop()
                    found.append((opened, position))
                break
    return found


def _safe_cut(text: str, begin: int, stop: int) -> int:
    """The last place at or before ``stop`` that parts no word, number or composed character."""
    for cut in range(stop, max(begin + 1, stop - 24), -1):
        before, after = text[cut - 1], text[cut]
        if not (before.isascii() and after.isascii() and before.isalnum() and after.isalnum()) and not _joins(
            before, after
        ):
            return cut
    for cut in range(stop, begin, -1):
        if not _joins(text[cut - 1], text[cut]):
            return cut
    return stop


def _joins(before: str, after: str) -> bool:
    return (
        before == "\u200d"
        or after == "\u200d"
        or unicodedata.category(after) in ("Mn", "Mc", "Me")
        or 0x1F3FB <= ord(after) <= 0x1F3FF
    )


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None
