"""The same ingestion on a real Ray, started on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest import pipeline
from ingest.runners import RunnerName
from rag.store.documents import list_documents
from rag.store.kbs import get_kb
from tests.ingest.installation import installation

pytest.importorskip("ray", reason="needs Ray (240 MB, not part of the test extra): pip install 'chatgglm[ray]'")

MINE = ("169.254.169.254", "metadata.google.internal")
"""Ray asks the clouds' link-local addresses where it runs, whatever is set; nothing else may be tried."""


def found(home: Path, folder: Path, runner: RunnerName) -> tuple[dict[str, tuple[str, int]], list[tuple[str, str]]]:
    service = installation(home)
    report = pipeline.ingest(service, [folder], runner=runner, workers=1)
    with service.database.session() as session:
        rows = {row.path: (row.sha256, row.chunks) for row in list_documents(session, get_kb(session, "default"))}
    assert service.indexes.verify("default").ok
    service.database.close()
    return rows, [(document.path, document.status) for document in report.documents]


def test_ray_and_this_machine_end_with_the_same(tmp_path: Path, blocked_attempts: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.md").write_text(f"# 第{number}章\n\n本制度自发布之日起施行。" * (number + 1), "utf-8")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    here = found(tmp_path / "local", folder, RunnerName.LOCAL)
    assert found(tmp_path / "ray", folder, RunnerName.RAY) == here
    assert len(here[0]) == 12
    assert ("bad.pdf", "failed") in here[1]
    tried = blocked_attempts.read_text(encoding="utf-8").splitlines()
    assert [line for line in tried if not any(address in line for address in MINE)] == []
