"""`chatgglm documents list|show|history|delete`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gglm.console import err_console, friendly_errors, print_json, write_stdout
from rag import cli_kb as shared
from rag.cli_kb import Json, Kb, Yes

Document = Annotated[str, typer.Argument(help="Document id, or its path.", metavar="DOCUMENT")]
_LABELS = {
    "encoding": "encoding",
    "encoding_confidence": "confidence",
    "garbage_ratio": "garbage ratio",
    "pages_without_text": "pages without text",
    "characters": "characters",
    "characters_indexed": "characters indexed",
}
"""Of the fidelity report, what people see first."""


def register(group: typer.Typer) -> None:
    """Adds the commands to the group ``documents``."""
    group.command("list")(documents_list)
    group.command("show")(documents_show)
    group.command("history")(documents_history)
    group.command("delete")(documents_delete)


@friendly_errors
def documents_list(
    kb: Kb = "default",
    tag: Annotated[list[str] | None, typer.Option(help="Only documents with this tag; repeatable: with all.")] = None,
    as_json: Json = False,
) -> None:
    """The documents of a knowledge base by path."""
    from rag.store.documents import list_documents
    from rag.store.duplicates import near_duplicates
    from rag.store.kbs import get_kb

    wanted = set(tag or ())
    with shared.open_service().database.session() as session:
        found = [row for row in list_documents(session, get_kb(session, kb)) if wanted <= set(row.tags)]
        twins = near_duplicates(session, [row.version_id for row in found])
        rows: list[dict[str, Any]] = [
            {
                "document_id": row.id,
                "path": row.path,
                "title": row.title,
                "tags": row.tags,
                "date": row.dated.isoformat() if row.dated else None,
                "media_type": row.media_type,
                "size_bytes": row.size_bytes,
                "characters": row.chars,
                "chunks": row.chunks,
                "sha256": row.sha256,
                "near_duplicates": _twins(twins.get(row.version_id, ())),
                "updated_at": shared.iso(row.updated_at),
            }
            for row in found
        ]
    if as_json:
        print_json({"kb": kb, "documents": rows})
    elif rows:
        columns = ["document_id", "path", "title", "chunks"]
        for row in rows:
            row["tags"] = ", ".join(row["tags"])
            row["nearly the same as"] = ", ".join(twin["path"] for twin in row["near_duplicates"][:3])
        columns += [name for name in ("tags", "nearly the same as") if any(row[name] for row in rows)]
        shared.table(rows, tuple(columns))
    else:
        err_console.print(f"{kb} holds no {'such ' if wanted else ''}documents.", style="yellow", markup=False)


@friendly_errors
def documents_show(document: Document, kb: Kb = "default", as_json: Json = False) -> None:
    """A document's text as it is stored, with the report on its extraction; with --json all about it."""
    from rag.store.documents import find_document, live_version
    from rag.store.duplicates import near_duplicates

    with shared.open_service().database.session() as session:
        found = find_document(session, document, kb)
        version = live_version(session, found.kb, found.path)
        assert version is not None
        shown = {
            "document_id": found.id,
            "kb": found.kb.slug,
            "path": found.path,
            "title": found.title,
            "tags": found.tags,
            "date": found.dated.isoformat() if found.dated else None,
            "meta": found.meta,
            "version_id": version.id,
            "sha256": version.sha256,
            "media_type": version.media_type,
            "size_bytes": version.size_bytes,
            "pages": version.pages,
            "fidelity": version.fidelity,
            "near_duplicates": _twins(near_duplicates(session, [version.id]).get(version.id, ())),
            "created_at": shared.iso(found.created_at),
            "updated_at": shared.iso(found.updated_at),
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
        return
    _report(shown)
    write_stdout(version.text if version.text.endswith("\n") else version.text + "\n")


@friendly_errors
def documents_history(document: Document, kb: Kb = "default", as_json: Json = False) -> None:
    """The versions of a document, also of a deleted one, the first one first."""
    from rag.store.documents import list_versions
    from rag.store.purge import find_any_document

    with shared.open_service().database.session() as session:
        found = find_any_document(session, document, kb)
        rows = [
            {
                "version": row.number,
                "version_id": row.id,
                "title": row.title,
                "sha256": row.sha256,
                "media_type": row.media_type,
                "size_bytes": row.size_bytes,
                "characters": row.chars,
                "chunks": row.chunks,
                "created_at": shared.iso(row.created_at),
                "replaced_at": shared.iso(row.replaced_at) if row.replaced_at else None,
            }
            for row in list_versions(session, found)
        ]
        shown = {
            "document_id": found.id,
            "kb": found.kb.slug,
            "path": found.path,
            "deleted_at": shared.iso(found.deleted_at) if found.deleted_at else None,
            "versions": rows,
        }
    if as_json:
        print_json(shown)
        return
    err_console.print(f"{found.path}" + (f", deleted {shown['deleted_at']}" if found.deleted_at else ""), markup=False)
    for row in rows:
        row["replaced_at"] = row["replaced_at"] or "(present)"
        row["sha256"] = str(row["sha256"])[:12]
    shared.table(rows, ("version", "created_at", "replaced_at", "characters", "chunks", "sha256", "title"))


@friendly_errors
def documents_delete(
    documents: Annotated[list[str], typer.Argument(help="Document ids or paths.", metavar="DOCUMENT…")],
    kb: Kb = "default",
    purge: Annotated[
        bool, typer.Option("--purge", help="Also blank the stored text, and every answer and quote taken from it.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete documents; from then on, no search or answer uses them.

    Old conversations keep their quotes, unless the documents are purged; documents that are deleted already can be.
    """
    from rag.store.documents import delete_document, find_document
    from rag.store.purge import find_any_document, purge_document, scrub

    service = shared.open_service()
    find = find_any_document if purge else find_document
    with service.database.session() as session:
        rows = {d.id: d for d in (find(session, name, kb) for name in documents)}
        found = {ident: (row.kb.slug, row.path, row.deleted_at is None) for ident, row in rows.items()}
    what = f"{len(found)} documents" if len(found) > 1 else next(iter(found.values()))[1]
    shared.confirm(f"Delete {what}" + (" and all that was taken from it, for good?" if purge else "?"), yes)
    for slug in sorted({slug for slug, *_ in found.values()}):
        with service.database.session(write=True) as session:
            chunks = [
                chunk
                for ident, (owner, _, live) in found.items()
                if owner == slug and live
                for chunk in delete_document(session, ident)
            ]
        service.indexes.publish(slug, remove=chunks)
    if purge:
        with service.database.session(write=True) as session:
            for ident in found:
                purge_document(session, find_any_document(session, ident, kb))
        scrub(service.database)
    service.originals.sweep()
    if as_json:
        gone = [{"document_id": ident, "kb": slug, "path": path} for ident, (slug, path, _) in found.items()]
        print_json({"deleted": gone} | ({"purged": True} if purge else {}))
    else:
        err_console.print(f"{'Purged' if purge else 'Deleted'} {len(found)} documents.")


def _report(shown: dict[str, Any]) -> None:
    """About a document, on stderr: its text goes to stdout."""
    lines = [f"{shown['title']}  ({shown['path']}, {shown['media_type']}, {shown['size_bytes']} bytes)"]
    if shown["tags"]:
        lines.append("tags: " + ", ".join(shown["tags"]))
    lines += [f"{name}: {value}" for name, value in shown["meta"].items()]
    fidelity = shown["fidelity"]
    facts = [f"{label} {fidelity[name]}" for name, label in _LABELS.items() if fidelity.get(name) not in (None, [])]
    lines += ["extraction: " + ", ".join(facts)] if facts else []
    lines += [f"nearly the same as {twin['path']} ({twin['similarity']:.0%})" for twin in shown["near_duplicates"]]
    for line in lines:
        err_console.print(line, style="dim", markup=False)


def _twins(twins: Any) -> list[dict[str, Any]]:
    return [{"document_id": t.document_id, "path": t.path, "similarity": t.similarity} for t in twins]
