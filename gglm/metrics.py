"""Scores: official CMRC 2018 EM/F1, ROUGE, chrF, BLEU, AUROC, calibration, risk–coverage, bootstrap intervals.

`exact_match` and `f1` are ports of `cmrc2018_evaluate.py` v5 (github.com/ymcui/cmrc2018): lower-case,
drop the official punctuation, one token per Han character, everything between by NLTK's word
tokenizer, F1 over the *longest common contiguous run* of tokens, maximum over the gold answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gglm.errors import DataError

# The official list. Its two-character «……» can never equal one character, so it is not in the set;
# a single … stays, as it does in the official script.
PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")

# NLTK's word tokenizer (nltk/tokenize/destructive.py, Apache-2.0) as it acts on lower-cased text.
# The official script also cuts sentences first (punkt); that needs NLTK's data files and can matter
# only inside Latin text of several sentences, which an answer's fragments are not.
_WORD_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # opening quotes
        (r"([«“‘„]|[`]+)", r" \1 "),
        (r"^\"", r"``"),
        (r"(``)", r" \1 "),
        (r"([ \(\[{<])(\"|\'{2})", r"\1 `` "),
        (r"(?i)(?<!\w)(\')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
        # punctuation
        (r'([^\.])(\.)([\]\)}>"\'»”’ ]*)\s*$', r"\1 \2 \3 "),
        (r"([:,])([^\d])", r" \1 \2"),
        (r"([:,])$", r" \1 "),
        (r"\.{2,}", r" \g<0> "),
        (r"[;@#$%&]", r" \g<0> "),
        (r"[\u2012-\u2015]", r" \g<0> "),
        (r'([^\.])(\.)([\]\)}>"\']*)\s*$', r"\1 \2\3 "),
        (r"[?!]", r" \g<0> "),
        (r"([^'])' ", r"\1 ' "),
        (r"[*]", r" \g<0> "),
        (r"[\]\[\(\)\{\}\<\>]", r" \g<0> "),
        (r"--", r" -- "),
        (r"^|$", " "),
        # closing quotes and clitics
        (r"([»”’])", r" \1 "),
        (r"''", " '' "),
        (r'"', " '' "),
        (r"\s+", " "),
        (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
        # contractions
        (r"(?i)\b(can)(not)\b", r" \1 \2 "),
        (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
        (r"(?i)\b(gim)(me)\b", r" \1 \2 "),
        (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
        (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
        (r"(?i)\b(lem)(me)\b", r" \1 \2 "),
        (r"(?i)\b(more)('n)\b", r" \1 \2 "),
        (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r"(?i) ('t)(is)\b", r" \1 \2 "),
        (r"(?i) ('t)(was)\b", r" \1 \2 "),
    )
)


def _words(text: str) -> list[str]:
    """Words of a fragment without Han characters."""
    for pattern, replacement in _WORD_RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def segment(text: str, drop_punctuation: bool = True) -> list[str]:
    """The official mixed segmentation: Han characters one by one, the rest as words."""
    tokens: list[str] = []
    pending = ""
    for char in text.lower().strip():
        if drop_punctuation and char in PUNCTUATION:
            continue
        if "一" <= char <= "\u9fa5" or char in PUNCTUATION:
            tokens += _words(pending)
            pending = ""
            tokens.append(char)
        else:
            pending += char
    return tokens + _words(pending)


def _longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
    best = 0
    previous = [0] * (len(b) + 1)
    for x in a:
        current = [0] * (len(b) + 1)
        for j, y in enumerate(b):
            if x == y:
                current[j + 1] = previous[j] + 1
                best = max(best, current[j + 1])
        previous = current
    return best


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Official CMRC 2018 F1 of one answer, 0…1.

    Raises:
        ValueError: there is no gold answer.
    """
    predicted = segment(prediction)
    scores = []
    for gold in golds:
        wanted = segment(gold)
        common = _longest_common_run(wanted, predicted)
        precision, recall = common / max(1, len(predicted)), common / max(1, len(wanted))
        scores.append(2 * precision * recall / (precision + recall) if common else 0.0)
    return max(scores)


def token_overlap(prediction: str, golds: Sequence[str]) -> float:
    """F1 over the bag of official tokens, maximum over the golds, 0…1: for evidence, which may be several stretches.

    Raises:
        ValueError: there is no gold.
    """
    predicted = Counter(segment(prediction))
    scores = []
    for gold in golds:
        wanted = Counter(segment(gold))
        scores.append(_f((predicted & wanted).total(), predicted.total(), wanted.total()))
    return max(scores)


def _without_punctuation(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in PUNCTUATION)


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """Official CMRC 2018 exact match of one answer, 0 or 1."""
    return float(any(_without_punctuation(prediction) == _without_punctuation(g) for g in golds))


def _f(matches: float, predicted: float, wanted: float, beta: float = 1.0) -> float:
    if not matches:
        return 0.0
    precision, recall = matches / predicted, matches / wanted
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _common_subsequence(a: str, b: str) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for i, char in enumerate(a):
        where[char] = where.get(char, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for char in b:
        hits = row & where.get(char, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(a) - row.bit_count()


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L as F1 over characters (white space dropped), each 0…1."""
    a, b = "".join(prediction.split()), "".join(reference.split())
    scores = {}
    for n in (1, 2):
        ours, theirs = _ngrams(a, n), _ngrams(b, n)
        scores[f"rouge{n}"] = _f((ours & theirs).total(), ours.total(), theirs.total())
    scores["rougeL"] = _f(_common_subsequence(a, b), len(a), len(b))
    return scores


def chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2 (character n-grams 1–6, β = 2, white space dropped) as sacreBLEU computes it, 0…100."""
    totals = np.zeros((6, 3))
    for prediction, reference in zip(predictions, references, strict=True):
        a, b = "".join(prediction.split()), "".join(reference.split())
        for n in range(6):
            ours, theirs = _ngrams(a, n + 1), _ngrams(b, n + 1)
            # sacreBLEU counts a sentence's n-grams only against a reference that has any
            count = ours.total() if theirs else 0
            totals[n] += (ours & theirs).total(), count, theirs.total()
    used = [t for t in totals if t[1] and t[2]]
    if not used:
        return 0.0
    precision = float(np.mean([t[0] / t[1] for t in used]))
    recall = float(np.mean([t[0] / t[2] for t in used]))
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def bleu(predictions: Sequence[str], references: Sequence[str], chinese: bool = False) -> float:
    """Corpus BLEU by sacreBLEU (one reference each; 13a tokens, characters for Chinese), 0…100.

    Raises:
        DataError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise DataError("BLEU needs sacrebleu: `pip install 'chatgglm[train]'`") from None
    scorer = BLEU(tokenize="zh" if chinese else "13a")
    return float(scorer.corpus_score(list(predictions), [list(references)]).score)


def interval(values: Sequence[float], repeats: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean (percentiles of ``repeats`` resamples); nan if empty."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = [float(x[rng.integers(len(x), size=len(x))].mean()) for _ in range(repeats)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def auroc_interval(
    positives: Sequence[float], negatives: Sequence[float], repeats: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of `auroc`, both sides resampled; nan without both."""
    if not len(positives) or not len(negatives):
        return float("nan"), float("nan")
    pos, neg = np.asarray(positives, dtype=np.float64), np.asarray(negatives, dtype=np.float64)
    rng = np.random.default_rng(seed)
    areas = [auroc(rng.choice(pos, len(pos)).tolist(), rng.choice(neg, len(neg)).tolist()) for _ in range(repeats)]
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half; nan without both."""
    if not len(positives) or not len(negatives):
        return float("nan")
    pos, neg = np.asarray(positives, dtype=np.float64), np.sort(np.asarray(negatives, dtype=np.float64))
    below = np.searchsorted(neg, pos, side="left")
    not_above = np.searchsorted(neg, pos, side="right")
    return float(np.mean(below + not_above) / (2 * len(neg)))


def expected_calibration_error(
    probabilities: Sequence[float], outcomes: Sequence[bool | float], bins: int = 10
) -> float:
    """Mean gap between predicted probability and observed rate, over equal-width bins; nan if empty."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if not len(p):
        return float("nan")
    index = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(float(p[index == b].sum() - y[index == b].sum())) for b in range(bins)]
    return sum(gaps) / len(p)


def reliability(
    probabilities: Sequence[float], outcomes: Sequence[bool | float], bins: int = 10
) -> list[dict[str, float]]:
    """Mean predicted probability, observed rate and count of each equal-width bin that holds something."""
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    index = np.minimum((p * bins).astype(int), bins - 1)
    return [
        {"predicted": float(p[index == b].mean()), "observed": float(y[index == b].mean()), "count": int(n)}
        for b in range(bins)
        if (n := int((index == b).sum()))
    ]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """``risk[i]`` is the mean loss of the ``coverage[i]`` share of answers the model is surest of."""

    coverage: npt.NDArray[np.float64]
    risk: npt.NDArray[np.float64]

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC); lower is better."""
        return float(self.risk.mean()) if len(self.risk) else float("nan")

    def at(self, *coverages: float) -> dict[str, float]:
        """Risk at some coverages, e.g. ``at(.5, .8)``."""
        points = {}
        for c in coverages:
            index = min(max(round(c * len(self.risk)) - 1, 0), len(self.risk) - 1)
            points[f"{c:g}"] = float(self.risk[index])
        return points


def risk_coverage(confidences: Sequence[float], losses: Sequence[float]) -> RiskCoverage:
    """The curve over answers sorted by falling confidence; ``losses`` lie in 0…1."""
    order = np.argsort(-np.asarray(confidences, dtype=np.float64), kind="stable")
    loss = np.asarray(losses, dtype=np.float64)[order]
    count = np.arange(1, len(loss) + 1)
    return RiskCoverage(count / max(1, len(loss)), np.cumsum(loss) / count)


def refusal_threshold(answerable: Sequence[float], max_false_refusals: float = 0.1) -> float:
    """Largest threshold on p_answerable that refuses at most that share of answerable questions.

    A question is refused where its p lies *below* the threshold.
    """
    p = np.sort(np.asarray(answerable, dtype=np.float64))
    if not len(p):
        return 0.5
    return float(p[int(np.floor(max_false_refusals * len(p)))])


def mean_refusal_threshold(groups: Sequence[Sequence[float] | np.ndarray], max_false_refusals: float = 0.1) -> float:
    """Largest threshold on p_answerable at which, in the groups' mean, at most that share of questions is refused.

    Each group counts the same, whatever its size.
    """
    pairs = sorted((float(p), 1 / len(g)) for g in groups for p in g)
    if not pairs:
        return 0.5
    shares = np.cumsum([share for _, share in pairs]) / sum(len(g) > 0 for g in groups)
    return pairs[int(np.searchsorted(shares, max_false_refusals + 1e-12, side="right").clip(0, len(pairs) - 1))][0]


def em_f1(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Mean official EM and F1 in percent over questions with gold answers, and their 95 % intervals."""
    em = [exact_match(p, g) for p, g in zip(predictions, golds, strict=True)]
    f = [f1(p, g) for p, g in zip(predictions, golds, strict=True)]
    if not em:
        return {"count": 0}
    return {
        "em": 100 * sum(em) / len(em),
        "f1": 100 * sum(f) / len(f),
        "em_interval": [100 * x for x in interval(em)],
        "f1_interval": [100 * x for x in interval(f)],
        "count": len(em),
    }
