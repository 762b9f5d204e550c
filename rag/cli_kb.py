"""`chatgglm kb list|create|delete|verify|rebuild`, and what `rag.cli_documents` shares with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rag.service import Service

Name = Annotated[str, typer.Argument(help="Knowledge base.", metavar="NAME")]
Kb = Annotated[str, typer.Option("--kb", help="Knowledge base.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the commands to the groups ``kb`` and ``documents``."""
    from rag import cli_documents

    kb = groups["kb"]
    kb.command("list")(kb_list)
    kb.command("create")(kb_create)
    kb.command("delete")(kb_delete)
    kb.command("verify")(kb_verify)
    kb.command("rebuild")(kb_rebuild)
    cli_documents.register(groups["documents"])


@friendly_errors
def kb_list(as_json: Json = False) -> None:
    """The knowledge bases, with how much each holds."""
    from rag.store.kbs import count_contents, list_kbs

    service = open_service()
    with service.database.session() as session:
        rows = [
            {
                "kb": kb.slug,
                "name": kb.name,
                "documents": documents,
                "chunks": chunks,
                "generation": kb.generation,
                "embedder": kb.embedder,
                "chunking": kb.chunking,
                "created_at": iso(kb.created_at),
            }
            for kb in list_kbs(session)
            for documents, chunks in [count_contents(session, kb)]
        ]
    if as_json:
        print_json({"knowledge_bases": rows})
    elif rows:
        table(rows, ("kb", "name", "documents", "chunks", "generation"))
    else:
        err_console.print("No knowledge base yet: `chatgglm ingest PATH` makes one.", style="yellow")


@friendly_errors
def kb_create(
    name: Name,
    title: Annotated[str | None, typer.Option("--name", help="Display name, any script.")] = None,
    as_json: Json = False,
) -> None:
    """Make a new, empty knowledge base."""
    from rag.errors import Conflict, NotFound
    from rag.store.kbs import get_kb, get_or_create_kb

    service = open_service()
    with service.database.session(write=True) as session:
        try:
            get_kb(session, name)
        except NotFound:
            kb = get_or_create_kb(session, name, title, service.settings.embedder)
        else:
            raise Conflict(f"There is a knowledge base «{name}» already.")
    if as_json:
        print_json({"kb": kb.slug, "name": kb.name, "embedder": kb.embedder, "created_at": iso(kb.created_at)})
    else:
        err_console.print(f"Created {kb.slug}.")


@friendly_errors
def kb_delete(name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a knowledge base with all its documents."""
    from rag.store.kbs import count_contents, delete_kb, get_kb

    service = open_service()
    with service.database.session() as session:
        documents, chunks = count_contents(session, get_kb(session, name))
    confirm(f"Delete {name} with {documents} documents?", yes)
    with service.database.session(write=True) as session:
        kb_id = delete_kb(session, name)
    service.indexes.drop(kb_id)
    service.originals.sweep()
    if as_json:
        print_json({"kb": name, "deleted": True, "documents": documents, "chunks": chunks})
    else:
        err_console.print(f"Deleted {name} ({documents} documents).")


@friendly_errors
def kb_verify(name: Annotated[str, typer.Argument(metavar="[NAME]")] = "default", as_json: Json = False) -> None:
    """Prove that database, vectors, postings and files agree; exit code 1 where they do not."""
    service = open_service()
    report = service.indexes.verify(name)
    if as_json:
        print_json({"kb": name, "ok": report.ok, "problems": list(report.problems), "counts": report.counts})
    else:
        for problem in report.problems:
            err_console.print(problem, style="red", markup=False)
        counts = ", ".join(f"{count} {what}" for what, count in report.counts.items() if what != "generation")
        state = "agrees" if report.ok else f"does not agree; repair it with `chatgglm kb rebuild {name}`"
        err_console.print(f"{name}, generation {report.counts['generation']} ({counts}): {state}.", markup=False)
    if not report.ok:
        raise typer.Exit(1)


@friendly_errors
def kb_rebuild(name: Annotated[str, typer.Argument(metavar="[NAME]")] = "default", as_json: Json = False) -> None:
    """Make the index again from the database, with the embedder of the settings."""
    service = open_service()
    with _progress("embedding") as step:
        generation = service.indexes.rebuild(name, step)
    index = service.indexes.open(name)
    if as_json:
        print_json({"kb": name, "generation": generation, "chunks": len(index), "embedder": index.embedder})
    else:
        err_console.print(f"{name}: generation {generation} with {len(index)} chunks.", markup=False)


def open_service() -> Service:
    from rag.service import get_service

    return get_service()


def confirm(question: str, yes: bool) -> None:
    """Ask where somebody sits at a terminal; scripts mean what they say."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        raise typer.Exit(1)


@contextmanager
def _progress(description: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def iso(moment: datetime) -> str:
    """UTC, as in ``2026-01-31T12:00:00Z``."""
    return moment.isoformat(timespec="seconds") + "Z"


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console(soft_wrap=True, markup=False, highlight=False).print(table)
