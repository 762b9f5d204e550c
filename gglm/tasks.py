"""How a task's text becomes encoder input.

Layout: ``[task] [Q] question [SEP] title [PARA] passage``. The task token is the null position of
the span head, ``[Q]`` its question slot. Segments: 0 question, 1 title, 2 passage. Match codes
tell each side which of its tokens (1), bigrams (2) and trigrams (4) the other side has too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gglm.tokenizer import FIRST_TASK, PARA, QUERY, SEP, Tokenizer
from gglm.types import Turn

Task = Literal["问答", "对话", "改写", "摘要", "翻译", "英译中", "出题", "预训"]
TASKS: tuple[Task, ...] = ("问答", "对话", "改写", "摘要", "翻译", "英译中", "出题", "预训")
TASK_ID: dict[Task, int] = {task: FIRST_TASK + i for i, task in enumerate(TASKS)}
MAX_QUESTION = 96
MAX_TITLE = 32

Array = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def match_codes(a: Array, b: Array, content: Mask) -> tuple[Array, Array]:
    """Match code of each token of ``a`` against ``b`` and the other way round (0…7)."""
    return _codes(a, b, content), _codes(b, a, content)


def _codes(x: Array, other: Array, content: Mask) -> Array:
    code = np.zeros(len(x), np.int64)
    if not len(x) or not len(other):
        return code
    code |= np.isin(x, other) & content[x]
    for n, bit in ((2, 2), (3, 4)):
        if len(x) < n or len(other) < n:
            break
        grams, others = _grams(x, n), _grams(other, n)
        hit = np.flatnonzero(np.isin(grams, others))
        for offset in range(n):
            code[hit + offset] |= bit
    return code


def _grams(x: Array, n: int) -> Array:
    size = len(x) - n + 1
    key = x[:size].astype(np.int64)
    for offset in range(1, n):
        key = key * 65_536 + x[offset : offset + size]
    return key


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoder input: int64 (L,) each; ``base`` is where the passage starts."""

    tokens: Array
    segments: Array
    matches: Array
    base: int

    @property
    def passage(self) -> Mask:
        mask = np.zeros(len(self.tokens), bool)
        mask[self.base :] = True
        return mask


def layout(task: Task, question: Array, title: Array, passage: Array, content: Mask) -> Encoded:
    """Assemble token ids into an encoder input.

    Args:
        question, title, passage: token ids; question and title are cut to their maximum.
        content: which ids count for match codes (`Tokenizer.is_content`), bool (V,).
    """
    question, title = question[:MAX_QUESTION].astype(np.int64), title[:MAX_TITLE].astype(np.int64)
    passage = passage.astype(np.int64)
    of_question, of_passage = match_codes(question, passage, content)
    tokens = np.concatenate([[TASK_ID[task], QUERY], question, [SEP], title, [PARA], passage])
    base = len(question) + len(title) + 4
    segments = np.zeros(len(tokens), np.int64)
    segments[len(question) + 3 : base] = 1
    segments[base:] = 2
    matches = np.zeros(len(tokens), np.int64)
    matches[2 : 2 + len(question)] = of_question
    matches[base:] = of_passage
    return Encoded(tokens, segments, matches, base)


def encode_task(task: Task, tokenizer: Tokenizer, question: str, title: str, passage: str) -> Encoded:
    """`layout` from text."""
    q, t, p = (tokenizer.encode(x).astype(np.int64) for x in (question, title, passage))
    return layout(task, q, t, p, tokenizer.is_content)


def history_text(history: Sequence[Turn], turns: int = 4) -> str:
    """The last ``turns`` messages as the passage of 对话 and 改写."""
    names = {"user": "用户", "assistant": "助手"}
    return "\n".join(f"{names[t.role]}：{t.content}" for t in history[-turns:])


def encode_writing(
    task: Task, tokenizer: Tokenizer, text: str, history: Sequence[Turn] = (), room: int = 384
) -> tuple[Encoded, Mask]:
    """Encoder input of a task that the decoder answers, and which positions may be copied, bool (L,).

    对话 and 改写: the message is the question, the history the passage (its last ``room`` tokens), and
    both may be copied. Other tasks: the text is the passage (its first ``room`` tokens).
    """
    none = np.zeros(0, np.int64)
    if task in ("对话", "改写"):
        past = tokenizer.encode(history_text(history)).astype(np.int64)[-room:]
        encoded = layout(task, tokenizer.encode(text).astype(np.int64), none, past, tokenizer.is_content)
        copyable = encoded.passage
        copyable[2 : encoded.base - 2] = True
        return encoded, copyable
    passage = tokenizer.encode(text).astype(np.int64)[:room]
    encoded = layout(task, none, none, passage, tokenizer.is_content)
    return encoded, encoded.passage


def pad_batch(items: list[Encoded], length: int = 0) -> tuple[Array, Array, Array, Mask]:
    """tokens, segments, matches, passage mask, each (B, L), padded to the longest (or ``length``)."""
    length = max(length, *(len(e.tokens) for e in items))
    tokens, segments, matches = (np.zeros((len(items), length), np.int64) for _ in range(3))
    passage = np.zeros((len(items), length), bool)
    for row, e in enumerate(items):
        n = len(e.tokens)
        tokens[row, :n], segments[row, :n], matches[row, :n] = e.tokens, e.segments, e.matches
        passage[row, e.base : n] = True
    return tokens, segments, matches, passage
