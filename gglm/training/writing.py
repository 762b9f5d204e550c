"""What the decoder learns from: answers, chat, stand-alone questions, summaries, translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gglm.errors import DataError
from gglm.model import ChatGGLM
from gglm.tasks import Task, encode_writing
from gglm.tokenizer import EOS, Tokenizer
from gglm.training.batch import collate, losses
from gglm.training.corpus import read_jsonl
from gglm.training.reading import MAX_TARGET, answer_span, crop, longest_first, reading_example
from gglm.training.spans import Example
from gglm.types import Turn


@dataclass(frozen=True)
class WritingRow:
    """One pair of input and wanted text; ``context``/``span`` only in 问答 (code points of the evidence)."""

    task: Task
    text: str
    target: str
    history: tuple[Turn, ...] = ()
    title: str = ""
    context: str = ""
    span: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """Characters that are read and written."""
        return len(self.text) + len(self.target) + len(self.context)


def _turns(texts: Sequence[str]) -> tuple[Turn, ...]:
    return tuple(Turn("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts))


def answers(row: dict[str, Any]) -> list[WritingRow]:
    """A CMRC-like row: the answer's text, copied or in own words."""
    span = answer_span(row)
    if span is None or not row.get("answers"):
        return []
    return [
        WritingRow("问答", row["question"], row["answers"][0]["text"], (), row.get("title") or "", row["context"], span)
    ]


def dialogue(row: dict[str, Any]) -> list[WritingRow]:
    """``{"turns": [{"role", "content"}]}``: each assistant turn after what came before it."""
    names = {"{{name}}": "ChatGGLM", "{{author}}": "ChatGGLM 项目"}
    turns = []
    for turn in row["turns"]:
        content = turn["content"]
        for key, value in names.items():
            content = content.replace(key, value)
        turns.append(Turn(turn["role"], content))
    return [
        WritingRow("对话", turns[i - 1].content, turns[i].content, tuple(turns[: i - 1]))
        for i in range(1, len(turns))
        if turns[i].role == "assistant" and turns[i - 1].role == "user"
    ]


def rewriting(row: dict[str, Any]) -> list[WritingRow]:
    """``{"history", "question", "rewrite"}``, or a grounded dialogue with a ``rewrite`` a turn."""
    if "rewrite" in row:
        return [WritingRow("改写", row["question"], row["rewrite"], _turns(row["history"]))]
    said: list[str] = []
    out = []
    for turn in row["turns"]:
        if turn.get("kind") != "chat" and turn.get("rewrite"):
            out.append(WritingRow("改写", turn["question"], turn["rewrite"], _turns(said)))
        said += [turn["question"], turn.get("answer") or ""]
    return out


def summary(row: dict[str, Any]) -> list[WritingRow]:
    return [WritingRow("摘要", row["text"], row["summary"])]


def translation(row: dict[str, Any]) -> list[WritingRow]:
    return [WritingRow("翻译", row["zh"], row["en"])]


def back_translation(row: dict[str, Any]) -> list[WritingRow]:
    return [WritingRow("英译中", row["en"], row["zh"])]


READERS: dict[str, Callable[[dict[str, Any]], list[WritingRow]]] = {
    "answers": answers, "dialogue": dialogue, "rewriting": rewriting, "summary": summary,
    "translation": translation, "back_translation": back_translation,
}  # fmt: skip


@dataclass(frozen=True)
class WritingSource:
    """Files of one kind and their share of the steps (any positive numbers)."""

    kind: str
    files: tuple[Path, ...]
    weight: float


class WritingSampler:
    """Micro-batches of one task each, by step; the same seed gives the same ones.

    Raises:
        DataError: a source has no usable rows or an unknown kind.
    """

    def __init__(self, sources: Sequence[WritingSource], tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        self.pools: list[list[WritingRow]] = []
        for source in sources:
            if source.kind not in READERS:
                raise DataError(f"unknown kind {source.kind!r}; one of {', '.join(READERS)}")
            pool = [w for f in source.files for row in read_jsonl(f) for w in READERS[source.kind](row)]
            if not pool:
                raise DataError(f"no usable rows of kind {source.kind} in {', '.join(map(str, source.files))}")
            self.pools.append(pool)
        weight = np.array([s.weight for s in sources])
        self.share = weight / weight.sum()

    def batch(self, step: int, micro: int, groups: int = 4) -> list[list[Example]]:
        """``groups`` micro-batches, each of one source; short examples come ``micro`` × 4 at a time.

        Rows of like length share one, since the shorter are padded: eight times as many are drawn, and of these, by
        length, one eighth.
        """
        rng = np.random.default_rng([self.seed, 17, step])
        out = []
        for source in rng.choice(len(self.pools), groups, p=self.share):
            pool = self.pools[int(source)]
            short = pool[0].task in ("翻译", "英译中", "对话", "改写")
            drawn = rng.integers(len(pool), size=8 * (micro * 4 if short else micro)).tolist()
            picked = np.array_split(sorted(drawn, key=lambda i: pool[i].length), 8)[rng.integers(8)]
            out.append(longest_first(self.example(pool[int(i)], rng) for i in picked))
        return out

    def example(self, row: WritingRow, rng: np.random.Generator, size: int = 224) -> Example:
        target = np.append(self.tokenizer.encode(row.target)[: MAX_TARGET - 1].astype(np.int64), EOS)
        if row.task == "问答" and row.span is not None:
            ids, starts, ends = (a.astype(np.int64) for a in self.tokenizer.encode_with_offsets(row.context))
            first = int(np.searchsorted(ends, row.span[0], "right"))
            last = max(first, int(np.searchsorted(starts, row.span[1], "left")) - 1)
            question = self.tokenizer.encode(row.text).astype(np.int64)
            title = self.tokenizer.encode(row.title).astype(np.int64)[:32]
            passage, span = crop(ids, (first, last), size - len(question[:96]) - len(title) - 4, rng)
            example = reading_example(question, title, passage, span, self.tokenizer.is_content)
            example.relevant, example.slots = -1.0, []
            example.target = target
            return example
        encoded, copyable = encode_writing(row.task, self.tokenizer, row.text, row.history, room=size)
        return Example(
            encoded.tokens, encoded.segments, encoded.matches, encoded.passage, [], target=target, copyable=copyable
        )


def heldout_loss(
    sources: Sequence[WritingSource], tokenizer: Tokenizer, batches: int = 4
) -> Callable[[ChatGGLM], dict[str, float]]:
    """Cross-entropy a token on held-out rows of each source, by its kind and first file."""
    samplers = {f"{s.kind}/{s.files[0].name.split('.')[0]}": WritingSampler([s], tokenizer, seed=1) for s in sources}

    def evaluate(model: ChatGGLM) -> dict[str, float]:
        figures = {}
        for name, sampler in samplers.items():
            total = torch.zeros(2)
            for step in range(batches):
                for examples in sampler.batch(step, 4, groups=1):
                    total += losses(model, collate(examples))["write"]
            figures[name] = float(total[0] / total[1])
        return figures

    return evaluate
