"""Vectors in Milvus: the real client on Milvus Lite, behind the same service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexUnavailable
from rag.index import milvus
from rag.retrieve import Retriever
from rag.service import Service
from rag.settings import Settings
from rag.store.documents import delete_document
from rag.store.kbs import get_kb
from tests.rag.world import BigramEmbedder, World

assert World  # the other process fills it
pytest.importorskip("milvus_lite", reason="needs Milvus Lite (280 MB in all): pip install 'chatgglm[milvus]'")

BEFORE = {f"{number}.txt": f"第{number}条 员工每年有{number + 5}天年假，须提前{number}日申请。" for number in range(12)}


def settings(home: Path) -> Settings:
    return Settings(home=home, milvus_uri=str(home / "vectors.db"))


def stored(service: Service) -> int:
    """How many vectors Milvus itself holds."""
    client = milvus._client(service.settings.milvus_uri, "")
    (name,) = client.list_collections()
    return int(client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An installation that another process filled; it was killed afterwards. Milvus Lite serves one process."""
    code = (
        "import os, sys; from pathlib import Path; from tests.rag import test_index_milvus as t\n"
        "world = t.World(Path(sys.argv[1]), milvus_uri=t.settings(Path(sys.argv[1])).milvus_uri)\n"
        "world.put(t.BEFORE); world.put({'0.txt': '第0条 改为二十天。'})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return tmp_path


def test_written_killed_opened_again_and_kept_equal_to_sql(home: Path) -> None:
    service = Service(settings(home), BigramEmbedder())
    report = service.indexes.verify("default")
    assert report.ok, report.problems
    assert report.counts["chunks"] == len(BEFORE)
    assert report.counts["vectors"] == len(BEFORE) + 1, "the replaced one is a tombstone in SQL only"
    retriever = Retriever(service.database, service.indexes, service.embedder, None, service.settings)
    for path, text in list(BEFORE.items())[1:4]:
        best = retriever.search(text, k=1, rerank=False)[0]
        assert best.path == path
        assert best.scores.dense == pytest.approx(1, abs=0.01)

    index = service.indexes.open("default")
    faiss_index = Service(Settings(home=home), BigramEmbedder()).indexes
    with pytest.raises(IndexUnavailable, match="kb rebuild"):
        faiss_index.open("default")

    query = service.embedder.encode_queries(["年假有几天"])
    ids, scores = index.vectors.search(query, 5)
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)
    assert index.vectors.search(query, 5, allowed=ids[0, 2:4])[0][0].tolist() == [*ids[0, 2:4].tolist(), -1, -1, -1]
    assert not set(index.vectors.search(query, 5, excluded=ids[0, :2])[0][0]) & set(ids[0, :2])
    known = np.array([ids[0, 3], 10**9, ids[0, 1]])
    assert index.vectors.cosines(query[0], known) == pytest.approx(
        [scores[0, 3], np.nan, scores[0, 1]], abs=1e-5, nan_ok=True
    )

    # A transaction that is rolled back leaves vectors that nobody finds.
    def interrupted() -> None:
        with service.database.session(write=True) as session:
            service.indexes.publish("default", ([10_000], ["x"], query), session=session)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    report = service.indexes.verify("default")
    assert report.ok, report.problems
    assert report.counts["leftover"] == 1
    assert 10_000 not in [p.chunk_id for p in retriever.search("年假有几天", k=20, rerank=False)]

    # Deleted is deleted at once, in Milvus with the next change.
    with service.database.session(write=True) as session:
        kb = get_kb(session, "default")
        gone = delete_document(session, "3.txt", kb)
        service.indexes.publish("default", remove=gone, session=session)
    assert "3.txt" not in [p.path for p in retriever.search(BEFORE["3.txt"], k=20, rerank=False)]
    assert service.indexes.verify("default").ok
    before = stored(service)
    service.indexes.publish("default", ([20_000], ["x"], query))
    assert stored(service) == before, "one came, the deleted one went"

    # Lost in Milvus: said, and mended from SQL.
    client = milvus._client(service.settings.milvus_uri, "")
    for name in client.list_collections():
        client.drop_collection(name)
    report = service.indexes.verify("default")
    assert not report.ok
    assert "kb rebuild" in report.problems[0]
    service.indexes.rebuild("default")
    report = service.indexes.verify("default")
    assert report.ok, report.problems
    assert report.counts["vectors"] == len(BEFORE) - 1
    assert retriever.search(BEFORE["5.txt"], k=1, rerank=False)[0].path == "5.txt"

    # The same search as in files.
    faiss_index.rebuild("default")
    expected = faiss_index.open("default").vectors.search(query, 5)
    rebuilt = Service(settings(home), BigramEmbedder()).indexes
    rebuilt.rebuild("default")
    found = rebuilt.open("default").vectors.search(query, 5)
    assert found[0][0, 0] == expected[0][0, 0]
    assert np.allclose(found[1], expected[1], atol=1e-5)  # the ids of equal scores may differ


def test_collections_that_no_generation_names_are_dropped_when_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = milvus.MilvusStores(str(tmp_path / "vectors.db"))
    with stores.client() as client:
        orphan, other = stores.create(client, 1, 8), stores.create(client, 12, 8)
        stores.sweep(1, tmp_path)
        assert set(client.list_collections()) == {orphan, other}, "it may belong to a rebuild that is under way"
        monkeypatch.setattr(milvus, "ORPHAN_SECONDS", -1.0)
        stores.sweep(1, tmp_path)
        assert client.list_collections() == [other]
        stores.drop(12)
        assert client.list_collections() == []


def test_a_server_that_is_not_there_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(IndexUnavailable, match="CHATGGLM_MILVUS_URI"),
        milvus.MilvusStores("http://127.0.0.1:9").client(),
    ):
        pass
