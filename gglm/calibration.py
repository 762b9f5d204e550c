"""How sure an answer must be: p_answerable and relevance fitted to questions with and without answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gglm import metrics, verdict
from gglm.errors import DataError
from gglm.evaluation import BATCH, Item, Progress
from gglm.evaluation_refusal import nearest_passages
from gglm.types import Source
from gglm.weights import Answerability, ReaderSettings

if TYPE_CHECKING:
    from gglm.engine import Engine, Evidence, Scored


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was asked over what a search found, and how that went.

    right: the answer, had it not been refused, would have been right, the reader's own yes or no left out; of a
    question that the documents do not answer, none is. told: the same with that word; None: it has none to say.
    """

    question: str
    sources: tuple[Source, ...]
    right: bool
    told: bool | None = None


ENOUGH = 20
"""Questions of either kind from which a threshold can be fitted."""
MISSED = 0.25
"""Questions without their passage for each that the documents answer, as p is to be understood."""
RIGHT, FEWEST = 0.85, 20
"""Share of the told yes and no that must be right, and how many of them that must be seen for."""


def calibrate(
    engine: Engine,
    files: Sequence[Sequence[Item]],
    max_false_refusals: float = 0.09,
    others: int = 3,
    advance: Progress = lambda _: None,
) -> ReaderSettings:
    """Settings fitted to files of questions with and without answers.

    Questions are read over their own passage, then over it and its ``others`` nearest of the same file
    (TF-IDF), as a search would find them; each gets a logistic regression and a threshold of its own. The
    latter also learns from the answerable questions over the others alone, which do not answer them; its p holds where
    `MISSED` of them miss their passage, as in `calibrate_asked`'s files. The
    threshold is the strictest that refuses at most ``max_false_refusals`` of the answerable questions of
    *each* file. Relevance is fitted to every passage read; of an answerable question its own one answers it.
    Yes and no are told where, of the surest of the yes/no questions, `RIGHT` are told rightly.

    Raises:
        DataError: the files hold no answerable or no unanswerable questions.
    """
    labels = np.array([bool(i.golds) for items in files for i in items])
    if not len(labels) or labels.all() or not labels.any():
        raise DataError("calibration needs both answerable and unanswerable questions")
    group = np.repeat(np.arange(len(files)), [len(items) for items in files])
    asked = [(i.question, [Source(i.context, i.title)]) for items in files for i in items]
    if others:
        beside = [o for items in files for o in nearest_passages(items, items, others)]
        asked = [(question, own + o) for (question, own), o in zip(asked, beside, strict=True)]
    scored = list(_scored(engine, asked, advance))
    alone = [engine.judge(s.of(slice(0, 1))) for s in scored]
    relevance = _relevance(scored, labels)
    settings = replace(
        engine.settings,
        alone=_fit(alone, labels, group, max_false_refusals),
        relevance_temperature=float(1 / max(relevance[0], 1e-3)),
        relevance_bias=float(relevance[1]),
        verdict=_sure(alone, [i for items in files for i in items]),
    )
    if others:
        answered = [s for s, answerable in zip(scored, labels, strict=True) if answerable and len(s.sources) > 1]
        without = [s.of(slice(1, None)) for s in answered]
        several = [engine.judge(s) for s in [*scored, *without]]
        labels = np.concatenate([labels, np.zeros(len(without), bool)])
        group = np.concatenate([group, np.full(len(without), -1)])
        missed = (~labels).sum() - (1 - MISSED) * len(without)
        fitted = _fit(several, labels, group, max_false_refusals, covered=True, odds=(~labels).sum() / missed)
        settings = replace(settings, several=fitted)
    return settings


def calibrate_asked(
    engine: Engine,
    files: Sequence[Sequence[Asked]],
    max_lost: float = 0.1,
    advance: Progress = lambda _: None,
) -> ReaderSettings:
    """``found`` and ``verdict`` fitted to questions that were asked over what a search found.

    p is the probability that the answer is right, so that what is refused first is what would be wrong, whether
    the documents do not answer it or the reader misread them. The threshold is the strictest that refuses at most
    ``max_lost`` of the right answers in the *mean* of the files: they are documents of different kinds, and the one
    whose questions are the furthest from its wording would else let wrong answers through for all others.

    Raises:
        DataError: too few right or too few other answers.
    """
    rows = [(number, row) for number, asked in enumerate(files) for row in asked]
    right = np.array([row.right for _, row in rows], bool)
    if min(right.sum(), (~right).sum()) < ENOUGH:
        raise DataError(
            f"calibration needs at least {ENOUGH} questions whose answer would be right and as many whose would not"
        )
    found = [engine.judge(s) for s in _scored(engine, [(row.question, row.sources) for _, row in rows], advance)]
    told = {n: row.told for n, (_, row) in enumerate(rows) if row.told is not None}
    sure = {n: 1 / (1 + np.exp(-abs(found[n].verdict))) for n in told}
    said = _sure_enough(list(sure.values()), list(told.values())) if len(told) >= FEWEST else engine.settings.verdict
    for n, rightly in told.items():
        if sure[n] >= said:
            right[n] = rightly
    return replace(
        engine.settings,
        found=_fit(found, right, np.array([number for number, _ in rows]), max_lost, covered=True, mean=True),
        verdict=said,
    )


def _relevance(scored: Sequence[Scored], labels: np.ndarray) -> np.ndarray:
    """Weight and bias of a source's relevance logit; each question's own source stands first."""
    pairs = [
        (spans.relevance, answerable and place == 0)
        for s, answerable in zip(scored, labels, strict=True)
        for place, spans in enumerate(s.spans)
        if spans is not None
    ]
    logits, answers = zip(*pairs, strict=True)
    return logistic_regression(np.array(logits)[:, None], np.array(answers, float))


def _sure(found: Sequence[Evidence], items: Sequence[Item]) -> float:
    """The least probability from which on yes and no are right often enough; 1 where they never are."""
    golds = [verdict.said(i.golds[0]) if i.type == "yesno" and i.golds else None for i in items]
    pairs = [(e.verdict, gold) for e, gold in zip(found, golds, strict=True) if gold is not None]
    return _sure_enough(
        [1 / (1 + np.exp(-abs(logit))) for logit, _ in pairs], [(logit >= 0) == gold for logit, gold in pairs]
    )


def _sure_enough(probabilities: Sequence[float], rightly: Sequence[bool]) -> float:
    sure, right = np.array(probabilities), np.array(rightly, bool)
    enough = [t for t in sure if (told := sure >= t).sum() >= FEWEST and right[told].mean() >= RIGHT]
    return float(min(enough)) - 1e-6 if enough else 1.0


def _scored(engine: Engine, asked: Sequence[tuple[str, Sequence[Source]]], advance: Progress) -> Iterator[Scored]:
    for at in range(0, len(asked), BATCH):
        part = asked[at : at + BATCH]
        yield from engine.score(part)
        advance(len(part))


def _fit(
    found: Sequence[Evidence],
    labels: np.ndarray,
    group: np.ndarray,
    max_false_refusals: float,
    covered: bool = False,
    mean: bool = False,
    odds: float = 1.0,
) -> Answerability:
    """A regression on the signs of `Answerability`, and the strictest threshold for each group, or for their ``mean``.

    covered: coverage counts (one passage that was chosen for its question tells nothing by it). odds: by how much right
    answers are commoner than here, against the others, where p is to hold.
    """
    x = np.array([(e.decoded.margin, e.best_relevance, e.decoded.certainty, covered * e.coverage) for e in found])
    w = logistic_regression(x, labels.astype(float))
    w[-1] += np.log(odds)
    belief = np.array([e.belief for e in found])
    p = belief / (1 + np.exp(-np.clip(x @ w[:-1] + w[-1], -60, 60)))
    of_group = [p[(group == g) & labels] for g in np.unique(group[labels])]
    if mean:
        threshold = metrics.mean_refusal_threshold(of_group, max_false_refusals)
    else:
        threshold = min(metrics.refusal_threshold(own.tolist(), max_false_refusals) for own in of_group)
    # A hair lower, so that rounding never refuses the very question that set it.
    margin, relevance, certainty, coverage, bias = map(float, w)
    return Answerability(margin, relevance, certainty, coverage, bias, threshold=max(0.0, threshold - 1e-6))


def logistic_regression(x: np.ndarray, y: np.ndarray, ridge: float = 1e-3, steps: int = 50) -> np.ndarray:
    """Weights and, last, bias of ``p = σ(x·w + b)`` by Newton's method; x (n, d), y (n,) of 0 and 1."""
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    w = np.zeros(design.shape[1])
    penalty = ridge * np.eye(len(w))
    penalty[-1, -1] = 0
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -30, 30)))
        gradient = design.T @ (p - y) + penalty @ w
        hessian = (design * (p * (1 - p))[:, None]).T @ design + penalty + 1e-9 * np.eye(len(w))
        step = np.linalg.solve(hessian, gradient)
        w -= step / max(1.0, float(np.abs(step).max()) / 5)
        if np.abs(step).max() < 1e-8:
            break
    return w
