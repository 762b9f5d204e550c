"""`chatgglm ingest`; the commands around jobs are in `ingest.cli_jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, fail, friendly_errors, print_json, progress, warn, write_stdout
from ingest.runners import RunnerName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ingest.report import DocumentReport, JobReport, Progress
    from rag.service import Service


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Adds `ingest` and `chunks` to the app, the group `jobs`, and what measures to the group `eval`."""
    from ingest import cli_chunks, cli_eval, cli_jobs

    app.command("ingest")(ingest)
    app.command("chunks")(cli_chunks.chunks)
    cli_jobs.register(groups)
    cli_eval.register(app, groups)


@friendly_errors
def ingest(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files and folders; - reads paths from stdin.")],
    kb: Annotated[str, typer.Option(help="Knowledge base; made if there is none of that name.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Also delete the documents that came from these folders and are gone there.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Parse and index unchanged files too: OCR or a font was installed, say.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: ingest what changes in these folders, until Ctrl-C.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be indexed, replaced and deleted; touch nothing.")
    ] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files, or folders, like this (*.pdf); repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No files or folders like this (drafts); repeatable.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Parsing processes; 0: one a processor, at most 4.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="Seconds for parsing one document, before those for its size.")
    ] = None,
    runner: Annotated[
        RunnerName, typer.Option(help="Where parsing runs: processes of this machine, or a Ray cluster (RAY_ADDRESS).")
    ] = RunnerName.LOCAL,
    chunk_target: Annotated[
        int | None, typer.Option(help="Tokens that a chunk should have (one a Chinese character); kept for later.")
    ] = None,
    chunk_max: Annotated[int | None, typer.Option(help="Tokens that no chunk exceeds; kept for later.")] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Tokens, at most, that a chunk repeats from the one before; kept for later.")
    ] = None,
) -> None:
    """Put documents into a knowledge base.

    The same bytes again are skipped (--force replaces them), and changed files replace their old version.

    Sizes of chunks, once given, hold for the knowledge base; what is indexed already is cut again when it changes (or
    with --force).

    A bad file is listed and the rest goes on; the exit code is 1 then.
    """
    from ingest import pipeline, plan

    if watch and (as_json or dry_run):
        fail("--watch goes on until Ctrl-C; it goes with neither --json nor --dry-run.", 2)
    sources = list(_expanded(paths))
    options: dict[str, Any] = {"include": include or (), "exclude": exclude or (), "sync": sync, "force": force}
    options["sizes"] = {"chunk_target": chunk_target, "chunk_max": chunk_max, "chunk_overlap": chunk_overlap}
    running: dict[str, Any] = {"workers": workers, "timeout": timeout, "runner": runner}
    if dry_run:
        report = plan.dry_run(sources, kb, **options, **running)
    else:
        from rag.service import get_service

        service = get_service()
        _mention_abandoned(service)
        if watch:
            _watch(service, sources, kb, options, running)
            return
        report = run(service, pipeline.submit(service, sources, kb, **options), **running)
    if as_json:
        print_json(report.to_dict())
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(1)


def _watch(service: Service, sources: list[str], kb: str, options: dict[str, Any], running: dict[str, Any]) -> None:
    """Ingests, then whatever changes, until Ctrl-C."""
    from ingest import pipeline
    from ingest.watch import Watcher

    with Watcher(sources) as watcher:
        try:
            show(run(service, pipeline.submit(service, sources, kb, **options), **running))
            err_console.print("Watching; Ctrl-C ends it.")
            for changed in watcher.changes():
                if not options["sync"] and not any(path.exists() for path in changed):
                    continue  # deleted, and to be kept
                job_id = pipeline.submit(service, sources, kb, **(options | {"force": False}), only=changed)
                show(run(service, job_id, **running), only_news=True)
        except KeyboardInterrupt:
            err_console.print("Watching has ended.")


def run(service: Service, job_id: str, **running: Any) -> JobReport:
    """Works on a job under a progress bar."""
    from ingest import pipeline

    with progress() as bar:
        task = bar.add_task("starting", total=None)
        try:
            return pipeline.run_job(service, job_id, progress=_shown(bar, task), **running)
        except KeyboardInterrupt:
            bar.stop()
            warn(f"What is indexed stays; `chatgglm jobs retry {job_id}` goes on with the rest.")
            raise


def show(report: JobReport, only_news: bool = False) -> None:
    """A report for people; ``only_news`` leaves out what was skipped, and all where nothing happened."""
    documents = [d for d in report.documents if not only_news or d.status != "skipped"]
    if only_news and not documents and not report.deleted:
        return
    for document in documents:
        _show_document(document)
    for gone in report.deleted:
        write_stdout(f"deleted  {gone['path']}: its file is gone\n")
    totals = report.totals
    indexed = totals.get("indexed", totals.get("parsed", 0))
    counts = f"{indexed} indexed, {totals['skipped']} skipped, {totals['failed']} failed"
    if report.job_id is None:
        counts = f"Would be: {totals['index']} indexed, {totals['replace']} replaced, {totals['deleted']} deleted"
    elif report.deleted:
        counts += f", {len(report.deleted)} deleted"
    seconds = f" in {totals['seconds']:.1f} s" if "seconds" in totals else ""
    write_stdout(f"{counts}; {totals['chunks']} chunks, {totals['characters']} characters{seconds} → {report.kb}\n")
    if report.state == "cancelled":
        warn(f"The job was cancelled; `chatgglm jobs retry {report.job_id}` goes on with the rest.")
    elif report.error:
        err_console.print(f"Error: {report.error}", style="bold red", markup=False)


def _show_document(document: DocumentReport) -> None:
    if document.status in ("indexed", "parsed"):
        write_stdout(f"{document.action or document.status:8} {document.path}  ({document.chunks} chunks)\n")
    elif document.status == "failed":
        err_console.print(f"failed   {document.path}: {document.error}", style="red", markup=False)
    else:
        write_stdout(f"{document.status}  {document.path}: {document.error}\n")
    if pages := document.fidelity.get("pages_without_text"):
        shown = ", ".join(map(str, pages[:20]))
        advice = "pictures only? Install chatgglm[ocr], then ingest it again with --force"
        warn(f"         {document.path}: no text on page {shown} ({advice})")
    if document.fidelity.get("pages_without_font"):
        advice = "install a Chinese font (fonts-noto-cjk), then ingest it again with --force"
        warn(f"         {document.path}: characters may be missing; {advice}")
    if document.near_duplicates and document.status == "indexed":
        twin = document.near_duplicates[0]
        warn(f"         {document.path}: nearly the same as {twin.path} ({twin.similarity:.0%})")


def _shown(bar: Any, task: Any) -> Callable[[Progress], None]:
    def show(step: Progress) -> None:
        speed = f" · {step.documents_per_s:.1f} documents/s, {step.chunks_per_s:.0f} chunks/s" if step.chunks else ""
        left = f" · {step.seconds_left:.0f} s left" if step.seconds_left else ""
        description = f"{step.stage} {Path(step.path).name[:40]}{speed}{left}"
        bar.update(task, total=step.total, completed=step.done, description=description)

    return show


def _expanded(paths: list[str]) -> Iterator[str]:
    """The paths given, with those on stdin in the place of ``-``."""
    import sys

    for path in paths:
        if path != "-":
            yield path
    if "-" in paths:
        lines = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape").splitlines()
        yield from (line for line in lines if line.strip())


def _mention_abandoned(service: Service) -> None:
    from datetime import timedelta

    from ingest.leases import abandoned

    with service.database.session(write=True) as session:
        left = abandoned(session, timedelta(seconds=60))
    if left:
        warn(f"{len(left)} earlier jobs wait or were interrupted; `chatgglm jobs work` does them.")
