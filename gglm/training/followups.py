"""Follow-up questions made from labelled ones by rule, each with the stand-alone question that it came from.

Two questions over one passage mostly share what they are about. Asked one after the other, the second need not name
it: a pronoun stands there, or nothing («张琳什么时候进入国家队？» – «他在全运会上获得了什么？»), or only what
differs is said («学生呢？»). The second question as it was is what the decoder has to write. Incomplete utterances as
in Su et al. 2019 and Pan et al. 2019, made instead of annotated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

Row = dict[str, Any]
UNKNOWN = "资料中没有找到。"
"""What the talk says where a question has no answer."""
_THING = re.compile(r"[\u3400-\u9fffA-Za-z0-9·.+#_-]+")
_EDGE = (
    "的了在是有被由将会和与及对从为于中里上下把让给到向以其该这那一个各每几多少什么哪谁怎"
    "如何吗呢吧请问可能要应需不没用年月日"
)
"""What a thing neither begins nor ends with."""
_BEFORE, _BEHIND = (
    "的了在是有被由将会和与及对从为于把让给到向以用",
    "的有是在多什几哪谁怎为何需要可能会叫属应包都也于从又还最只",
)
"""Between these a thing is a word of its own, not the middle of one."""
_PERSON = re.compile(r"[他她]")
_SHORTEST, _LONGEST = 2, 16
_ANSWER = 60
"""Characters of an answer that the talk shows."""


def followups(rows: Sequence[Row], seed: int = 0, times: int = 1) -> Iterator[Row]:
    """``{"history", "question", "rewrite"}`` rows of CMRC-like ones; those of one ``context`` belong together.

    Args:
        times: how often each question is tried. One that shares nothing with its neighbours gives none.
    """
    rng = random.Random(seed)
    talks: dict[str, list[Row]] = {}
    for row in rows:
        if len(row["question"]) >= 4:
            talks.setdefault(row["context"], []).append(row)
    groups = [group for group in talks.values() if len(group) > 1]
    for _ in range(times):
        for group in groups:
            for row in group:
                before = [other for other in rng.sample(group, min(len(group), 4)) if other is not row][:3]
                form = rng.choice(("leaning", "leaning", "leaning", "differing", "swapped", "complete"))
                if form == "leaning":
                    made = _leaning(row, before, rng)
                elif form == "differing":
                    made = _differing(row, before, rng)
                elif form == "swapped":
                    made = _swapped(row, [rng.choice(groups)[0] for _ in range(4)], rng)
                else:
                    made = _complete(row, before, rng.sample(rng.choice(groups), 2)[: rng.choice((1, 2))], rng)
                if made is not None:
                    yield made


def _leaning(row: Row, before: Sequence[Row], rng: random.Random) -> Row | None:
    """A pronoun, or nothing, in the place of what an earlier question or its answer named."""
    question = row["question"].strip()
    for earlier in before:
        thing = shared(question, f"{earlier['question']}\n{_answer(earlier)}", row.get("title") or "")
        if not thing:
            continue
        short = shortened(question, thing, row["context"], rng)
        if short is None:
            return None
        talk = _talk([earlier])
        others = [other for other in before if other is not earlier]
        if others and rng.random() < 0.4:  # a turn between them that leans on the first as well
            middle = others[0]["question"].strip()
            if thing in middle:
                middle = shortened(middle, thing, row["context"], rng) or middle
            talk += [middle, _answer(others[0])]
        return {"history": talk, "question": short, "rewrite": question}
    return None


def shared(question: str, earlier: str, title: str = "") -> str:
    """The longest thing that both name, as far as its edges can be told; empty where there is none."""
    best, score = "", 0.0
    for block in SequenceMatcher(None, question, earlier, autojunk=False).get_matching_blocks():
        for found in _THING.finditer(question[block.a : block.a + block.size]):
            text = _whole(question, block.a + found.start(), block.a + found.end()).strip(_EDGE)
            if not _SHORTEST <= len(text) <= _LONGEST or text.isdigit() or not _names(text, earlier):
                continue
            value = min(len(text), 8) + 4 * (text in title or title in text) + 2 * question.startswith(text)
            if value > score:
                best, score = text, value
    return best


def _names(thing: str, text: str) -> bool:
    """Whether a text holds the thing as a whole."""
    at = text.find(thing)
    return at >= 0 and _whole(text, at, at + len(thing)) == thing


def _whole(text: str, start: int, end: int) -> str:
    """The stretch without a part of a Latin word or number that is cut off at either edge."""
    if start > 0:
        while start < end and _joined(text[start - 1], text[start]):
            start += 1
    if end < len(text):
        while end > start and _joined(text[end - 1], text[end]):
            end -= 1
    return text[start:end]


def _joined(left: str, right: str) -> bool:
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def shortened(question: str, thing: str, context: str, rng: random.Random) -> str | None:
    """The question with a pronoun for the thing, or without it where it opens; None where that would cut a word or
    leave too little.
    """
    head, _, tail = question.partition(thing)
    for opening, closing in ("《》", "“”", "「」"):
        if head.endswith(opening) and tail.startswith(closing):
            head, tail = head[:-1], tail[1:]
    rest = tail.lstrip("的，, ")
    closed = not tail or tail[0] in _BEHIND or not _han(tail[0])
    if not head and len(rest) >= 4 and context.count(thing) > 1 and (rng.random() < 0.6 or not closed):
        return rng.choice(("", "", "那")) + rest
    opened = not head or head[-1] in _BEFORE or not _han(head[-1])
    if not closed or not opened or re.match(r"\s?[A-Za-z0-9]", tail) or re.search(r"[A-Za-z0-9]\s?$", head):
        return None
    if head in ("在", "关于", "对于", "按", "根据") and len(rest) >= 6 and rng.random() < 0.5:
        return re.sub(r"^[中里上内，, ]+", "", rest)
    if len(head) + len(tail) < 3:
        return None
    people = _PERSON.findall(context)
    if len(people) >= 2 and len(thing) <= 4:
        return head + max(sorted(set(people)), key=people.count) + tail
    if tail.startswith("的") and rng.random() < 0.2:
        return f"{head}其{tail[1:]}"
    return head + rng.choice(("它", "它", "它", "这个")) + tail


def _differing(row: Row, before: Sequence[Row], rng: random.Random) -> Row | None:
    """Only what the question does not share with the one before it: «…呢？»."""
    question = row["question"].strip()
    bare = question.rstrip("？?。")
    for earlier in before:
        other = earlier["question"].strip().rstrip("？?。")
        head = _common(bare, other)
        tail = _common(bare[head:][::-1], other[head:][::-1])
        while head and _joined(bare[head - 1], bare[head : head + 1] or " "):
            head -= 1
        while tail and tail < len(bare) and _joined(bare[-tail - 1], bare[-tail]):
            tail -= 1
        new, old = bare[head : len(bare) - tail], other[head : len(other) - tail]
        opened = head == 0 or bare[head - 1] in _EDGE or not _han(bare[head - 1])
        closed = tail == 0 or bare[-tail] in _BEHIND or not _han(bare[-tail])
        if opened and closed and old and head + tail >= 4 and 2 <= len(new) <= 10 and _THING.fullmatch(new):
            said = rng.choice((f"{new}呢？", f"{new}呢", f"那{new}呢？"))
            return {"history": _talk([earlier]), "question": said, "rewrite": question}
    return None


def _common(one: str, other: str) -> int:
    """Length of what both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff"


def _swapped(row: Row, others: Sequence[Row], rng: random.Random) -> Row | None:
    """The same asked of another thing: «北京有多少人口？» – «上海呢？»."""
    subject, question = _subject(row), row["question"].strip()
    names = [name for name in map(_subject, others) if name and name != subject]
    if not subject or not names:
        return None
    name = min(names, key=lambda n: abs(len(n) - len(subject)))
    said = rng.choice((f"{name}呢？", f"那{name}呢？", f"{name}呢"))
    return {"history": _talk([row]), "question": said, "rewrite": question.replace(subject, name)}


def _subject(row: Row) -> str:
    """The title, where the question opens with it."""
    title = re.sub(r"[（(].*", "", (row.get("title") or "").split(" › ")[-1]).strip()
    return title if 2 <= len(title) <= 12 and row["question"].startswith(title) else ""


def _complete(row: Row, before: Sequence[Row], foreign: Sequence[Row], rng: random.Random) -> Row | None:
    """A question that leans on nothing stays as it is, whatever was said before it."""
    question, title = row["question"].strip(), (row.get("title") or "").split(" › ")[-1]
    if before and rng.random() < 0.5:  # it names what it shares, so it left nothing out
        whole = shared(question, before[0]["question"], row.get("title") or "")
        return {"history": _talk(before[:1]), "question": question, "rewrite": question} if whole else None
    if not title or title[:3] not in question:
        return None
    return {"history": _talk(foreign), "question": question, "rewrite": question}


def _talk(rows: Sequence[Row]) -> list[str]:
    return [text for row in rows for text in (row["question"].strip(), _answer(row))]


def _answer(row: Row) -> str:
    if not row.get("answers"):
        return UNKNOWN
    text: str = row["answers"][0]["text"]
    return text if len(text) <= _ANSWER else text[:_ANSWER] + "…"
