"""`chatgglm eval reading | refusal | summary | translation | chat`: measure weights on files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.cli import Int8, Json, Threads, Weights, load_engine
from gglm.console import err_console, friendly_errors, print_json, progress, write_stdout

if TYPE_CHECKING:
    from gglm.engine import Engine

Questions = Annotated[list[Path], typer.Argument(metavar="FILE…", help="CMRC-like .jsonl(.zst), or official .json.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N rows of each file; 0: all.")]
Undeclared = Annotated[
    bool, typer.Option("--undeclared", help="Measure the decoder though the weights do not declare the task.")
]
Translator = Annotated[
    Path | None,
    typer.Option(
        "--weights", envvar="CHATGGLM_TRANSLATOR_WEIGHTS", help="Weights folder; the shipped translator's without."
    ),
]
Table = Callable[[dict[str, Any]], Iterator[str]]


def register(group: typer.Typer) -> None:
    """Add the commands to the `eval` group."""
    for command in (reading, refusal, summary, translation, chat):
        group.command()(command)


@friendly_errors
def reading(
    files: Questions,
    as_json: Json = False,
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    limit: Limit = 0,
) -> None:
    """Reading on the gold paragraph: official CMRC 2018 EM and F1, evidence, refusal, calibration, risk–coverage."""
    from gglm.evaluation import evaluate, load_items

    sets = [load_items(f) for f in files]
    engine = load_engine(weights, threads, int8)
    _report(engine, files, [s[:limit] if limit else s for s in sets], partial(evaluate, engine), as_json, _reading)


@friendly_errors
def refusal(
    files: Questions,
    as_json: Json = False,
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    limit: Limit = 0,
    distractors: Annotated[int, typer.Option(min=0, max=9, help="Most other passages beside the own one.")] = 4,
    sample: Annotated[int, typer.Option(min=0, help="Questions read with distractors, at random; 0: all.")] = 300,
    plot: Annotated[Path | None, typer.Option(help="Picture of calibration and risk–coverage to write.")] = None,
) -> None:
    """When to decline: AUROC, false refusals at the shipped threshold, calibration, distractor passages."""
    from gglm import evaluation_refusal
    from gglm.evaluation import load_items

    sets = [load_items(f) for f in files]
    engine = load_engine(weights, threads, int8)
    report = _report(
        engine, files, [s[:limit] if limit else s for s in sets],
        lambda items, advance: evaluation_refusal.evaluate(engine, items, distractors, sample, advance),
        as_json, _refusal, lambda items: evaluation_refusal.steps(len(items), distractors, sample),
    )  # fmt: skip
    if plot:
        evaluation_refusal.plot(report, plot)
        err_console.print(str(plot))


@friendly_errors
def summary(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help='.jsonl(.zst) of {"text", "summary"}.')],
    as_json: Json = False,
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    limit: Limit = 0,
    undeclared: Undeclared = False,
) -> None:
    """Summaries: ROUGE-1/2/L on characters, beside the text's opening sentences."""
    from gglm import evaluation_writing

    sets = [evaluation_writing.load_pairs(f, "text", "summary", limit) for f in files]
    engine = _allowed(load_engine(weights, threads, int8), undeclared)
    _report(engine, files, sets, partial(evaluation_writing.summary, engine), as_json, _summary)


@friendly_errors
def translation(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help='.jsonl(.zst) of {"zh", "en"}.')],
    as_json: Json = False,
    weights: Translator = None,
    threads: Threads = 1,
    int8: Int8 = False,
    limit: Limit = 0,
    glossary: Annotated[
        Path | None, typer.Option(help='Words with glosses ({"zh", "en"} lines) for the word-by-word baseline.')
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="From English into Chinese.")] = False,
    undeclared: Undeclared = False,
) -> None:
    """Translation 中→英: corpus chrF and BLEU (sacreBLEU), beside a word-by-word gloss."""
    from gglm import evaluation_writing
    from gglm.evaluation_baselines import Glossary
    from gglm.weights import default_folder

    columns = ("en", "zh") if back else ("zh", "en")
    sets = [evaluation_writing.load_pairs(f, *columns, limit) for f in files]
    words = Glossary(glossary) if glossary else None
    engine = _allowed(load_engine(weights or default_folder("翻译"), threads, int8), undeclared)
    direction: Any = "en-zh" if back else "zh-en"
    _report(
        engine, files, sets,
        lambda pairs, advance: evaluation_writing.translation(engine, pairs, direction, words, advance),
        as_json, _translation,
    )  # fmt: skip


@friendly_errors
def chat(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help='.jsonl(.zst) of {"turns": [{"role", "content"}]}.')
    ],
    as_json: Json = False,
    weights: Weights = None,
    threads: Threads = 1,
    int8: Int8 = False,
    limit: Limit = 0,
    undeclared: Undeclared = False,
) -> None:
    """Chat: held-out loss per character and how replies fit, beside one reply for everything."""
    from gglm import evaluation_writing

    sets = [evaluation_writing.load_dialogues(f, limit) for f in files]
    engine = _allowed(load_engine(weights, threads, int8), undeclared)
    _report(engine, files, sets, partial(evaluation_writing.chat, engine), as_json, _chat)


def _allowed(engine: Engine, undeclared: bool) -> Engine:
    from gglm.evaluation_writing import with_all_tasks

    return with_all_tasks(engine) if undeclared else engine


def _report(
    engine: Engine,
    files: Sequence[Path],
    sets: Sequence[Sequence[Any]],
    measure: Callable[[Any, Callable[[int], None]], dict[str, Any]],
    as_json: bool,
    table: Table,
    steps: Callable[[Any], int] = len,
) -> dict[str, Any]:
    """Measure each file and print the report; it is returned too."""
    report: dict[str, Any] = {"model": engine.id, "files": {}}
    with progress() as bar:
        for file, rows in zip(files, sets, strict=True):
            task = bar.add_task(file.name, total=steps(rows))
            report["files"][str(file)] = measure(rows, partial(bar.advance, task))
    if as_json:
        print_json(_finite(report))
    else:
        lines = (line for name, part in report["files"].items() for line in (f"{name}   ({engine.id})", *table(part)))
        write_stdout("\n".join(lines) + "\n")
    return report


def _finite(value: Any) -> Any:
    """The same with null for what is not a number (JSON has no NaN)."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def _between(interval: Sequence[float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"


def _reading(r: dict[str, Any]) -> Iterator[str]:
    yield f"  {r['questions']} questions, {r['ms_per_question']:.0f} ms each"
    if r.get("count"):
        yield (
            f"  EM {r['em']:.2f} {_between(r['em_interval'])}   F1 {r['f1']:.2f} {_between(r['f1_interval'])}   "
            f"over {r['count']} answerable"
        )
        nearest = r["nearest_sentence"]
        yield f"    sentence most like the question: EM {nearest['em']:.2f}   F1 {nearest['f1']:.2f}"
    if len(r["by_type"]) > 1:
        for kind, part in r["by_type"].items():
            yield f"    {kind:<12} EM {part['em']:6.2f}   F1 {part['f1']:6.2f}   ({part['count']})"
    if shown := r.get("evidence"):
        yield (
            f"  evidence F1 {shown['f1']:.2f} {_between(shown['f1_interval'])}, with the answer's {shown['joint']:.2f} "
            f"({shown['count']}; sentence most like the question: {shown['nearest_sentence_f1']:.2f})"
        )
    if v := r.get("verdict"):
        yield (
            f"  yes or no: {100 * v['accuracy']:.1f} % right of {v['count']}; told for {100 * v['told']:.1f} %"
            + (f", {100 * v['accuracy_told']:.1f} % of these right" if "accuracy_told" in v else "")
        )
    yield from _refused(r["refusal"])


def _refused(refusal: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    if "auroc" in refusal:
        low, high = refusal["auroc_interval"]
        yield (
            f"{indent}refusal AUROC {refusal['auroc']:.3f} [{low:.3f}, {high:.3f}], "
            f"calibration error {refusal['ece']:.3f}"
        )
    shares = [
        f"{100 * refusal[key]:.1f} % of the {label} questions"
        for key, label in (("false_refusals", "answerable"), ("refused", "unanswerable"))
        if key in refusal
    ]
    yield f"{indent}below the threshold {refusal['threshold']:.3f}: " + ", ".join(shares)


def _refusal(r: dict[str, Any]) -> Iterator[str]:
    yield f"  {r['questions']} questions, {r['answerable']} answerable, over their own paragraph"
    yield from _refused(r["refusal"])
    risks = "   ".join(f"{float(c):.0%} {v:.3f}" for c, v in r["risk_coverage"]["risk_at"].items())
    yield f"  risk (1 − F1) at coverage: {risks}   area {r['risk_coverage']['aurc']:.3f}"
    if found := r.get("distractors"):
        yield f"  {found['questions']} of them beside other passages (the nearest):"
        for count, part in found["beside_own"].items():
            if part["count"]:
                auroc = part["refusal"].get("auroc", float("nan"))
                yield (
                    f"    +{count}: F1 {part['f1']:.2f} (lost {part['f1_loss']:+.2f})   own paragraph "
                    f"{part['own_paragraph']:.1%}   AUROC {auroc:.3f}   "
                    f"false refusals {part['refusal']['false_refusals']:.1%}"
                )
        if relevance := found.get("relevance"):
            yield f"  relevance of own and other passages: AUROC {relevance['auroc']:.3f}   ECE {relevance['ece']:.3f}"
        yield "  other passages only, as if the answer were nowhere:"
        yield from _refused(found["distractors_only"], "    ")


def _rouge(scores: dict[str, Any]) -> str:
    return f"ROUGE-1 {scores['rouge1']:.2f}   -2 {scores['rouge2']:.2f}   -L {scores['rougeL']:.2f}"


def _summary(r: dict[str, Any]) -> Iterator[str]:
    yield f"  {r['rows']} texts, {r['method']} summaries, {r['copied']:.1%} copied, {r['ms_per_text']:.0f} ms each"
    yield f"  {_rouge(r)}   (L {_between(r['rougeL_interval'])})"
    yield f"    first sentence: {_rouge(r['baselines']['lead_sentence'])}"
    yield f"    opening of that length: {_rouge(r['baselines']['lead_same_length'])}"


def _translation(r: dict[str, Any]) -> Iterator[str]:
    yield f"  {r['rows']} texts, {r['ms_per_text']:.0f} ms each"
    yield f"  chrF {r['chrf']:.2f}   BLEU {r['bleu']:.2f}"
    scores = [f"{r['sure'][k]:.2f}" if r["sure"][k] is not None else "–" for k in ("chrf", "chrf_others")]
    yield f"  sure of {r['sure']['share']:.0%} of them: chrF {scores[0]}, of the others {scores[1]}"
    for name, scores in r["baselines"].items():
        label = {"gloss": "word by word", "copy": "left untranslated"}[name]
        yield f"    {label}: chrF {scores['chrf']:.2f}   BLEU {scores['bleu']:.2f}"


def _chat(r: dict[str, Any]) -> Iterator[str]:
    one = r["baselines"]["one_reply"]
    loss, unigram = r["loss_per_character"], r["unigram_loss"]
    yield f"  {r['rows']} replies, {r['ended']:.1%} of them end, {r['distinct_replies']:.1%} distinct"
    yield f"  loss {loss:.3f} nats per character (character frequencies alone: {unigram:.3f})"
    yield f"  ROUGE-L {r['rougeL']:.2f} {_between(r['rougeL_interval'])}"
    yield f"    always «{one['text'][:20]}»: {one['rougeL']:.2f}"
    yield f"  figures or Latin words that nobody mentioned: {r['invented']:.1%} of the replies"
