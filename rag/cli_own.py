"""`chatgglm eval own`: a regression set made of a knowledge base's own documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gglm.console import err_console, friendly_errors, print_json, progress, write_stdout

if TYPE_CHECKING:
    from rag.evaluation.own import OwnReport
    from rag.service import Service


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the command to the group ``eval``."""
    groups["eval"].command("own")(eval_own)


@friendly_errors
def eval_own(
    kb: Annotated[str, typer.Option("--kb", help="Knowledge base.", metavar="NAME")] = "default",
    questions: Annotated[int, typer.Option(help="How many questions the set may hold.", min=1, max=10_000)] = 50,
    accept: Annotated[bool, typer.Option("--accept", help="Drop questions that no longer work from the set.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Make a new set.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask questions made of your own documents; exit code 1 where one that used to work no longer does.

    The first run makes the set: questions that find their document and get the right answer from it. Run it again
    after adding documents or changing models or settings. Results of all runs are kept, with their index generation.
    """
    from rag.evaluation.own import OwnSet

    own = OwnSet(_service(), kb)
    if new:
        own.forget()
    with progress() as bar:
        task = bar.add_task("asking", total=questions)
        report = own.run(questions, accept, lambda done, total: bar.update(task, total=total, completed=done))
    if as_json:
        print_json({**report.to_dict(), "runs": len(own.results()), "set": str(own.folder / "set.json")})
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _show(report: OwnReport) -> None:
    for question in report.regressed:
        given = question["given"] or f"({question['reason']})"
        err_console.print(
            f"{question['path']}: {question['question']}  {given} ≠ {question['wanted']}", style="red", markup=False
        )
    latency = report.latency_ms
    write_stdout(
        f"{report.kb}, generation {report.generation}: {report.right} of {report.asked} questions work "
        f"({report.added} new, {report.retired} retired); p50 {latency['p50']} ms, p95 {latency['p95']} ms.\n"
    )
    if not report.ok:
        err_console.print(
            "Regression. `chatgglm eval own --accept` drops these questions from the set.", style="yellow"
        )


def _service() -> Service:
    from rag.service import get_service

    return get_service()
