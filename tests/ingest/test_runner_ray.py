"""The same ingestion on a real Ray, started on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ingest import pipeline
from ingest.runners import RunnerName
from rag.embedders import load_embedder
from rag.ports import FloatMatrix
from rag.service import Service
from rag.settings import Settings
from rag.store.documents import list_documents
from rag.store.kbs import get_kb

pytest.importorskip("ray", reason="needs Ray (240 MB, not part of the test extra): pip install 'chatgglm[ray]'")

MINE = ("169.254.169.254", "metadata.google.internal")
"""Ray asks the clouds' link-local addresses where it runs, whatever is set; nothing else may be tried."""


class Counting:
    """The shipped embedder; counts what this process embeds."""

    def __init__(self) -> None:
        self.inner = load_embedder()
        self.id, self.dim, self.texts = self.inner.id, self.inner.dim, 0

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        self.texts += len(texts)
        return self.inner.encode_passages(texts)

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        return self.inner.encode_queries(texts)


class Ingested:
    """What an ingestion by a runner left."""

    def __init__(self, home: Path, folder: Path, runner: RunnerName) -> None:
        self.embedder = Counting()
        service = Service(Settings(home=home), self.embedder)
        service.database.migrate()
        report = pipeline.ingest(service, [folder], runner=runner, workers=1)
        self.states = [(document.path, document.status) for document in report.documents]
        with service.database.session() as session:
            rows = list_documents(session, get_kb(session, "default"))
        self.documents = {row.path: (row.sha256, row.chunks) for row in rows}
        assert service.indexes.verify("default").ok
        query = self.embedder.encode_queries(["制度何时施行？"])
        self.scores = service.indexes.open("default").vectors.search(query, 20)[1]
        service.database.close()


def test_ray_and_this_machine_end_with_the_same(tmp_path: Path, blocked_attempts: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.md").write_text(f"# 第{number}章\n\n本制度自发布之日起施行。" * (number + 1), "utf-8")
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    here = Ingested(tmp_path / "local", folder, RunnerName.LOCAL)
    there = Ingested(tmp_path / "ray", folder, RunnerName.RAY)
    assert there.documents == here.documents
    assert there.states == here.states
    assert ("bad.pdf", "failed") in here.states
    assert len(here.documents) == 12
    assert np.allclose(there.scores, here.scores, atol=1e-3)
    assert here.embedder.texts > 0
    assert there.embedder.texts == 0, "vectors come from the cluster"
    tried = blocked_attempts.read_text(encoding="utf-8").splitlines()
    assert [line for line in tried if not any(address in line for address in MINE)] == []
