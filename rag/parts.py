"""Questions for the same of several things: «甲和乙分别…» asks twice, and its answer may need two passages."""

from __future__ import annotations

import re
from dataclasses import dataclass

_EACH = re.compile(r"分别|各自|各(?=[是有要需能为占多几])")
_JOIN = re.compile(r"、|和|与|跟|以及|及")
MOST = 4
"""Things that a question is taken apart for."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing asked after, and the question for it alone."""

    thing: str
    question: str


def split_question(question: str) -> tuple[Part, ...]:
    """The questions that one with 分别 or 各 stands for; empty where it is not plainly such a one.

    «甲票和乙票的价格分别是多少» → «甲票的价格是多少», «乙票的价格是多少».
    """
    text = question.strip().strip("？?。")
    match = _EACH.search(text)
    if match is None or re.search("[，,；;。]", text):
        return ()
    things = [part.strip() for part in _JOIN.split(text[: match.start()])]
    rest = text[match.end() :]
    if not 2 <= len(things) <= MOST or not all(things) or not rest:
        return ()
    things[-1], shared = _apart(things[-1], things[0])
    prefix = things[0][: len(things[0]) - len(things[-1])] if len(things[0]) >= len(things[-1]) + 3 else ""
    if len(set(things)) < len(things) or any(not 2 <= len(thing) <= 16 for thing in things):
        return ()
    return tuple(
        Part(thing.removeprefix(prefix), f"{prefix}{thing.removeprefix(prefix)}{shared}{rest}？") for thing in things
    )


def _apart(last: str, first: str) -> tuple[str, str]:
    """The last thing and what is asked of all, where the two are written together: «乙票», «的价格»."""
    if "的" in last[1:]:
        at = last.index("的", 1)
    elif len(last) > len(first) and (at := last.find(first[-1], 1) + 1):  # «需方和供方违约金»: both end alike
        pass
    else:
        at = len(last)
    return last[:at], last[at:]
