"""End to end: questions over an ingested knowledge base, judged by answer, citation and refusal.

What counts as right. A question with a gold answer is right when the answer was not refused, at
least one citation points into the gold document, and either

- official CMRC 2018 F1 against some gold answer is at least 0.6 and, where that gold answer is
  short (15 characters), the answer names its numbers («3个月» is not nearly «12个月»), or
- a gold answer, compared without punctuation and spaces, is contained in the answer, and the
  answer is at most three times as long as it (five characters are always allowed).

The supporting sentence that people see does not count. Questions whose gold answer is in own words (types
``yesno`` and ``abstractive``) are judged by the same rule, and a yes/no question is also right where the answer tells
the same of yes and no as the gold answer, in a word of its own (a quotation that happens to begin with 会 or 有 tells
neither), and cites its evidence. Because a copied answer can rarely pass, ``evidence_found`` is reported beside it:
the gold ``evidence`` overlaps the cited quotes by F1 0.6, or holds them or is held by them. A question without a gold
document is right when it is refused.

Citation precision is the mean share of an answer's citations that point into the gold document;
citation recall the share of answered questions one of whose citations meets the gold evidence. The
risk–coverage curve says how often the surest answers are wrong (by ``right``), the surest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from gglm.metrics import RiskCoverage, auroc, exact_match, f1, risk_coverage
from gglm.verdict import said
from rag.calibrate import calibrate
from rag.errors import ChatGGLMError, InvalidInput
from rag.text import key, numbers
from rag.types import Answer, Turn

MIN_F1 = 0.6
MAX_LENGTH_RATIO = 3


class Asker(Protocol):
    """What answers the questions: `rag.answer.Answerer`."""

    def ask(self, question: str, kb: str = "default", history: Sequence[Turn] = ()) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A row of questions.jsonl; ``doc`` None: answered nowhere."""

    id: str
    doc: str | None
    type: str
    question: str
    answers: tuple[str, ...]
    evidence: str = ""
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one question went."""

    id: str
    type: str
    question: str
    golds: tuple[str, ...]
    answer: str
    reason: str
    answerable: bool
    p_answerable: float
    f1: float
    exact: float
    right_answer: bool
    right_document: bool
    retrieved: bool
    evidence: bool
    evidence_found: bool
    right: bool
    citations: int
    citations_right: int
    latency_ms: float
    gold: bool = field(default=True)


def questions(rows: Iterable[dict[str, Any]]) -> list[Question]:
    """Rows with "id", "doc", "type", "question", "answers" and optional "evidence" and "history".

    Raises:
        InvalidInput: a row lacks its question, or a document without answers.
    """
    parsed = []
    for number, row in enumerate(rows, start=1):
        question, doc = row.get("question"), row.get("doc")
        golds = tuple(str(a["text"] if isinstance(a, dict) else a) for a in row.get("answers") or ())
        if not isinstance(question, str) or not question.strip():
            raise InvalidInput(f'Question {number}: no "question".')
        if doc and not golds:
            raise InvalidInput(f'Question {number}: "doc" without "answers".')
        history = tuple(Turn(t["role"], t["content"]) for t in row.get("history") or ())
        parsed.append(
            Question(
                id=str(row.get("id", number)),
                doc=str(doc) if doc else None,
                type=str(row.get("type", "span" if doc else "unanswerable")),
                question=question,
                answers=golds,
                evidence=str(row.get("evidence") or ""),
                history=history,
            )
        )
    return parsed


def right_answer(answer: str, golds: Sequence[str]) -> bool:
    """The rule at the top of this file, for the answer alone."""
    given = key(answer)
    if not given or not golds:
        return False
    named = numbers(answer)
    if any(f1(answer, [g]) >= MIN_F1 and (len(g) > 15 or numbers(g) <= named) for g in golds):
        return True
    return any(
        (wanted := key(gold)) and wanted in given and len(given) <= max(MAX_LENGTH_RATIO * len(wanted), 5)
        for gold in golds
    )


def judge(question: Question, answer: Answer) -> Verdict:
    """Compare an answer with what is known about its question."""
    gold = question.doc is not None
    in_document = [c for c in answer.citations if same_document(c.path, question.doc)]
    evidence_found = any(_overlaps(c.quote, question.evidence) for c in in_document)
    right_text = gold and answer.answerable and right_answer(answer.answer, question.answers)
    if gold and answer.answerable and question.type == "yesno" and evidence_found:
        quoted = any(c.answer_start == 0 and answer.answer.startswith(c.quote) for c in answer.citations)
        told = None if quoted else said(answer.answer)
        right_text |= told is not None and told == said(question.answers[0])
    scored = gold and answer.answerable
    return Verdict(
        id=question.id,
        type=question.type,
        question=question.question,
        golds=question.answers,
        answer=answer.answer,
        reason=answer.reason,
        answerable=answer.answerable,
        p_answerable=answer.p_answerable,
        f1=f1(answer.answer, question.answers) if scored else 0.0,
        exact=exact_match(answer.answer, question.answers) if scored else 0.0,
        right_answer=right_text,
        right_document=bool(in_document),
        retrieved=any(same_document(p.path, question.doc) for p in answer.passages),
        evidence=bool(key(question.evidence)),
        evidence_found=evidence_found,
        right=(right_text and bool(in_document)) if gold else not answer.answerable,
        citations=len(answer.citations),
        citations_right=len(in_document),
        latency_ms=answer.timings_ms.get("total", 0.0),
        gold=gold,
    )


def same_document(path: str, doc: str | None) -> bool:
    """Whether a document's path names the gold file, folders aside."""
    return doc is not None and (path == doc or PurePosixPath(path).name == PurePosixPath(doc).name)


def _overlaps(quote: str, evidence: str) -> bool:
    a, b = key(quote), key(evidence)
    return bool(a and b) and (a in b or b in a or f1(quote, [evidence]) >= MIN_F1)


def evaluate(
    answerer: Asker,
    items: Sequence[Question],
    kb: str = "default",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask every question; the report as a JSON-ready dictionary (shares in percent, times in ms)."""
    verdicts = []
    failed = []
    for done, item in enumerate(items, start=1):
        try:
            verdicts.append(judge(item, answerer.ask(item.question, kb, item.history)))
        except ChatGGLMError as error:
            failed.append({"id": item.id, "error": error.message})
        if progress is not None:
            progress(done, len(items))
    return {**summary(verdicts), "failed": failed, "questions": [asdict(v) for v in verdicts]}


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The figures over all verdicts."""
    gold = [v for v in verdicts if v.gold]
    none = [v for v in verdicts if not v.gold]
    answered = [v for v in gold if v.answerable]
    types = sorted({v.type for v in gold})
    curve = risk_coverage([v.p_answerable for v in gold], [1.0 - v.right for v in gold]) if gold else None
    return {
        "count": len(verdicts),
        "answerable": {
            "count": len(gold),
            "right": _percent(v.right for v in gold),
            "right_answer": _percent(v.right_answer for v in gold),
            "right_document": _percent(v.right_document for v in gold),
            "retrieved": _percent(v.retrieved for v in gold),
            "evidence_found": _percent(v.evidence_found for v in gold),
            "refused": _percent(not v.answerable for v in gold),
            "f1": _percent(v.f1 for v in gold),
            "exact_match": _percent(v.exact for v in gold),
            "by_type": {
                t: {
                    "count": sum(v.type == t for v in gold),
                    "right": _percent(v.right for v in gold if v.type == t),
                    "evidence_found": _percent(v.evidence_found for v in gold if v.type == t),
                }
                for t in types
            },
        },
        "unanswerable": {"count": len(none), "refused": _percent(not v.answerable for v in none)},
        "citations": {
            "count": sum(v.citations for v in verdicts),
            "precision": _percent(v.citations_right / v.citations for v in answered if v.citations),
            "recall": _percent(v.evidence_found for v in answered if v.evidence),
        },
        "refusal": {
            "auroc": _number(auroc([v.p_answerable for v in gold], [v.p_answerable for v in none])),
            "risk_coverage_area": _number(curve.area) if curve else None,
            "risk_coverage": _points(curve) if curve else [],
            "calibrated": _calibrated(gold, none),
        },
        "latency_ms": percentiles([v.latency_ms for v in verdicts]),
    }


def _points(curve: RiskCoverage, count: int = 50) -> list[list[float]]:
    """At most ``count`` points (coverage, risk) of the curve, its end among them."""
    total = len(curve.risk)
    at = sorted({round((i + 1) * total / min(count, total)) - 1 for i in range(min(count, total))})
    return [[round(float(curve.coverage[i]), 4), round(float(curve.risk[i]), 4)] for i in at]


def _calibrated(gold: Sequence[Verdict], none: Sequence[Verdict]) -> dict[str, float | None] | None:
    """The strictest threshold that refuses at most a tenth of the answerable questions, and what it does."""
    if not gold:
        return None
    fitted = calibrate([v.p_answerable for v in gold], [v.p_answerable for v in none])
    return {name: _number(value) for name, value in asdict(fitted).items() if name != "auroc"}


def headline(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures of an answer report that are read first."""
    answerable, unanswerable, citations = report["answerable"], report["unanswerable"], report["citations"]
    latency, refusal = report["latency_ms"], report["refusal"]
    return [
        ("answerable: right, cited into the right document", f"{answerable['right']} % of {answerable['count']}"),
        ("answerable: EM / F1", f"{answerable['exact_match']} / {answerable['f1']} %"),
        ("answerable: refused", f"{answerable['refused']} %"),
        ("answerable: gold document retrieved", f"{answerable['retrieved']} %"),
        ("unanswerable: refused", f"{unanswerable['refused']} % of {unanswerable['count']}"),
        ("citation precision / recall", f"{citations['precision']} / {citations['recall']} %"),
        ("refusal AUROC", f"{refusal['auroc']}"),
        ("risk–coverage area (lower is better)", f"{refusal['risk_coverage_area']}"),
        ("latency p50 / p95", f"{latency['p50']} / {latency['p95']} ms"),
    ]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and the largest value; None where there are none."""
    if not values:
        return {"p50": None, "p95": None, "max": None}
    ordered = sorted(values)
    pick = lambda q: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))], 1)  # noqa: E731
    return {"p50": pick(0.5), "p95": pick(0.95), "max": round(ordered[-1], 1)}


def _percent(values: Iterable[float | bool]) -> float | None:
    numbers = [float(v) for v in values]
    return round(100 * sum(numbers) / len(numbers), 1) if numbers else None


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)
