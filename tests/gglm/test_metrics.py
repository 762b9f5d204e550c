"""The frozen cases come from the official cmrc2018_evaluate.py (v5) run with NLTK's word tokenizer."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm import metrics

FROZEN: list[tuple[str, list[str], int, float]] = [
    ("十八个月", ["十八个月"], 1, 1.0),
    ("保修期为十八个月", ["十八个月", "18个月"], 0, 0.666667),
    ("《红楼梦》", ["红楼梦"], 1, 1.0),
    ("1998年10月", ["1998年"], 0, 0.666667),
    ("约1,200.5元", ["1,200.5元"], 0, 0.8),
    ("95%", ["95 %", "百分之九十五"], 0, 1.0),
    ("GPU Server 2.0", ["gpu server 2.0"], 1, 1.0),
    ("don't stop", ["do n't stop"], 0, 1.0),
    ("“轻量”模型", ["轻量模型", "轻量的模型"], 1, 1.0),
    ("……", ["…"], 0, 0),
    ("a…b", ["ab"], 0, 0),
    ("", ["甲"], 0, 0),
    ("，。", ["甲"], 0, 0),
    ("ＡＢＣ", ["abc"], 0, 0),
    ("張三、李四", ["张三、李四"], 0, 0.75),
    ("abcabc", ["abc"], 0, 0),
    ("甲乙丙丁戊", ["丙丁", "乙丙丁"], 0, 0.75),
    ("甲乙丙甲乙", ["甲乙"], 0, 0.571429),
    ("U.S.A.", ["U.S.A"], 0, 0.666667),
    ("e.g. this", ["e.g. that"], 0, 0.5),
    ("12:30", ["12：30"], 1, 1.0),
    ("user@example.com", ["user@example.com。"], 1, 1.0),
    ("c++/java", ["C++"], 0, 0),
    ("3-5天", ["3~5天", "35天"], 1, 1.0),
    ("(甲)", ["甲"], 0, 0.5),
    ('"甲"', ["甲"], 0, 0.5),
    ("鿐鿑", ["鿐"], 0, 0),
    ("  前后空白 ", ["前后空白"], 1, 1.0),
    ("can not", ["cannot"], 0, 1.0),
]


@pytest.mark.parametrize(("prediction", "golds", "em", "f1"), FROZEN)
def test_em_and_f1_equal_the_official_script(prediction: str, golds: list[str], em: int, f1: float) -> None:
    assert metrics.exact_match(prediction, golds) == em
    assert metrics.f1(prediction, golds) == pytest.approx(f1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("据1998年的IBM PC报告", ["据", "1998", "年", "的", "ibm", "pc", "报", "告"]),
        ("don't 甲", ["do", "n't", "甲"]),
        ("a--b，c", ["abc"]),
        ("«x» 乙 'y'", ["«", "x", "»", "乙", "'", "y", "'"]),
        ("3.5GHz、8核", ["3.5ghz8", "核"]),  # punctuation goes first, words are cut afterwards
        ("etc.）", ["etc", "."]),
    ],
)
def test_segmentation_equals_the_official_script(text: str, tokens: list[str]) -> None:
    assert metrics.segment(text) == tokens


@pytest.mark.shared
def test_agrees_with_the_prototype_on_text_without_words_between() -> None:
    """The prototype's independent metric differs only in how it cuts Latin words and numbers."""
    prototype = Path("../shared/prototype").resolve()
    data = Path("../shared/data/qa/cmrc2018_dev.jsonl.zst")
    if not (prototype.is_dir() and data.is_file()):
        pytest.skip("../shared is not beside the checkout")
    import zstandard

    sys.path.insert(0, str(prototype))
    try:
        import metric
    finally:
        sys.path.remove(str(prototype))
    compared = 0
    unpack = zstandard.ZstdDecompressor()
    with data.open("rb") as raw, unpack.stream_reader(raw, read_across_frames=True) as rows:
        for line in io.TextIOWrapper(rows, encoding="utf-8"):
            row = json.loads(line)
            golds = [a["text"] for a in row["answers"]]
            start = max(0, row["answers"][0]["start"] - compared % 4)
            prediction = row["context"][start : start + 3 + compared % 17]
            assert metrics.exact_match(prediction, golds) == metric.em(prediction, golds)
            if all("一" <= c <= "\u9fa5" or c in metrics.PUNCTUATION for c in prediction + "".join(golds)):
                assert metrics.f1(prediction, golds) == pytest.approx(metric.f1(prediction, golds))
                compared += 1
    assert compared > 500


def test_rouge_on_characters() -> None:
    scores = metrics.rouge("甲乙丙丁", "甲 乙丁戊己")
    assert scores["rouge1"] == pytest.approx(2 * 3 / 9)
    assert scores["rouge2"] == pytest.approx(2 * 1 / 7)
    assert scores["rougeL"] == pytest.approx(2 * 3 / 9)
    assert metrics.rouge("", "甲") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


@given(st.text("甲乙丙", max_size=12), st.text("甲乙丙", max_size=12))
def test_rouge_l_equals_the_textbook_recurrence(a: str, b: str) -> None:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    expected = 2 * table[-1, -1] / (len(a) + len(b)) if table[-1, -1] else 0.0
    assert metrics.rouge(a, b)["rougeL"] == pytest.approx(expected)


def test_chrf_equals_sacrebleu() -> None:
    """Values of sacrebleu 2.5's CHRF().corpus_score."""
    predictions = ["打开设置页面", "The cat sat on the mat.", "完全不同"]
    references = ["打开设置页", "The cat is on the mat.", "abc"]
    assert metrics.chrf(predictions, references) == pytest.approx(65.38602999722261)
    assert metrics.chrf(["hello"], ["hallo"]) == pytest.approx(32.666666666666664)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10), st.lists(st.integers(0, 5), min_size=1, max_size=10))
def test_auroc_is_the_share_of_ordered_pairs(positives: list[int], negatives: list[int]) -> None:
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    assert metrics.auroc(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


def test_auroc_without_one_side_is_undefined() -> None:
    assert math.isnan(metrics.auroc([], [1.0]))


def test_calibration_error() -> None:
    assert metrics.expected_calibration_error([0.05, 0.05, 0.95, 0.95], [0, 0, 1, 1]) == pytest.approx(0.05)
    assert metrics.expected_calibration_error([1.0, 1.0], [0, 0]) == pytest.approx(1.0)


def test_risk_coverage_orders_by_confidence() -> None:
    curve = metrics.risk_coverage([0.2, 0.9, 0.5], [1.0, 0.0, 0.5])
    assert curve.risk.tolist() == pytest.approx([0.0, 0.25, 0.5])
    assert curve.coverage.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert curve.area == pytest.approx(0.25)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 0.5))
def test_refusal_threshold_never_refuses_more_than_allowed(p: list[float], share: float) -> None:
    threshold = metrics.refusal_threshold(p, share)
    assert sum(x < threshold for x in p) <= share * len(p) + 1e-9


@given(st.lists(st.lists(st.floats(0, 1), max_size=20), min_size=1, max_size=4), st.floats(0, 0.9))
def test_mean_refusal_threshold_holds_the_mean_and_is_the_strictest(groups: list[list[float]], share: float) -> None:
    full = [g for g in groups if g]

    def refused(threshold: float) -> float:
        return sum(sum(x < threshold for x in g) / len(g) for g in full) / max(1, len(full))

    threshold = metrics.mean_refusal_threshold(groups, share)
    assert refused(threshold) <= share + 1e-9
    higher = [x for g in full for x in g if x > threshold]
    assert not higher or refused(min(higher)) > share - 1e-9
