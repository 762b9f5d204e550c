"""Reading scores of an engine on question files, and the calibration of its answerability.

Files: JSON lines like CMRC 2018 (``{"id","title","context","question","answers":[{"text","start"}],
"answerable","type"}``, also zstd-compressed) or the official CMRC 2018 JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gglm import metrics, verdict
from gglm.errors import DataError
from gglm.evaluation_baselines import nearest_sentence, stripped_sentences
from gglm.types import Reading, Source

if TYPE_CHECKING:
    from gglm.engine import Engine

BATCH = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold paragraph; ``golds`` is empty where it has no answer."""

    id: str
    question: str
    title: str
    context: str
    golds: tuple[str, ...]
    type: str
    evidence: tuple[str, ...] = ()
    """Stretches of the paragraph that show the answer, each a complete one of its own (ExpMRC)."""

    @property
    def request(self) -> tuple[str, list[Source], tuple[()]]:
        return self.question, [Source(self.context, self.title)], ()


def load_items(path: Path) -> list[Item]:
    """All questions of a file.

    Raises:
        DataError: it is missing, of another format, or a row lacks what it needs.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        items = list(_official(path) if path.suffix == ".json" else _lines(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a question lacks {error}; rows need question, context and answers") from None
    if not items:
        raise DataError(f"{path} holds no questions")
    return items


def _lines(path: Path) -> Iterator[Item]:
    for number, line in enumerate(open_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("context"), str):
            raise DataError(f'{path}, line {number}: a question needs its paragraph in "context"')
        answerable = row.get("answerable", True) and row.get("type") != "unanswerable"
        golds = tuple(a["text"] for a in row.get("answers") or []) if answerable else ()
        kind = row.get("type") or ("span" if answerable else "unanswerable")
        shown = row.get("evidence") or ()
        evidence = (shown,) if isinstance(shown, str) else tuple(map(str, shown))
        title = row.get("title") or ""
        yield Item(str(row.get("id", number)), row["question"], title, row["context"], golds, kind, evidence)


def open_lines(path: Path) -> Iterator[str]:
    """Lines of a text file, zstd-compressed where its name ends in ``.zst``.

    Raises:
        DataError: it cannot be decoded, or zstandard is not installed.
    """
    import io

    try:
        with path.open("rb") as raw:
            if path.suffix == ".zst":
                try:
                    import zstandard
                except ImportError:
                    raise DataError(
                        f"{path} is compressed: `pip install zstandard`, or unpack it first (`zstd -d`)"
                    ) from None
                with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as unpacked:
                    yield from io.TextIOWrapper(unpacked, encoding="utf-8-sig")
            else:
                yield from io.TextIOWrapper(raw, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _official(path: Path) -> Iterator[Item]:
    """``cmrc2018_dev.json`` in either of its published forms (SQuAD-style and the earlier list)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if isinstance(data, dict):
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    golds = tuple(a["text"] for a in qa["answers"])
                    title = article.get("title") or ""
                    kind = "span" if golds else "unanswerable"
                    yield Item(qa["id"], qa["question"], title, paragraph["context"], golds, kind)
    else:
        for paragraph in data:
            for qa in paragraph["qas"]:
                golds = tuple(qa["answers"])
                title = paragraph.get("title") or ""
                yield Item(qa["query_id"], qa["query_text"], title, paragraph["context_text"], golds, "span")


Progress = Callable[[int], None]


def read_all(engine: Engine, items: Sequence[Item], advance: Progress = lambda _: None) -> list[Reading]:
    """Readings in the order of the items; windows of alike length are read together."""
    order = sorted(range(len(items)), key=lambda i: len(items[i].context))
    out: dict[int, Reading] = {}
    for at in range(0, len(order), BATCH):
        part = order[at : at + BATCH]
        readings = engine.read_batch([items[i].request for i in part])
        out.update(zip(part, readings, strict=True))
        advance(len(part))
    return [out[i] for i in range(len(items))]


def evaluate(engine: Engine, items: Sequence[Item], advance: Progress = lambda _: None) -> dict[str, Any]:
    """EM and F1 (official, percent) in all and by type, evidence, refusal, calibration, risk–coverage, speed.

    ``nearest_sentence`` holds the scores of the paragraph's sentence most like the question.
    """
    began = time.perf_counter()
    readings = read_all(engine, items, advance)
    seconds = time.perf_counter() - began
    asked = [(i, r) for i, r in zip(items, readings, strict=True) if i.golds]
    report: dict[str, Any] = metrics.em_f1([r.answer for _, r in asked], [i.golds for i, _ in asked])
    report["questions"] = len(items)
    report["by_type"] = {}
    for kind in sorted({i.type for i, _ in asked}):
        part = [(i, r) for i, r in asked if i.type == kind]
        report["by_type"][kind] = metrics.em_f1([r.answer for _, r in part], [i.golds for i, _ in part])
    if judged := [(r, v) for i, r in asked if i.type == "yesno" and (v := verdict.said(i.golds[0])) is not None]:
        report["verdict"] = verdict_scores([(r.p_yes, v) for r, v in judged], engine.settings.verdict)
    if asked:
        nearest = [nearest_sentence(i.question, i.context) for i, _ in asked]
        report["nearest_sentence"] = metrics.em_f1(nearest, [i.golds for i, _ in asked])
        if shown := [(i, r, n) for (i, r), n in zip(asked, nearest, strict=True) if i.evidence]:
            report["evidence"] = _evidence(shown)
    yes = [r.p_answerable for _, r in asked]
    no = [r.p_answerable for i, r in zip(items, readings, strict=True) if not i.golds]
    report["refusal"] = refusal_scores(yes, no, engine.answerable_threshold)
    if asked:
        curve = metrics.risk_coverage(
            [r.confidence for _, r in asked], [1 - metrics.f1(r.answer, i.golds) for i, r in asked]
        )
        report["risk_coverage"] = {"aurc": curve.area, "risk_at": curve.at(0.25, 0.5, 0.75, 1.0)}
    report["ms_per_question"] = 1000 * seconds / max(1, len(items))
    return report


def _evidence(rows: Sequence[tuple[Item, Reading, str]]) -> dict[str, Any]:
    """Overlap with the gold evidence of the sentences that hold the answer's copied stretches, in percent.

    Bag-of-tokens F1, the best of the golds; ``joint`` is the mean of answer F1 × evidence F1 (as in ExpMRC, Cui
    et al. 2022; its script is another one).
    """
    ours = [metrics.token_overlap(evidence_of(r, i.context), i.evidence) for i, r, _ in rows]
    answer = [metrics.f1(r.answer, i.golds) for i, r, _ in rows]
    nearest = [metrics.token_overlap(n, i.evidence) for i, _, n in rows]
    return {
        "f1": 100 * float(np.mean(ours)),
        "f1_interval": [100 * x for x in metrics.interval(ours)],
        "joint": 100 * float(np.mean([a * e for a, e in zip(answer, ours, strict=True)])),
        "nearest_sentence_f1": 100 * float(np.mean(nearest)),
        "count": len(rows),
    }


def evidence_of(reading: Reading, context: str) -> str:
    """The context's sentences that the answer was copied from (the best span's where it was written)."""
    spans = reading.spans or tuple(c.span for c in reading.candidates[:1])
    found = [(a, b) for a, b in stripped_sentences(context) if any(s.start < b and a < s.end for s in spans)]
    return "".join(context[a:b] for a, b in found)


def verdict_scores(judged: Sequence[tuple[float, bool]], sure: float) -> dict[str, Any]:
    """Yes/no questions (p_yes, gold): how often p_yes is on the right side, how often ``sure`` enough."""
    right = np.array([(p >= 0.5) == gold for p, gold in judged])
    told = np.array([max(p, 1 - p) >= sure for p, _ in judged])
    out: dict[str, Any] = {"count": len(right), "accuracy": float(right.mean()), "told": float(told.mean())}
    if told.any():
        out["accuracy_told"] = float(right[told].mean())
    yes, no = ([p for p, gold in judged if gold is wanted] for wanted in (True, False))
    if yes and no:
        out["auroc"] = metrics.auroc(yes, no)
    return out


def refusal_scores(yes: Sequence[float], no: Sequence[float], threshold: float) -> dict[str, Any]:
    out: dict[str, Any] = {"threshold": threshold}
    if yes:
        out["false_refusals"] = float(np.mean([p < threshold for p in yes]))
    if no:
        out["refused"] = float(np.mean([p < threshold for p in no]))
    if yes and no:
        out["auroc"] = metrics.auroc(yes, no)
        out["auroc_interval"] = list(metrics.auroc_interval(yes, no))
        out["ece"] = metrics.expected_calibration_error([*yes, *no], [True] * len(yes) + [False] * len(no))
    return out
