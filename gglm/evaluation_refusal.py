"""When does an engine decline to answer: near misses, distractor passages, calibration, risk against coverage."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gglm import metrics
from gglm.evaluation import BATCH, Item, Progress, read_all, refusal_scores
from gglm.evaluation_baselines import similarity
from gglm.types import Reading, Source

if TYPE_CHECKING:
    from gglm.engine import Engine

Request = tuple[str, list[Source], tuple[()]]


def steps(items: int, distractors: int, sample: int) -> int:
    """How often `evaluate` reports progress for a file."""
    sampled = min(items, sample or items)
    return items + sampled * (distractors + 1 if distractors else 0)


def evaluate(
    engine: Engine,
    items: Sequence[Item],
    distractors: int = 4,
    sample: int = 300,
    advance: Progress = lambda _: None,
) -> dict[str, Any]:
    """Refusal over gold paragraphs, then over paragraphs with distractors beside them.

    Args:
        distractors: most passages put beside the gold one; 0 leaves that part out.
        sample: questions of the distractor part, a random sample; 0: all.

    Returns:
        ``refusal`` (AUROC with its 95 % interval, ECE, shares below the shipped threshold), ``reliability`` (bins),
        ``risk_coverage``, and ``distractors``: see `with_distractors`.
    """
    readings = read_all(engine, items, advance)
    pairs = list(zip(items, readings, strict=True))
    yes = [r.p_answerable for i, r in pairs if i.golds]
    no = [r.p_answerable for i, r in pairs if not i.golds]
    report: dict[str, Any] = {
        "questions": len(items),
        "answerable": len(yes),
        "refusal": refusal_scores(yes, no, engine.threshold(1)),
    }
    if yes and no:
        report["reliability"] = metrics.reliability([*yes, *no], [True] * len(yes) + [False] * len(no))
    # Of all questions: to answer one that has no answer is an error too.
    losses = [1 - metrics.f1(r.answer, i.golds) if i.golds else 1.0 for i, r in pairs]
    curve = metrics.risk_coverage([r.confidence for r in readings], losses)
    picked = np.unique(np.linspace(0, len(items) - 1, 40).round().astype(int))
    report["risk_coverage"] = {
        "aurc": curve.area,
        "risk_at": curve.at(0.25, 0.5, 0.75, 1.0),
        "curve": [[round(float(curve.coverage[i]), 4), round(float(curve.risk[i]), 4)] for i in picked],
    }
    if distractors:
        chosen = list(items)
        if sample and len(chosen) > sample:
            chosen = random.Random(0).sample(chosen, sample)
        report["distractors"] = with_distractors(engine, chosen, items, distractors, advance)
    return report


def with_distractors(
    engine: Engine, items: Sequence[Item], pool: Sequence[Item], most: int, advance: Progress = lambda _: None
) -> dict[str, Any]:
    """The same questions over their own paragraph and its 0 … ``most`` nearest others of the pool (TF-IDF).

    Returns:
        ``beside_own``: per number of distractors F1, EM, what of F1 was lost, how often the answer came from the own
        paragraph, and refusal; ``distractors_only``: the answerable questions without their paragraph as negatives;
        ``relevance``: AUROC and ECE of each passage's relevance, with ``most`` others, own ones against others.
    """
    others = nearest_passages(items, pool, most)
    beside: dict[str, Any] = {}
    base = 0.0
    answerable: list[float] = []
    for count in range(most + 1):
        requests, own = zip(*(_mix(i, o[:count]) for i, o in zip(items, others, strict=True)), strict=True)
        readings = _read(engine, requests, advance)
        rows = [(i, r, place) for i, r, place in zip(items, readings, own, strict=True) if i.golds]
        scores = metrics.em_f1([r.answer for _, r, _ in rows], [i.golds for i, _, _ in rows])
        answerable = [r.p_answerable for _, r, _ in rows]
        no = [r.p_answerable for i, r in zip(items, readings, strict=True) if not i.golds]
        if rows:
            base = scores["f1"] if count == 0 else base
            scores["f1_loss"] = base - scores["f1"]
            scores["own_paragraph"] = float(np.mean([_source(r) == place for _, r, place in rows]))
        scores["refusal"] = refusal_scores(answerable, no, engine.threshold(count + 1))
        beside[str(count)] = scores
    asked = [(i, o) for i, o in zip(items, others, strict=True) if i.golds and o]
    readings = _read(engine, [(i.question, o, ()) for i, o in asked], advance)
    only = refusal_scores(answerable, [r.p_answerable for r in readings], engine.threshold(most))
    out = {"questions": len(items), "beside_own": beside, "distractors_only": only}
    right = [r.relevance[place] for _, r, place in rows]
    wrong = [x for _, r, place in rows for x in _others(r, place)]
    if right and wrong:
        labels = [True] * len(right) + [False] * len(wrong)
        ece = metrics.expected_calibration_error([*right, *wrong], labels)
        out["relevance"] = {"auroc": metrics.auroc(right, wrong), "ece": ece}
    return out


def nearest_passages(items: Sequence[Item], pool: Sequence[Item], count: int) -> list[list[Source]]:
    """For each question the ``count`` passages most like it, nearest first.

    Its own is left out, and so is every other that holds one of its gold answers.
    """
    passages = list({i.context: Source(i.context, i.title) for i in pool}.values())
    out: list[list[Source]] = []
    for at in range(0, len(items), 256):
        part = items[at : at + 256]
        scores = similarity([i.question for i in part], [p.text for p in passages])
        for item, row in zip(part, scores, strict=True):
            found: list[Source] = []
            for n in np.argsort(-row, kind="stable"):
                passage = passages[int(n)]
                if passage.text != item.context and not any(g in passage.text for g in item.golds):
                    found.append(passage)
                if len(found) == count:
                    break
            out.append(found)
    return out


def _mix(item: Item, others: Sequence[Source]) -> tuple[Request, int]:
    """The question over its paragraph and others, in a random order; where its own stands."""
    sources = list(others)
    place = random.Random(f"{item.id} {len(others)}").randint(0, len(sources))
    sources.insert(place, Source(item.context, item.title))
    return (item.question, sources, ()), place


def _read(engine: Engine, requests: Sequence[Request], advance: Progress) -> list[Reading]:
    readings: list[Reading] = []
    for at in range(0, len(requests), BATCH):
        part = requests[at : at + BATCH]
        readings += engine.read_batch(part)
        advance(len(part))
    return readings


def _others(reading: Reading, own: int) -> list[float]:
    return [r for source, r in enumerate(reading.relevance) if source != own]


def _source(reading: Reading) -> int:
    spans = reading.spans or tuple(c.span for c in reading.candidates[:1])
    return spans[0].source if spans else -1


def plot(report: dict[str, Any], out: Path) -> None:
    """Reliability diagram and risk–coverage curve of each file of a report, as a picture.

    Raises:
        DataError: matplotlib is not installed.
    """
    from gglm.errors import DataError

    try:
        import matplotlib
    except ImportError:
        raise DataError("The plot needs matplotlib: `pip install 'chatgglm[train]'`") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, part in report["files"].items():
        label = Path(name).name.split(".")[0]
        bins = part.get("reliability", [])
        if bins:
            ece = part["refusal"]["ece"]
            points = [b["predicted"] for b in bins], [b["observed"] for b in bins]
            left.plot(*points, marker="o", label=f"{label} (ECE {ece:.3f})")
        area = part["risk_coverage"]["aurc"]
        right.plot(*zip(*part["risk_coverage"]["curve"], strict=True), label=f"{label} (AURC {area:.3f})")
    left.set(title="calibration of p_answerable", xlabel="predicted", ylabel="share answerable")
    right.set(title="risk (1 − F1) of the answers given", xlabel="coverage", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle(report["model"])
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    plt.close(figure)
