"""How sure an answer must be: the refusal threshold fitted on questions with known results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gglm.metrics import auroc, expected_calibration_error, refusal_threshold


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold on p_answerable and what it does on the questions it was fitted on (shares 0…1)."""

    threshold: float
    refused_answerable: float
    refused_unanswerable: float
    auroc: float
    calibration_error: float


def calibrate(
    answerable: Sequence[float], unanswerable: Sequence[float], max_false_refusals: float = 0.1
) -> Calibration:
    """The strictest threshold of those that refuse at most ``max_false_refusals`` of the answerable.

    A question is refused where its p_answerable lies below the threshold. Candidates lie halfway
    between neighbouring values, so that a small change of a score does not flip the outcome.

    Raises:
        ValueError: there is no answerable question, or the share is outside 0…1.
    """
    if not answerable:
        raise ValueError("calibration needs questions that have an answer")
    if not 0 <= max_false_refusals <= 1:
        raise ValueError("max_false_refusals must lie within 0…1")
    highest = refusal_threshold(answerable, max_false_refusals)
    below = max((p for p in [*answerable, *unanswerable] if p < highest), default=0.0)
    threshold = (highest + below) / 2
    labels = [True] * len(answerable) + [False] * len(unanswerable)
    return Calibration(
        threshold=threshold,
        refused_answerable=_share(answerable, threshold),
        refused_unanswerable=_share(unanswerable, threshold),
        auroc=auroc(answerable, unanswerable),
        calibration_error=expected_calibration_error([*answerable, *unanswerable], labels),
    )


def _share(values: Sequence[float], threshold: float) -> float:
    return sum(v < threshold for v in values) / len(values) if values else 0.0
