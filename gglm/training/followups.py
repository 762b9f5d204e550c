"""Follow-up questions made from labelled ones by rule, with the stand-alone question that each came from.

Two questions over one passage mostly share what they are about. Asked one after the other, the second need not name
it: a pronoun stands there, or nothing («张琳什么时候进入国家队？» – «他在全运会上获得了什么？»), or only what differs is said
(«…呢？»). The second question as it was is what the decoder has to write back. After the incomplete utterances of Pan et
al. 2019 and Su et al. 2019, made here instead of annotated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

UNKNOWN = "资料中没有找到。"
_THING = re.compile(r"[\u3400-\u9fffA-Za-z0-9·.+#_-]+")
_EDGE = "的了在是有被由将会和与及对从为于中里上下把让给到向以及其该这那一个各每几多少什么哪谁怎如何吗呢吧请问可能要应需不没用年月日"
_BEHIND = "的有是在多什几哪谁怎为何需要可能会叫属应包都也于从又还最只"
"""What the rest of a question begins with, where it was the same in the question before."""
_BEFORE = "的了在是有被由将会和与及对从为于把让给到向以用"
_PERSON = re.compile(r"[他她]")
_SHORTEST = 2
_LONGEST = 16
_ANSWER = 60
"""Characters of an answer that the talk shows."""


def followups(rows: Sequence[dict[str, Any]], seed: int = 0, times: int = 1) -> Iterator[dict[str, Any]]:
    """``{"history", "question", "rewrite"}`` rows of CMRC-like ones; those of one ``context`` belong together.

    Args:
        times: how often each question is tried. A question that shares nothing with its neighbours gives none.
    """
    rng = random.Random(seed)
    talks: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if len(row["question"]) >= 4:
            talks.setdefault(row["context"], []).append(row)
    groups = [group for group in talks.values() if len(group) > 1]
    for _ in range(times):
        for group in groups:
            for number, row in enumerate(group):
                before = [group[i] for i in rng.sample(range(len(group)), min(len(group), 4)) if i != number][:3]
                made = rng.choice((_leaning, _leaning, _leaning, _differing, _swapped, _complete))
                if (found := made(row, before, groups, rng)) is not None:
                    yield found


def _leaning(
    row: dict[str, Any], before: list[dict[str, Any]], groups: Sequence[Any], rng: random.Random
) -> dict[str, Any] | None:
    """A pronoun, or nothing, in the place of what an earlier question or its answer named."""
    question = row["question"].strip()
    for at, earlier in enumerate(before):
        thing = shared(question, f"{earlier['question']}\n{_answer(earlier)}", row.get("title") or "")
        if not thing:
            continue
        short = shortened(question, thing, row["context"], rng)
        if short is None:
            return None
        talk = _talk([earlier])
        if len(before) > 1 and rng.random() < 0.4:  # a turn between them that leans on the first as well
            other = before[1 - at] if at < 2 else before[0]
            middle = other["question"].strip()
            if thing in middle:
                middle = shortened(middle, thing, row["context"], rng) or middle
            talk += [middle, _answer(other)]
        return {"history": talk, "question": short, "rewrite": question}
    return None


def shared(question: str, earlier: str, title: str = "") -> str:
    """The longest thing that both name, as far as its edges can be told; empty where there is none."""
    matcher = SequenceMatcher(None, question, earlier, autojunk=False)
    best, score = "", 0.0
    for block in matcher.get_matching_blocks():
        for found in _THING.finditer(question[block.a : block.a + block.size]):
            start = block.a + found.start()
            text = _whole(question, start, start + len(found[0]))
            text = text.strip(_EDGE)
            if not _SHORTEST <= len(text) <= _LONGEST or text not in earlier or text.isdigit():
                continue
            value = min(len(text), 8) + 4 * (text in title or title in text) + 2 * question.startswith(text)
            if value > score:
                best, score = text, value
    return best


def _whole(text: str, start: int, end: int) -> str:
    """Without the part of a Latin word or number that is cut off at either edge."""
    while start < end and start > 0 and _joined(text[start - 1], text[start]):
        start += 1
    while end > start and end < len(text) and _joined(text[end - 1], text[end]):
        end -= 1
    return text[start:end]


def _joined(left: str, right: str) -> bool:
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def shortened(question: str, thing: str, context: str, rng: random.Random) -> str | None:
    """The question with a pronoun for the thing, or without it where it opens; None where too little is left."""
    at = question.find(thing)
    head, tail = question[:at], question[at + len(thing) :]
    for opening, closing in ("《》", "“”", "「」", '""'):
        if head.endswith(opening) and tail.startswith(closing):
            head, tail = head[:-1], tail[1:]
    rest = tail.lstrip("的，, ")
    closed = not tail or tail[0] in _BEHIND or not _han(tail[0])
    if not head and len(rest) >= 4 and context.count(thing) > 1 and (rng.random() < 0.6 or not closed):
        return rng.choice(("", "", "那")) + rest
    opened = not head or head[-1] in _BEFORE or not _han(head[-1])
    if not closed or not opened or re.match(r"\s?[A-Za-z0-9]", tail) or re.search(r"[A-Za-z0-9]\s?$", head):
        return None  # perhaps the middle of a word
    if head in ("在", "关于", "对于", "按", "根据") and len(rest) >= 6 and rng.random() < 0.5:
        return re.sub(r"^[中里上内，, ]+", "", rest)
    person = _PERSON.findall(context)
    if len(person) >= 2 and len(thing) <= 4:
        pronoun = max(set(person), key=person.count)
    else:
        pronoun = rng.choice(("它", "它", "它", "这个", "其" if tail.startswith("的") else "它"))
    if len(head) + len(tail) < 3:
        return None
    if pronoun == "其":
        tail = tail[1:]
    return head + pronoun + tail


def _differing(
    row: dict[str, Any], before: list[dict[str, Any]], groups: Sequence[Any], rng: random.Random
) -> dict[str, Any] | None:
    """Only what the question does not share with the one before it: «…呢？»."""
    question = row["question"].strip()
    for earlier in before:
        asked = earlier["question"].strip()
        bare, other = question.rstrip("？?。"), asked.rstrip("？?。")
        head = _common(bare, other)
        tail = _common(bare[head:][::-1], other[head:][::-1])
        while head and (_joined(bare[head - 1], bare[head : head + 1] or " ")):
            head -= 1
        while tail and tail < len(bare) and _joined(bare[-tail - 1], bare[-tail]):
            tail -= 1
        new, old = bare[head : len(bare) - tail], other[head : len(other) - tail]
        cleanly = (head == 0 or bare[head - 1] in _EDGE or not _han(bare[head - 1])) and (
            tail == 0 or bare[-tail] in _BEHIND or not _han(bare[-tail])
        )
        if cleanly and head + tail >= 4 and 2 <= len(new) <= 10 and old and _THING.fullmatch(new):
            said = rng.choice((f"{new}呢？", f"{new}呢", f"那{new}呢？", f"{new}的呢" if bare[-tail:][:1] == "的" else f"{new}呢？"))
            return {"history": _talk([earlier]), "question": said, "rewrite": question}
    return None


def _common(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff"


def _swapped(
    row: dict[str, Any], before: list[dict[str, Any]], groups: Sequence[Any], rng: random.Random
) -> dict[str, Any] | None:
    """The same asked of another thing: «北京有多少人口？» – «上海呢？»."""
    subject = _subject(row)
    others = [s for s in (_subject(rng.choice(groups)[0]) for _ in range(4)) if s and s != subject]
    if not subject or not others:
        return None
    other = min(others, key=lambda s: abs(len(s) - len(subject)))
    question = row["question"].strip()
    said = rng.choice((f"{other}呢？", f"那{other}呢？", f"{other}呢"))
    return {"history": _talk([row]), "question": said, "rewrite": question.replace(subject, other)}


def _subject(row: dict[str, Any]) -> str:
    """The title, where the question opens with it."""
    title = re.sub(r"[（(].*", "", (row.get("title") or "").split(" › ")[-1]).strip()
    return title if 2 <= len(title) <= 12 and row["question"].startswith(title) else ""


def _complete(
    row: dict[str, Any], before: list[dict[str, Any]], groups: Sequence[Any], rng: random.Random
) -> dict[str, Any] | None:
    """A question that leans on nothing: it stays as it is, whatever was said."""
    if rng.random() < 0.5 and before:
        if not shared(row["question"], before[0]["question"], row.get("title") or ""):
            return None  # it may have left its topic out
        return {"history": _talk(before[:1]), "question": row["question"], "rewrite": row["question"]}
    title = (row.get("title") or "").split(" › ")[-1]
    if not title or title[:3] not in row["question"]:
        return None
    other = rng.sample(rng.choice(groups), 2)[: rng.choice((1, 2))]
    return {"history": _talk(other), "question": row["question"], "rewrite": row["question"]}


def _talk(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [text for row in rows for text in (row["question"].strip(), _answer(row))]


def _answer(row: dict[str, Any]) -> str:
    if not row.get("answers"):
        return UNKNOWN
    text = row["answers"][0]["text"]
    return text if len(text) <= _ANSWER else text[:_ANSWER] + "…"
