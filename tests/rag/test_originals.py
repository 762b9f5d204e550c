from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.pipeline import ingest
from rag.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from rag.service import Service
from rag.settings import Settings
from rag.store.documents import delete_document, live_version
from rag.store.files import LEFTOVER_AGE_S, FileStore, FolderStore, S3Store, file_store
from rag.store.kbs import delete_kb, get_kb
from tests.ingest.installation import HashEmbedder

TEXT = "员工工作满一年的，每年可以休十五天带薪年假。"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A real S3 server on this machine, with an empty bucket; gives ``s3://bucket/prefix``."""
    boto3 = pytest.importorskip("boto3", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto, of the extra test")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="originals")
        yield "s3://originals/kept"
    server.stop()


@pytest.fixture(params=["home", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    return "home" if request.param == "home" else request.getfixturevalue("s3")


@pytest.fixture
def service(place: str, tmp_path: Path) -> Iterator[Service]:
    made = Service(Settings(home=tmp_path / "home", originals=place), HashEmbedder())
    made.database.migrate()
    yield made
    assert made.originals.store
    for name in list(made.originals.store.names()):
        made.originals.store.delete(name)


def names(service: Service) -> set[str]:
    assert service.originals.store
    return set(service.originals.store.names())


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_a_store_keeps_whole_files(place: str, tmp_path: Path) -> None:
    store = file_store(place, tmp_path)
    assert store
    name = digest("a")
    assert not store.has(name)
    store.put(name, b"a")
    store.put(name, b"a")
    assert store.has(name)
    assert store.open(name).read() == b"a"
    assert name in set(store.names())
    store.delete(name)
    store.delete(name)
    assert not store.has(name)
    with pytest.raises(NotFound):
        store.open(name)


def test_originals_live_as_long_as_a_version_needs_them(service: Service, tmp_path: Path) -> None:
    file, twin = written(tmp_path, "a.txt", TEXT), written(tmp_path, "b.txt", TEXT)
    assert ingest(service, [file, twin], workers=1).ok
    assert names(service) == {digest(TEXT)}
    changed = TEXT.replace("十五", "二十")
    file.write_text(changed, encoding="utf-8")
    assert ingest(service, [file], workers=1).ok
    assert names(service) == {digest(TEXT), digest(changed)}  # the replaced version stays readable
    with service.database.session(write=True) as session:
        kb = get_kb(session, "default")
        old, twin_version = (live_version(session, kb, name) for name in ("a.txt", "b.txt"))
        assert old
        assert twin_version
        assert service.originals.open(twin_version).read() == TEXT.encode()
        delete_document(session, old.document_id)
    assert service.originals.sweep() == 1
    assert names(service) == {digest(TEXT)}  # b.txt still needs it
    with service.database.session() as session:
        gone = session.get_one(type(old), old.id)
        with pytest.raises(NotFound):
            service.originals.open(gone)
    with service.database.session(write=True) as session:
        delete_kb(session, "default")
    assert service.originals.sweep() == 1
    assert names(service) == set()


def test_verify_reports_what_is_missing_and_ingesting_again_heals_it(service: Service, tmp_path: Path) -> None:
    file = written(tmp_path, "a.txt", TEXT)
    ingest(service, [file], workers=1)
    assert service.indexes.verify("default").ok
    assert service.originals.store
    service.originals.store.delete(digest(TEXT))
    report = service.indexes.verify("default")
    assert not report.ok
    assert "a.txt" in report.problems[0]
    assert ingest(service, [file], workers=1).documents[0].status == "skipped"
    assert names(service) == {digest(TEXT)}
    assert service.indexes.verify("default").ok


def test_a_file_that_changed_meanwhile_is_not_taken_for_the_original(service: Service) -> None:
    with pytest.raises(Conflict, match="changed"):
        service.originals.keep(digest("a"), lambda: b"b")
    assert names(service) == set()


def test_originals_can_be_off(tmp_path: Path) -> None:
    service = Service(Settings(home=tmp_path / "home", originals="off"), HashEmbedder())
    service.database.migrate()
    assert ingest(service, [written(tmp_path, "a.txt", TEXT)], workers=1).ok
    assert not (tmp_path / "home" / "originals").exists()
    assert service.indexes.verify("default").ok
    with service.database.session() as session:
        version = live_version(session, get_kb(session, "default"), "a.txt")
        assert version
        with pytest.raises(NotFound, match="not kept"):
            service.originals.open(version)


def test_a_crash_leaves_no_half_file_under_a_name(tmp_path: Path) -> None:
    left = tmp_path / "new-0123"
    left.write_bytes(b"half")
    young = tmp_path / "new-4567"
    young.write_bytes(b"half")
    os.utime(left, (0, left.stat().st_mtime - 2 * LEFTOVER_AGE_S))
    store: FileStore = FolderStore(tmp_path)
    assert list(store.names()) == []
    assert not left.exists()
    assert young.exists()  # somebody may be writing it


def test_errors_say_what_to_check(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="bucket exists"):
        S3Store("no-such-bucket").put(digest("a"), b"a")
    with pytest.raises(InvalidInput, match="s3://BUCKET"):
        file_store("s3:///x", tmp_path)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="CHATGGLM_ORIGINALS"):
        FolderStore(blocked).put(digest("a"), b"a")
