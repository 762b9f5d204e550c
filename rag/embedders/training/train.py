"""Train `gglm-embed-zh`, stage by stage: ``python -m rag.embedders.training.train STAGE --data … --work …``.

Stages write into the work folder and read what earlier ones left there: ``tokenizer``, ``corpus`` (with
``questions``, which can be made anew alone), ``static``, ``encoder``, ``scores``, ``export``; ``teach`` lets a
teacher score lists of passages, which ``static --lists`` and ``distil`` learn from. One core is enough for all.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gglm.errors import DataError
from rag.embedders.training import distil, encoder, static
from rag.embedders.training.packing import bm25_neighbours
from rag.embedders.training.pairs import (
    QA,
    Corpus,
    Ids,
    Labelled,
    Ragged,
    labelled_texts,
    read_corpus,
    read_labelled,
    read_similar,
    tokenize,
)
from rag.embedders.training.scores import Task, ranks, summary, task, tasks

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)


def load_tokenizer(work: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")


def make_tokenizer(args: argparse.Namespace) -> None:
    """Pieces from a sample of all sources, and the passages and questions of the training sets."""
    from gglm.training.corpus import documents, read_jsonl
    from rag.embedders.training.tokenizer import train_tokenizer

    texts = list(documents(args.data / "text", scale=0.05))
    for name in QA:
        rows = list(read_jsonl(args.data / f"qa/{name}.jsonl.zst"))
        texts += sorted({row["context"] for row in rows}) + [row["question"] for row in rows]
    np.random.default_rng(0).shuffle(texts)
    train_tokenizer(texts, args.vocab).save_pretrained(args.work / "tokenizer")


def save_labelled(rows: Labelled, path: Path) -> None:
    np.savez(
        path,
        q=rows.questions.ids,
        qo=rows.questions.offsets,
        p=rows.passages.ids,
        po=rows.passages.offsets,
        passage=rows.passage,
        centre=rows.centre,
    )


def load_labelled(path: Path) -> Labelled:
    with np.load(path) as z:
        return Labelled(Ragged(z["q"], z["qo"]), Ragged(z["p"], z["po"]), z["passage"], z["centre"])


def make_questions(args: argparse.Namespace) -> None:
    rows = read_labelled(args.data, load_tokenizer(args.work), args.questions)
    for name, part in zip(("questions", "titles"), rows, strict=True):
        save_labelled(part, args.work / f"{name}.npz")
        log.info("%s: %d over %d passages", name, len(part.questions), len(part.passages))


def make_corpus(args: argparse.Namespace) -> None:
    make_questions(args)
    tokenizer = load_tokenizer(args.work)
    corpus = read_corpus(args.data / "text", tokenizer, args.scale)
    corpus.save(args.work / "corpus.npz")
    log.info("corpus: %d chunks, %.1f M pieces", len(corpus), len(corpus.sentences.ids) / 1e6)


class Exam:
    """Scores of any encoder of ids on the given tasks."""

    def __init__(self, sets: list[Task], tokenizer: PreTrainedTokenizerFast) -> None:
        self.sets = [
            (t, [np.array(tokenize(tokenizer, part), object) for part in (t.questions, t.passages)]) for t in sets
        ]

    def __call__(self, encode: Callable[[list[Ids]], static.FloatMatrix]) -> dict[str, dict[str, float]]:
        result = {}
        for t, (questions, passages) in self.sets:
            as_ids = [[np.array(i, np.uint16) for i in part] for part in (questions, passages)]
            result[t.name] = summary(ranks(encode(as_ids[0]), encode(as_ids[1]), t.gold))
        return result


def line(scores: dict[str, dict[str, float]]) -> str:
    return "  ".join(f"{name} {s['R@1']:.3f}/{s['R@5']:.3f}/{s['R@10']:.3f}" for name, s in scores.items())


def selection(data: Path) -> list[Task]:
    """What checkpoints are chosen by: the trial set, and authored_dev among a quarter of all authored passages."""
    authored = task("authored_dev", data, ("authored_dev", "authored_train"), ("authored_dev",))
    own = int(authored.gold.max()) + 1
    kept = authored.passages[:own] + authored.passages[own::4]
    return [
        task("cmrc_trial", data, ("cmrc2018_trial",)),
        Task("authored_dev/4", authored.questions, kept, authored.gold),
    ]


def make_static(args: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(args.work)
    corpus = Corpus.load(args.work / "corpus.npz")
    questions, titles = (load_labelled(args.work / f"{n}.npz") for n in ("questions", "titles"))
    exam = Exam(selection(args.data), tokenizer)

    def report(vectors: static.FloatMatrix) -> str:
        return line(exam(lambda texts: static.average(vectors, texts)))

    if args.start != "static":
        vectors = encoder.piece_vectors(bert_of(load(Path(args.start))))
    elif not (start := args.work / "ppmi.npy").exists():
        began = time.monotonic()
        vectors = static.weigh(static.ppmi_vectors(corpus, len(tokenizer), encoder.static_dim(args.width)), corpus)
        np.save(start, vectors)
        log.info("co-occurrence vectors: %.0f s", time.monotonic() - began)
    else:
        vectors = np.load(start)
    log.info("static, begin: %s", report(vectors))
    feed = static.batches(
        corpus,
        questions,
        titles,
        read_similar(args.data, tokenizer),
        args.batch,
        np.random.default_rng(args.seed),
        args.balance,
    )
    lists = list_feed(args, questions, thinned=static.THINNED[1], limit=400) if args.lists else None
    began = time.process_time()
    vectors = static.train_static(
        vectors, feed, args.steps or 1400, args.lr, args.temperature, report, lists, args.weight
    )
    log.info("static: %.0f CPU seconds", time.process_time() - began)
    vectors[tokenizer.cls_token_id] = 0  # averages leave it out, an encoder has it in every text
    log.info("static, done: %s", report(vectors))
    np.save(args.work / args.vectors, vectors)


def make_encoder(args: argparse.Namespace) -> None:
    from rag.embedders.training.contrast import train_encoder

    tokenizer = load_tokenizer(args.work)
    model = begin(args)
    exam = Exam(selection(args.data), tokenizer)
    corpus = Corpus.load(args.work / "corpus.npz")
    questions, titles = (load_labelled(args.work / f"{n}.npz") for n in ("questions", "titles"))
    train_encoder(
        model,
        corpus,
        questions,
        titles,
        read_similar(args.data, tokenizer),
        args,
        lambda: exam(lambda texts: encoder.encode(model, texts)),
    )


def make_lists(args: argparse.Namespace) -> None:
    """Lists of near passages with a teacher's scores: ``work/TEACHER.npz`` or ``--lists``."""
    questions, rng = load_labelled(args.work / "questions.npz"), np.random.default_rng(args.seed)
    near = bm25_neighbours(questions.questions, questions.passages, len(load_tokenizer(args.work)), top=args.near)
    chosen = distil.choose(questions, near, args.count, args.size, args.pool, rng, args.longest)
    texts = labelled_texts(args.data, args.questions, real=True)
    if len(texts.questions) != len(questions.questions):
        raise DataError("questions.npz was made of other files: give the same --questions")
    log.info("%d questions over %d passages", len(chosen[0]), len(np.unique(chosen[1])))
    began = time.process_time()
    lists = distil.teach(distil.TEACHERS[args.teacher](), texts, *chosen)
    lists.save(args.lists or args.work / f"{args.teacher}.npz")
    for temperature in (0.5, 1, 2):
        value = distil.TEMPERATURES[args.teacher] * temperature
        log.info("temperature %g: %s", value, lists.describe(value))
    log.info("%s: %.0f CPU seconds", args.teacher, time.process_time() - began)


def list_feed(args: argparse.Namespace, rows: Labelled, thinned: float, limit: int) -> Iterator[distil.ListBatch]:
    temperature = args.teacher_temperature or distil.TEMPERATURES[args.teacher]
    lists = distil.Lists.load(args.lists)
    log.info(lists.describe(temperature))
    return distil.feed(lists, rows, args.list_batch, limit, temperature, thinned, np.random.default_rng(args.seed + 1))


def make_distilled(args: argparse.Namespace) -> None:
    """Layers trained over frozen piece vectors; the model lands in ``work/run``."""
    if not args.lists:
        raise DataError("distil needs --lists")
    model, exam = begin(args), Exam(selection(args.data), load_tokenizer(args.work))

    def report() -> str:
        return line(exam(lambda texts: encoder.encode(model, texts)))

    log.info("begin: %s", report())
    batches = list_feed(args, load_labelled(args.work / "questions.npz"), args.thin, args.crop)
    distil.train_layers(
        model, batches, args.minutes, args.lr, args.weight, args.temperature, args.crop, report, args.steps, args.seed
    )
    model.save(str(args.work / args.run), create_model_card=False)


def load(folder: Path) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def begin(args: argparse.Namespace) -> SentenceTransformer:
    """``--vectors`` averaged, or the model of ``--start``, over these piece vectors where ``--graft`` says so.

    A model of more than ``--layers`` layers loses the upper ones.
    """
    if args.start == "static":
        bert = encoder.build(np.load(args.work / args.vectors), args.width, args.layers, args.inner, args.seed)
        return encoder.assemble(bert, load_tokenizer(args.work), args.work / "start")
    model = load(Path(args.start))
    if args.layers < len(bert_of(model).encoder.layer):
        encoder.cut(bert_of(model), args.layers)
    if args.graft:
        encoder.graft(bert_of(model), np.load(args.work / args.vectors), args.graft)
    return model


def bert_of(model: SentenceTransformer) -> BertModel:
    bert: BertModel = cast(Any, model[0]).auto_model
    return bert


def show_scores(args: argparse.Namespace) -> None:
    model = begin(args)
    exam = Exam(tasks(args.data), load_tokenizer(args.work))
    scores = exam(lambda texts: encoder.encode(model, texts))
    print(json.dumps(scores, indent=1))
    log.info(line(scores))


def make_export(args: argparse.Namespace) -> None:
    size = encoder.export(begin(args), args.out)
    log.info("%s: %.2f MiB", args.out, size / 2**20)


STAGES = {
    "tokenizer": make_tokenizer,
    "corpus": make_corpus,
    "questions": make_questions,
    "teach": make_lists,
    "distil": make_distilled,
    "static": make_static,
    "encoder": make_encoder,
    "scores": show_scores,
    "export": make_export,
}


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    out.add_argument("stage", choices=STAGES)
    out.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with text/, qa/, retrieval/ …")
    out.add_argument("--work", type=Path, default=Path("runs/embedder"), help="folder for what the stages leave")
    out.add_argument("--vocab", type=int, default=16_000)
    out.add_argument("--width", type=int, default=256)
    out.add_argument("--layers", type=int, default=2, help="upper ones of a model begun from are left out")
    out.add_argument("--inner", type=int, default=768)
    out.add_argument("--questions", type=Path, nargs="*", default=[], help="corpus, teach: further files like qa/*")
    out.add_argument("--scale", type=float, default=0.5, help="corpus: share of each source's cap")
    out.add_argument("--minutes", type=float, default=8)
    out.add_argument("--steps", type=int, default=0, help="batches to train on (encoder: 0 = by minutes)")
    out.add_argument("--batch", type=int, default=1024)
    out.add_argument("--lr", type=float, default=0.02)
    out.add_argument("--balance", type=float, default=0, help="static: 0 questions are drawn alike, 1 passages")
    out.add_argument("--temperature", type=float, default=0.05)
    out.add_argument("--crop", type=int, default=128, help="encoder: pieces of a passage per step")
    out.add_argument("--muon-lr", type=float, default=0.003, help="encoder: rate of the layers' matrices")
    out.add_argument("--memory", type=int, default=1024, help="encoder: passages of earlier batches as negatives")
    out.add_argument("--ema", type=float, default=0.98, help="encoder: decay of the averaged weights")
    out.add_argument("--thin", type=float, default=0, help="encoder: mean share of a passage's pieces left out")
    out.add_argument("--start", default="static", help="model folder to begin from (static: from --vectors)")
    out.add_argument("--teacher", choices=distil.TEACHERS, default="reader")
    out.add_argument("--teacher-temperature", type=float, default=0, help="0: the teacher's own")
    out.add_argument("--lists", type=Path, help="teach writes them here; static and distil learn from them")
    out.add_argument("--count", type=int, default=2000, help="teach: questions")
    out.add_argument("--size", type=int, default=7, help="teach: passages of a list")
    out.add_argument("--near", type=int, default=24, help="teach: nearest passages looked at")
    out.add_argument("--pool", type=int, default=0, help="teach: only this many passages (0: all)")
    out.add_argument("--longest", type=int, default=400, help="teach: pieces of a passage, longer ones are left out")
    out.add_argument("--list-batch", type=int, default=48, help="lists of a step")
    out.add_argument("--weight", type=float, default=1, help="of the divergence from the teacher")
    out.add_argument("--vectors", default="static.npy", help="static writes these piece vectors, encoder begins there")
    out.add_argument("--graft", type=float, default=0, help="put this share of --start's layers over --vectors")
    out.add_argument("--run", default="run", help="encoder: name of the folder for checkpoints")
    out.add_argument("--out", type=Path, default=Path(__file__).parents[1] / encoder.NAME)
    out.add_argument("--every", type=float, default=5, help="encoder: minutes between checkpoints")
    out.add_argument("--seed", type=int, default=0)
    return out


def main() -> None:
    args = parser().parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
