"""`chatgglm jobs list|show|cancel|retry|work`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, warn, write_stdout
from ingest.runners import RunnerName

if TYPE_CHECKING:
    from ingest.report import JobReport
    from rag.service import Service

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Parsing processes; 0: one a processor, at most 4.")]


def register(groups: dict[str, typer.Typer]) -> None:
    """Adds the commands to the group ``jobs``, where there is one."""
    if jobs := groups.get("jobs"):
        jobs.command("list")(jobs_list)
        jobs.command("show")(jobs_show)
        jobs.command("cancel")(jobs_cancel)
        jobs.command("retry")(jobs_retry)
        jobs.command("work")(jobs_work)


@friendly_errors
def jobs_list(
    kb: Annotated[str | None, typer.Option(help="Only those of this knowledge base.", metavar="NAME")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Ingestion jobs, the latest first."""
    from ingest.jobs import list_jobs
    from ingest.report import job_to_dict
    from rag.store.kbs import get_kb

    with _service().database.session() as session:
        base = get_kb(session, kb) if kb else None
        rows = [job_to_dict(session, job, _slug(session, job.kb_id), False) for job in list_jobs(session, base, limit)]
    if as_json:
        print_json({"jobs": rows})
    elif not rows:
        err_console.print("There are no jobs.", style="yellow")
    for row in rows if not as_json else ():
        done, failed = row["progress"], row["totals"]["failed"]
        write_stdout(
            f"{row['id']}  {row['created_at']}  {row['kb']}  {row['state']}  {done['done']}/{done['total']}"
            + (f"  {failed} failed" if failed else "")
            + "\n"
        )


@friendly_errors
def jobs_show(job_id: JobId, as_json: Json = False) -> None:
    """A job with its progress and each of its documents."""
    from ingest.jobs import get_job
    from ingest.report import job_to_dict

    with _service().database.session() as session:
        job = get_job(session, job_id)
        row = job_to_dict(session, job, _slug(session, job.kb_id))
    if as_json:
        print_json(row)
        return
    _show_state(row)
    for document in row["documents"]:
        error = f": {document['error']}" if document["error"] else ""
        tried = f" (attempt {document['attempts']})" if document["attempts"] > 1 else ""
        write_stdout(f"{document['status']:9}{document['path']}{tried}{error}\n")
    for gone in row["deleted"]:
        write_stdout(f"deleted  {gone['path']}\n")


@friendly_errors
def jobs_cancel(job_id: JobId, as_json: Json = False) -> None:
    """Stop a job; its workers end with the documents they are at, and what is indexed stays."""
    from ingest import leases
    from ingest.jobs import cancel_job
    from ingest.report import job_to_dict

    with _service().database.session(write=True) as session:
        leases.reap(session, job_id)
        job = cancel_job(session, job_id)
        row = job_to_dict(session, job, _slug(session, job.kb_id), False)
    if as_json:
        print_json(row)
    elif row["state"] == "cancelled":
        err_console.print(f"Cancelled {job_id}.", markup=False)
    else:
        err_console.print(f"{job_id} stops as soon as its workers see it.", markup=False)


@friendly_errors
def jobs_retry(job_id: JobId, as_json: Json = False, workers: Workers = 0) -> None:
    """Try again what failed in a job, or what was left when it was cancelled or interrupted."""
    from ingest.cli import run, show
    from ingest.jobs import retry_job

    service = _service()
    with service.database.session(write=True) as session:
        retry_job(session, job_id)
    report = run(service, job_id, workers=workers)
    if as_json:
        print_json(report.to_dict())
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(1)


@friendly_errors
def jobs_work(
    forever: Annotated[bool, typer.Option("--forever", help="Wait for further jobs until Ctrl-C.")] = False,
    workers: Workers = 0,
    runner: Annotated[RunnerName, typer.Option(help="Where parsing runs.")] = RunnerName.LOCAL,
) -> None:
    """Work on the jobs that there are, beside other workers: those in progress and those left by a crash.

    All workers must reach the same database and see the files under the same paths.
    """
    from ingest.cli import show
    from ingest.pipeline import serve_jobs

    def told(report: JobReport) -> None:
        if report.state == "running":
            write_stdout(f"{report.job_id}: no document is left for this worker\n")
        else:
            show(report)

    try:
        serve_jobs(_service(), lambda: not forever, workers=workers, runner=runner, told=told)
    except KeyboardInterrupt:
        warn("The worker has ended.")


def _show_state(row: dict[str, Any]) -> None:
    progress = row["progress"]
    speed = ""
    if "documents_per_s" in progress:
        speed = f", {progress['documents_per_s']} documents/s, {progress['chunks_per_s']} chunks/s"
        if progress["seconds_left"] is not None:
            speed += f", {progress['seconds_left']:.0f} s left"
    write_stdout(f"{row['id']}  {row['kb']}  {row['state']}  {progress['done']}/{progress['total']}{speed}\n")
    if row["error"]:
        write_stdout(f"error: {row['error']}\n")


def _slug(session: Any, kb_id: int) -> str:
    from rag.store.models import KnowledgeBase

    return str(session.get_one(KnowledgeBase, kb_id).slug)


def _service() -> Service:
    from rag.service import get_service

    return get_service()
