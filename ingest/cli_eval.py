"""`chatgglm eval retrieval | answers | calibrate`: over labelled data or a knowledge base that is there already.

They stand here and not in rag because a folder of documents is ingested first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, progress, write_stdout

if TYPE_CHECKING:
    from ingest.report import Progress
    from rag.evaluation.answers import Question
    from rag.service import Service

Data = Annotated[
    Path,
    typer.Argument(
        metavar="FILE|FOLDER",
        exists=True,
        help='Folder with documents and questions.jsonl, or JSON lines (also .zst) with "question", "answers" and '
        'either "context", or "doc" for the documents of --kb.',
    ),
]
Kb = Annotated[
    str | None,
    typer.Option(
        "--kb",
        help="Ask this knowledge base. Without it: one made of the data; of a file without contexts, default.",
        metavar="NAME",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the commands to the group ``eval``, where there is one."""
    if group := groups.get("eval"):
        group.command("retrieval")(eval_retrieval)
        group.command("answers")(eval_answers)
        group.command("calibrate")(eval_calibrate)


@friendly_errors
def eval_retrieval(
    data: Data,
    kb: Kb = None,
    dense: Annotated[bool, typer.Option(help="File of contexts: score the embedder and the hybrid too.")] = True,
    rerank: Annotated[bool, typer.Option(help="Documents: let the reader's relevance reorder the first few.")] = True,
    as_json: Json = False,
) -> None:
    """Recall, MRR and nDCG: of a file's contexts by words, by meaning and both; of documents as a search finds them."""
    from ingest.evaluation import brings_documents
    from rag.evaluation.retrieval import MEASURES, evaluate_search

    if kb is None and data.is_file() and brings_documents(data):
        report = _contexts(data, dense)
        legs: tuple[str, ...] = ("lexical", "dense", "hybrid")
        shown = [(name, report[name]) for name in legs if name in report]
        title = f"{report['questions']} questions, {report['contexts']} contexts"
    else:
        with _asked(data, kb) as (service, questions, name), _steps("searching") as step:
            report = evaluate_search(service.retriever, questions, name, rerank, step)
        shown = [(name, report[name]) for name in ("documents", "passages")]
        title = f"{report['questions']} questions"
    if as_json:
        print_json(report)
    else:
        _print_table(title, ["", *MEASURES], [[name, *(f"{s[m]:.4f}" for m in MEASURES)] for name, s in shown])


@friendly_errors
def eval_answers(
    data: Data,
    kb: Kb = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="Draw the risk–coverage curve (.png, .svg or .pdf).", metavar="FILE", dir_okay=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Right answers with a right citation, refusals, risk and coverage, latency. Exit code 1 where asking fails."""
    from rag.evaluation.answers import evaluate, headline

    with _asked(data, kb) as (service, questions, name):
        service.retriever.generation(name)  # an unknown knowledge base is told before the first question
        with _steps("asking") as step:
            report = evaluate(service.answerer, questions, name, step)
    if plot is not None:
        from rag.evaluation.plots import plot_risk_coverage

        err_console.print(f"Curve: {plot_risk_coverage(report['refusal']['risk_coverage'], plot)}", markup=False)
    if as_json:
        print_json(report)
    else:
        _print_table("Answers", ["", ""], [[name, value] for name, value in headline(report)])
    if report["failed"]:
        raise typer.Exit(1)


@friendly_errors
def eval_calibrate(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE|FOLDER…", exists=True, help="Labelled data as for `eval answers`; never what is reported on."
        ),
    ],
    weights: Annotated[Path, typer.Option("--weights", help="Weights folder whose config.json is updated.")],
    lose: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of right answers refused at most, in the files' mean.")
    ] = 0.1,
    as_json: Json = False,
) -> None:
    """Fit how sure an answer over passages that a search finds must be (after `train calibrate`, for chosen ones).

    Each file's documents are asked some of the other files' questions, too, which they do not answer.
    """
    from dataclasses import asdict

    from gglm.calibration import calibrate_asked
    from gglm.cli import load_engine
    from gglm.weights import update_config
    from ingest.evaluation import labelled
    from rag.evaluation.calibration import Recorder, asked, foreign
    from rag.settings import get_settings

    recorder = Recorder(load_engine(weights, 1))
    settings = get_settings().model_copy(update={"answerable_threshold": None})  # nothing is refused here
    files = []
    with ExitStack() as stack:
        every = [stack.enter_context(labelled(path, settings, reader=recorder)) for path in data]
        if len(every) == 1:
            err_console.print("One set alone: no questions of other documents, which are what asking must refuse, too.")
        for path, made in zip(data, every, strict=True):
            others = [item for other in every if other is not made for item in other.questions]
            with _steps(f"asking {path.name}") as step:
                items = [*made.questions, *foreign(made.questions, others)]
                files.append(asked(made.service.answerer, recorder, items, step))
    fitted = calibrate_asked(recorder.engine, files, lose)
    update_config(weights, reader=fitted)
    assert fitted.found is not None
    limits = f"{fitted.found.threshold:.3f}, yes and no {fitted.verdict:.3f}"
    err_console.print(f"{weights / 'config.json'}: threshold {limits}")
    if as_json:
        print_json(asdict(fitted))


def _contexts(file: Path, dense: bool) -> dict[str, Any]:
    """The legs of the search compared over the distinct contexts of a file."""
    from rag.evaluation.retrieval import evaluate
    from rag.evaluation.rows import read_rows
    from rag.index.lexical import Bm25Index
    from rag.index.vectors import FaissStore
    from rag.settings import get_settings

    embedder = None
    if dense:
        from rag.embedders import load_embedder

        embedder = load_embedder(get_settings().embedder)
    vectors = FaissStore(embedder.dim) if embedder is not None else None
    with progress() as bar:
        tasks: dict[str, Any] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done)

        return evaluate(read_rows(file), embedder, Bm25Index(), vectors, step)


@contextmanager
def _asked(data: Path, kb: str | None) -> Iterator[tuple[Service, list[Question], str]]:
    """The installation to ask, the questions, and the knowledge base's name."""
    from ingest.evaluation import brings_documents, labelled, questions_file

    if kb is not None or not brings_documents(data):
        from rag.evaluation.answers import questions
        from rag.evaluation.rows import read_rows

        file = questions_file(data) if data.is_dir() else data
        yield _service(), questions(read_rows(file)), kb or "default"
        return
    with ExitStack() as stack:
        with progress() as bar:
            task = bar.add_task("ingesting", total=None)

            def step(done: Progress) -> None:
                bar.update(task, total=done.total, completed=done.done)

            made = stack.enter_context(labelled(data, progress=step))
        yield made.service, made.questions, "default"


@contextmanager
def _steps(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _service() -> Service:
    from rag.service import get_service
    from rag.settings import get_settings

    return get_service(get_settings())


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    write_stdout(captured.get())
