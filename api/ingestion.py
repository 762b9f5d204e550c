"""Works on ingestion jobs beside the server: uploads at once, jobs that a killed process left behind later."""

from __future__ import annotations

import json
import logging
import queue
import shutil
import threading
import time
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gglm.errors import UserError
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from rag.service import Service

log = logging.getLogger("chatgglm.api")

SWEEP_S = 30.0
ORPHAN_AGE = timedelta(seconds=60)
"""A job of another process is left to it for that long before it counts as orphaned."""
UPLOAD_AGE_S = 24 * 3600
NAME_BYTES = 200


class IngestionWorker:
    """One thread that takes jobs one after the other; the queue itself is in SQL and survives a crash."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._submitted: queue.Queue[tuple[str, Path | None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._loop, name="ingest", daemon=True)
        self._thread.start()

    def upload(self, folder: Path, files: list[Path], kb: str, force: bool = False) -> str:
        """Makes a job of uploaded files; with ``force`` the same bytes again are no reason to skip one.

        ``folder``, which holds them, is removed when all are indexed; else it stays for a retry, `UPLOAD_AGE_S` long.
        """
        from ingest.pipeline import submit

        job_id = submit(self._service, files, kb, force=force)
        self._submitted.put((job_id, folder))
        return job_id

    def take_up(self, job_id: str) -> None:
        """Works on a job that is queued again."""
        self._submitted.put((job_id, None))

    def close(self) -> None:
        """Takes no further job. The one at work goes on until the process ends, and is then resumed."""
        self._submitted.put(None)

    def _loop(self) -> None:
        while True:
            try:
                task = self._submitted.get(timeout=SWEEP_S)
            except queue.Empty:
                self._sweep()
                continue
            if task is None:
                return
            job_id, folder = task
            if self._work(job_id) and folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _work(self, job_id: str) -> bool:
        """Whether nothing is left to be tried again."""
        from ingest.pipeline import run_job

        try:
            return run_job(self._service, job_id).ok
        except UserError as error:
            log.warning("job %s: %s", job_id, error)
        except Exception:
            log.exception("job %s failed", job_id)
        return False

    def _sweep(self) -> None:
        """Takes up orphaned jobs and removes what forgotten uploads left."""
        from ingest.leases import abandoned

        try:
            with self._service.database.session(write=True) as session:
                orphans = abandoned(session, ORPHAN_AGE)
        except UserError as error:
            log.warning("looking for jobs: %s", error)
            return
        for ident in orphans:
            self._work(ident)
        for folder in uploads(self._service.settings.home).glob("*"):
            if time.time() - folder.stat().st_mtime > UPLOAD_AGE_S:
                shutil.rmtree(folder, ignore_errors=True)


def uploads(home: Path) -> Path:
    """Where uploads wait for their job."""
    return home / "uploads"


def sidecar(tags: str, meta: str) -> bytes:
    """The side-car of files that come with ``tags`` and ``meta``; empty without any.

    Raises:
        InvalidInput: ``meta`` is no JSON object.
    """
    try:
        fields = json.loads(meta) if meta.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"«meta» is no JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise InvalidInput('«meta» must be a JSON object, as {"author": "…"}.')
    if tags.strip():
        fields["tags"] = tags
    return json.dumps(fields).encode() if fields else b""


def safe_name(name: str | None) -> str:
    """A client's file name as a plain name: no folders, no control characters, short enough for any disk.

    Raises:
        InvalidInput: nothing is left of it.
    """
    base = unicodedata.normalize("NFC", (name or "").replace("\\", "/").rpartition("/")[2])
    base = "".join(c for c in base if unicodedata.category(c)[0] != "C").strip()
    stem, dot, suffix = base.rpartition(".")
    if dot and stem:
        base = stem.encode()[:NAME_BYTES].decode("utf-8", "ignore") + dot + suffix[:10]
    else:
        base = base.encode()[:NAME_BYTES].decode("utf-8", "ignore")
    if not base.strip(". "):
        raise InvalidInput("An uploaded file has no name. Send it with a file name that has a suffix, as a.pdf.")
    return base
