"""`chatgglm ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gglm.console import err_console, friendly_errors, print_json, progress, warn, write_stdout

if TYPE_CHECKING:
    from ingest.pipeline import JobReport


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Adds `ingest` to the app, and what measures to the group ``eval``."""
    from ingest import cli_eval

    app.command("ingest")(ingest)
    cli_eval.register(app, groups)


@friendly_errors
def ingest(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and folders; - reads paths from stdin.")],
    kb: Annotated[str, typer.Option(help="Knowledge base; made if there is none of that name.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Also delete the documents that came from these folders and are gone there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be indexed, and touch nothing.")] = False,
    include: Annotated[list[str] | None, typer.Option(help="Only files like this (*.pdf); repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files like this (drafts/*); repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Parsing processes; 0: one a processor, at most 4.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds for parsing one document, before those for its size.")
    ] = None,
) -> None:
    """Put documents into a knowledge base.

    The same bytes again are skipped, and changed files replace their old version.

    A bad file is listed and the rest goes on; the exit code is 1 then.
    """
    from ingest import pipeline

    sources = list(_expanded(paths))
    patterns = {"include": include or (), "exclude": exclude or ()}
    if dry_run:
        report = pipeline.dry_run(sources, kb, workers=workers, timeout=timeout, **patterns)
    else:
        from rag.service import get_service

        service = get_service()
        with progress() as bar:
            task = bar.add_task("starting", total=None)
            report = pipeline.ingest(
                service,
                sources,
                kb,
                sync=sync,
                workers=workers,
                timeout=timeout,
                progress=lambda p: bar.update(
                    task, total=p.total, completed=p.done, description=f"{p.stage} {Path(p.path).name[:40]}"
                ),
                **patterns,
            )
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)
    if not report.ok:
        raise typer.Exit(1)


def _expanded(paths: list[str]) -> list[str]:
    """The paths given, with those on stdin in the place of ``-``."""
    if paths.count("-") == 0:
        return paths
    import sys

    lines = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape").splitlines()
    return [path for path in paths if path != "-"] + [line for line in lines if line.strip()]


def _show(report: JobReport) -> None:
    for document in report.documents:
        if document.status in ("indexed", "parsed"):
            write_stdout(f"{document.status}  {document.path}  ({document.chunks} chunks)\n")
        elif document.status == "failed":
            err_console.print(f"failed   {document.path}: {document.error}", style="red", markup=False)
        else:
            write_stdout(f"{document.status}  {document.path}: {document.error}\n")
        if document.fidelity.get("pages_without_text"):
            pages = ", ".join(map(str, document.fidelity["pages_without_text"][:20]))
            warn(f"         {document.path}: no text on page {pages} (pictures only?)")
    totals = report.totals
    indexed = totals.get("indexed", totals.get("parsed", 0))
    seconds = f" in {totals['seconds']:.1f} s" if "seconds" in totals else ""
    write_stdout(
        f"{indexed} indexed, {totals['skipped']} skipped, {totals['failed']} failed; "
        f"{totals['chunks']} chunks, {totals['characters']} characters{seconds} → {report.kb}\n"
    )
