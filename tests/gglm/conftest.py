"""A ``tiny`` model that has learnt eight examples by heart, as a weights folder and an engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gglm import weights
from gglm.config import PRESETS
from gglm.engine import Engine
from gglm.model import ChatGGLM
from gglm.tasks import encode_task, encode_writing
from gglm.tokenizer import EOS, Tokenizer
from gglm.tokenizer import train as train_tokenizer
from gglm.training.batch import TrainBatch, collate, losses
from gglm.training.optim import make_optimizers, set_rate
from gglm.training.spans import Example

PASSAGES = [
    "本手册介绍净水器的使用。净水器的保修期为十八个月，自购买之日起计算。滤芯不在保修之列。",
    "张三是公司的总经理，李四负责销售，王五管理仓库。公司成立于1998年，总部设在北京。",
    "新版GGLM服务器使用GPU时，每秒能读三万个词。请先安装驱动程序，再启动服务。",
]
TITLES = ["净水器手册", "公司介绍", ""]
QUESTIONS: list[tuple[str, int, str]] = [
    ("净水器保修多久？", 0, "十八个月"),
    ("保修期从什么时候算起？", 0, "自购买之日起"),
    ("什么不在保修之列？", 0, "滤芯"),
    ("谁是总经理？", 1, "张三"),
    ("李四做什么？", 1, "负责销售"),
    ("公司哪一年成立？", 1, "1998年"),
    ("总部在哪里？", 1, "北京"),
    ("启动服务之前先做什么？", 2, "安装驱动程序"),
]
UNANSWERABLE = [("净水器保修多久？", 1), ("谁是总经理？", 0), ("总部在哪里？", 2), ("李四做什么？", 2)]
GREETING = ("你好", "你好！有什么可以帮你？")


@dataclass(frozen=True)
class Trained:
    """The overfitted model and where its weights are."""

    model: ChatGGLM
    tokenizer: Tokenizer
    folder: Path

    def engine(self) -> Engine:
        return Engine.load(self.folder)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    texts = [
        *PASSAGES, *TITLES, *(q for q, _, _ in QUESTIONS), *GREETING, "上海，中国的：；“”（）！？0123456789",
        "The quick brown fox jumps over the lazy dog. GPU server version release update, please install.",
    ]  # fmt: skip
    return train_tokenizer(texts * 10, tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", latin=46)


def answer_example(tokenizer: Tokenizer, question: str, title: str, text: str, answer: str | None) -> Example:
    """One training row: span labels, relevance, and the answer for the decoder to write."""
    encoded = encode_task("问答", tokenizer, question, title, text)
    allowed = encoded.passage
    allowed[0] = True
    span, target = (0, 0), np.zeros(0, np.int64)
    if answer is not None:
        start = text.index(answer)
        _, starts, ends = tokenizer.encode_with_offsets(text)
        first = int(np.flatnonzero(starts == start)[0])
        last = int(np.flatnonzero(ends == start + len(answer))[0])
        span = (encoded.base + first, encoded.base + last)
        target = np.append(encoded.tokens[span[0] : span[1] + 1], EOS)
    return Example(
        encoded.tokens, encoded.segments, encoded.matches, allowed, [(1, [span])],
        relevant=float(answer is not None), target=target,
    )  # fmt: skip


def examples(tokenizer: Tokenizer) -> list[Example]:
    """The eight examples."""
    return [answer_example(tokenizer, q, TITLES[i], PASSAGES[i], a) for q, i, a in QUESTIONS]


def others(tokenizer: Tokenizer) -> list[Example]:
    """Questions without an answer, and one of small talk."""
    rows = [answer_example(tokenizer, q, TITLES[i], PASSAGES[i], None) for q, i in UNANSWERABLE]
    chat, copyable = encode_writing("对话", tokenizer, GREETING[0])
    said = np.append(tokenizer.encode(GREETING[1]).astype(np.int64), EOS)
    talk = Example(chat.tokens, chat.segments, chat.matches, chat.passage, [], target=said, copyable=copyable)
    return [*rows, talk, talk, talk]  # thrice: it is all that is not copied


def crops(tokenizer: Tokenizer) -> list[Example]:
    """Windows of a text that is longer than a window."""
    long = PASSAGES[1] * 3 + PASSAGES[0] + PASSAGES[1] * 3
    question, _, answer = QUESTIONS[0]
    texts = [long[start : start + 108] for start in range(0, len(long) - 100, 7)]
    return [answer_example(tokenizer, question, TITLES[0], t, answer if answer in t else None) for t in texts]


def fit(model: ChatGGLM, batches: list[TrainBatch], steps: int) -> float:
    """Train over the batches in turn; returns the CPU seconds (what else runs here does not count)."""
    optimizers = make_optimizers(model.train(), lr=4e-3, muon_lr=0.02)
    began = time.process_time()
    for step in range(steps):
        set_rate(optimizers, min(1.0, (step + 1) / 10, (steps - step) / (0.4 * steps)))
        parts = losses(model, batches[step % len(batches)])
        total = torch.stack([p[0] / p[1].clamp_min(1) for name, p in parts.items() if name != "hit"]).sum()
        model.zero_grad(set_to_none=True)
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
    model.eval()
    return time.process_time() - began


def tiny(tokenizer: Tokenizer) -> ChatGGLM:
    torch.manual_seed(0)
    return ChatGGLM(replace(PRESETS["tiny"], vocab_size=tokenizer.padded_size, window=128))


@pytest.fixture(scope="session")
def trained(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = tiny(tokenizer)
    short = collate([*examples(tokenizer), *others(tokenizer)])
    fit(model, [short, short, collate(crops(tokenizer))], 180)
    folder = weights.save(
        tmp_path_factory.mktemp("weights") / "tiny", model, tokenizer.model, "gglm-tiny-test",
        reader=weights.ReaderSettings(overlap=32, max_answer_tokens=24), tasks=("问答", "对话"),
    )  # fmt: skip
    yield Trained(model, tokenizer, folder)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def engine(trained: Trained) -> Engine:
    return trained.engine()
