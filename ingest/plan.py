"""A dry run: what an ingestion would index, replace, skip and delete, found without touching anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.limits import Limits
from ingest.report import DocumentReport, JobReport
from ingest.runners import RunnerName, Task, make_runner
from ingest.sources import address, expand
from ingest.writing import same_file

if TYPE_CHECKING:
    from rag.settings import Settings
    from rag.store.documents import LiveVersion


def dry_run(
    paths: Iterable[Path | str],
    kb: str = "default",
    *,
    sync: bool = False,
    force: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int = 0,
    timeout: float | None = None,
    runner: RunnerName = RunnerName.LOCAL,
    sizes: Mapping[str, int | None] | None = None,
    settings: Settings | None = None,
) -> JobReport:
    """What `ingest.pipeline.ingest` would do with the same arguments; each document's ``action`` says it.

    Documents that would be indexed are parsed (status ``parsed``), so that bad files show. The database is read where
    there is one and never written; without one, all is new.

    Raises:
        InvalidInput: sizes that make no sense.
        StoreUnavailable: the database cannot be read, or is one of another version.
    """
    from ingest.sizes import chunk_sizes
    from rag.settings import get_settings

    settings = settings or get_settings()
    given = list(paths)
    sources = expand(given, include, exclude, Limits.of(settings, timeout))
    stored = _Stored(settings, kb, [source.path for source in sources.files])
    limits = Limits.of(settings, timeout, chunk_sizes(settings, stored.chunking, sizes).to_dict())
    found = [
        DocumentReport(p.path, None, p.status, 0, p.error, action="fail" if p.status == "failed" else "skip")
        for p in sources.problems
    ]
    tasks: list[Task] = []
    for number, source in enumerate(sources.files):
        live = stored.versions.get(source.path)
        if live and not force and same_file(address(source), live):
            reason = "unchanged: the same bytes are indexed already"
            found.append(DocumentReport(source.path, live.document_id, "skipped", 0, reason, action="skip"))
        else:
            tasks.append(Task(number, address(source), source.path))
    characters = size = 0
    for outcome in make_runner(runner, workers, limits).run(tasks):
        path = sources.files[outcome.key].path
        live = stored.versions.get(path)
        action = "fail" if outcome.status == "failed" else "skip"
        if outcome.parsed:
            action = "replace" if live else "index"
            characters += len(outcome.parsed.text)
            size += outcome.size_bytes
        found.append(
            DocumentReport(
                path,
                live.document_id if live else None,
                outcome.status,
                len(outcome.chunks),
                outcome.error or None,
                outcome.parsed.fidelity if outcome.parsed else {},
                action=action,
            )
        )
    deleted = stored.vanished(given, sources.complete, {d.path for d in found}) if sync else []
    documents = tuple(sorted(found, key=lambda document: document.path))
    actions = Counter(document.action for document in documents)
    totals = {
        "documents": len(documents),
        **{state: sum(d.status == state for d in documents) for state in ("parsed", "skipped", "failed")},
        "index": actions["index"],
        "replace": actions["replace"],
        "deleted": len(deleted),
        "chunks": sum(document.chunks for document in documents),
        "characters": characters,
        "bytes": size,
    }
    return JobReport(None, kb, "dry-run", documents, totals, deleted=tuple(deleted))


class _Stored:
    """What the knowledge base holds now; nothing where there is no database or no such knowledge base."""

    def __init__(self, settings: Settings, kb: str, paths: list[str]) -> None:
        from rag.errors import NotFound
        from rag.store.documents import live_versions
        from rag.store.kbs import check_slug, get_kb
        from rag.store.session import Database

        self.settings = settings
        self.database = Database(settings)
        self.kb_id = 0
        self.chunking: dict[str, int] | None = None
        self.versions: dict[str, LiveVersion] = {}
        check_slug(kb)
        if not self.database.made():
            return
        try:
            with self.database.snapshot() as session:
                base = get_kb(session, kb)
                self.kb_id, self.chunking = base.id, base.chunking
                self.versions = live_versions(session, self.kb_id, paths)
        except NotFound:
            pass
        finally:
            self.database.close()

    def vanished(self, paths: list[Path | str], roots: list[str], named: set[str]) -> list[dict[str, Any]]:
        from ingest.jobs import stored_name
        from ingest.vanished import still_there, vanished

        if not self.kb_id:
            return []
        options = {"paths": [stored_name(str(Path(path).absolute())) for path in paths], "roots": roots}
        there = still_there(options, self.settings)
        try:
            with self.database.snapshot() as session:
                gone = vanished(session, self.kb_id, there)
                return [{"path": d.path, "document_id": d.id} for d in gone if d.path not in named]
        finally:
            self.database.close()
