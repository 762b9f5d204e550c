"""How fast the generator runs here, and how near to what the memory allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gglm.engine import Engine
from gglm.generate import Rules, stream
from gglm.model import ChatGGLM
from gglm.tokenizer import EOS
from gglm.types import SamplingOptions, Source

PASSAGE = "用户可以在设置页面修改保存路径，也可以导入已有的文件；系统会检查格式，并在完成后给出一份报告。"


def best_of(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of several runs: what the machine can do when left alone."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def memory_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that one pass over a large array reads, with torch's threads."""
    data = torch.ones(megabytes * 2**18)
    return data.numel() * 4 / best_of(data.sum, 5)


def run(folder: Path | None, threads: int, int8: bool, tokens: int = 64, repeats: int = 5) -> dict[str, Any]:
    """Times in milliseconds, tokens a second, and the share of the measured memory bandwidth.

    A decoded token has to read the decoder's weights and the output table once; their bytes times the
    tokens a second, over the measured bandwidth, is the share.
    """
    began = time.perf_counter()
    engine = Engine.load(folder, threads, int8)
    load_ms = 1000 * (time.perf_counter() - began)
    window = engine.model.config.window
    source = Source(PASSAGE * (window // 40), "测试")
    one = engine.tokenizer.encode(source.text)[: window - 40]
    text = engine.tokenizer.decode(one)
    question = "怎样修改保存路径？"
    encode = {}
    for count in (1, 4):
        sources = [Source(text, "测试")] * count
        encode[str(count)] = 1000 * best_of(partial(engine.read, question, sources), repeats)
    memory, _ = engine.memory("问答", question, [Source(text, "测试")] * 4)
    rules = Rules.standard(len(engine.tokenizer), engine.model.config.vocab_size)
    rules.forbidden[EOS] = True
    options = SamplingOptions(max_tokens=tokens)
    seconds = best_of(lambda: list(stream(engine.model, memory, options, rules)), repeats)
    first = best_of(lambda: next(iter(stream(engine.model, memory, SamplingOptions(max_tokens=1), rules))), repeats)
    rate = tokens / seconds
    bandwidth = memory_bandwidth()
    touched = _bytes_per_token(engine)
    return {
        "model": engine.id,
        "parameters": ChatGGLM(engine.model.config).count_parameters(),
        "threads": threads,
        "int8": int8,
        "load_ms": load_ms,
        "read_ms": encode,
        "read_tokens_per_s": 1000 * 4 * window / encode["4"],
        "first_token_ms": 1000 * first,
        "decode_tokens_per_s": rate,
        "decode_source_tokens": int(memory.tokens.shape[1]),
        "bytes_per_token": touched,
        "memory_bandwidth_gb_s": bandwidth / 1e9,
        "bandwidth_share": rate * touched / bandwidth,
    }


def _bytes_per_token(engine: Engine) -> int:
    """Bytes of the weights that one decoding step reads; an int8 matrix has a byte a weight."""
    total = engine.model.embedding.numel() * 4
    for module in engine.model.decoder.modules():
        total += sum(p.numel() * p.element_size() for p in module.parameters(recurse=False))
        weight = getattr(module, "weight", None)
        if callable(weight):  # torch's packed int8 layer gives its matrix by a call
            total += weight().numel()
    return total
