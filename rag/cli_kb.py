"""`chatgglm kb list|create|delete|verify|rebuild` and `chatgglm documents list|show|delete`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, progress, write_stdout

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rag.service import Service

Name = Annotated[str, typer.Argument(help="Knowledge base.", metavar="NAME")]
Kb = Annotated[str, typer.Option("--kb", help="Knowledge base.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Document = Annotated[str, typer.Argument(help="Document id, or its path.", metavar="DOCUMENT")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add the commands to the groups ``kb`` and ``documents``."""
    kb, documents = groups["kb"], groups["documents"]
    kb.command("list")(kb_list)
    kb.command("create")(kb_create)
    kb.command("delete")(kb_delete)
    kb.command("verify")(kb_verify)
    kb.command("rebuild")(kb_rebuild)
    documents.command("list")(documents_list)
    documents.command("show")(documents_show)
    documents.command("delete")(documents_delete)


@friendly_errors
def kb_list(as_json: Json = False) -> None:
    """The knowledge bases, with how much each holds."""
    from rag.store.kbs import count_contents, list_kbs

    service = _service()
    with service.database.session() as session:
        rows = [
            {
                "kb": kb.slug,
                "name": kb.name,
                "documents": documents,
                "chunks": chunks,
                "generation": kb.generation,
                "embedder": kb.embedder,
                "created_at": _iso(kb.created_at),
            }
            for kb in list_kbs(session)
            for documents, chunks in [count_contents(session, kb)]
        ]
    if as_json:
        print_json({"knowledge_bases": rows})
    elif rows:
        _table(rows, ("kb", "name", "documents", "chunks", "generation"))
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

    service = _service()
    with service.database.session(write=True) as session:
        try:
            get_kb(session, name)
        except NotFound:
            kb = get_or_create_kb(session, name, title, service.settings.embedder)
        else:
            raise Conflict(f"There is a knowledge base «{name}» already.")
    if as_json:
        print_json({"kb": kb.slug, "name": kb.name, "embedder": kb.embedder, "created_at": _iso(kb.created_at)})
    else:
        err_console.print(f"Created {kb.slug}.")


@friendly_errors
def kb_delete(name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a knowledge base with all its documents."""
    from rag.store.kbs import count_contents, delete_kb, get_kb

    service = _service()
    with service.database.session() as session:
        documents, chunks = count_contents(session, get_kb(session, name))
    _confirm(f"Delete {name} with {documents} documents?", yes)
    with service.database.session(write=True) as session:
        kb_id = delete_kb(session, name)
    service.indexes.drop(kb_id)
    if as_json:
        print_json({"kb": name, "deleted": True, "documents": documents, "chunks": chunks})
    else:
        err_console.print(f"Deleted {name} ({documents} documents).")


@friendly_errors
def kb_verify(name: Annotated[str, typer.Argument(metavar="[NAME]")] = "default", as_json: Json = False) -> None:
    """Prove that database, vectors, postings and files agree; exit code 1 where they do not."""
    service = _service()
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
    service = _service()
    with _progress("embedding") as step:
        generation = service.indexes.rebuild(name, step)
    index = service.indexes.open(name)
    if as_json:
        print_json({"kb": name, "generation": generation, "chunks": len(index), "embedder": index.embedder})
    else:
        err_console.print(f"{name}: generation {generation} with {len(index)} chunks.", markup=False)


@friendly_errors
def documents_list(kb: Kb = "default", as_json: Json = False) -> None:
    """The documents of a knowledge base by path."""
    from rag.store.documents import list_documents
    from rag.store.kbs import get_kb

    service = _service()
    with service.database.session() as session:
        rows = [
            {
                "document_id": row.id,
                "path": row.path,
                "title": row.title,
                "media_type": row.media_type,
                "size_bytes": row.size_bytes,
                "characters": row.chars,
                "chunks": row.chunks,
                "sha256": row.sha256,
                "updated_at": _iso(row.updated_at),
            }
            for row in list_documents(session, get_kb(session, kb))
        ]
    if as_json:
        print_json({"kb": kb, "documents": rows})
    elif rows:
        _table(rows, ("document_id", "path", "title", "chunks"))
    else:
        err_console.print(f"{kb} holds no documents.", style="yellow", markup=False)


@friendly_errors
def documents_show(document: Document, kb: Kb = "default", as_json: Json = False) -> None:
    """A document's text as it is stored, or with --json all about it."""
    from rag.store.documents import find_document, live_version

    service = _service()
    with service.database.session() as session:
        found = find_document(session, document, kb)
        version = live_version(session, found.kb, found.path)
        assert version is not None
        shown = {
            "document_id": found.id,
            "kb": found.kb.slug,
            "path": found.path,
            "title": found.title,
            "tags": found.tags,
            "meta": found.meta,
            "version_id": version.id,
            "sha256": version.sha256,
            "media_type": version.media_type,
            "size_bytes": version.size_bytes,
            "pages": version.pages,
            "fidelity": version.fidelity,
            "created_at": _iso(found.created_at),
            "updated_at": _iso(found.updated_at),
            "text": version.text,
            "chunks": [
                {
                    "chunk_id": chunk.id,
                    "char_start": chunk.char_start,
                    "char_end": chunk.char_end,
                    "heading": chunk.heading,
                    "page": chunk.page,
                }
                for chunk in version.chunks
            ],
        }
    if as_json:
        print_json(shown)
    else:
        write_stdout(version.text if version.text.endswith("\n") else version.text + "\n")


@friendly_errors
def documents_delete(
    documents: Annotated[list[str], typer.Argument(help="Document ids or paths.", metavar="DOCUMENT…")],
    kb: Kb = "default",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete documents; from then on, no search or answer uses them."""
    from rag.store.documents import delete_document, find_document

    service = _service()
    with service.database.session() as session:
        found = {d.id: (d.kb.slug, d.path) for d in (find_document(session, name, kb) for name in documents)}
    _confirm(f"Delete {len(found)} documents?" if len(found) > 1 else f"Delete {next(iter(found.values()))[1]}?", yes)
    for slug in sorted({slug for slug, _ in found.values()}):
        with service.database.session(write=True) as session:
            chunks = [
                chunk
                for ident, (owner, _) in found.items()
                if owner == slug
                for chunk in delete_document(session, ident)
            ]
        service.indexes.publish(slug, remove=chunks)
    if as_json:
        print_json({"deleted": [{"document_id": i, "kb": k, "path": p} for i, (k, p) in found.items()]})
    else:
        err_console.print(f"Deleted {len(found)} documents.")


def _service() -> Service:
    from rag.service import get_service

    return get_service()


def _confirm(question: str, yes: bool) -> None:
    """Ask where somebody sits at a terminal; scripts mean what they say."""
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        raise typer.Exit(1)


@contextmanager
def _progress(description: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _iso(moment: datetime) -> str:
    """UTC, as in ``2026-01-31T12:00:00Z``."""
    return moment.isoformat(timespec="seconds") + "Z"


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console(soft_wrap=True, markup=False, highlight=False).print(table)
