from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

import ingest.pipeline as pipeline
import ingest.work as work
from ingest import jobs, leases
from ingest.models import Job, JobItem
from ingest.pipeline import resume, run_job, submit
from ingest.plan import dry_run
from ingest.report import JobReport, Progress, job_to_dict
from rag.errors import Conflict, InvalidInput, NotFound
from rag.service import Service
from rag.store.base import now
from rag.store.documents import get_document, list_documents, list_versions
from rag.store.kbs import get_kb
from rag.store.models import DocumentVersion
from tests.ingest.installation import installation

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return installation(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "资料"
    (folder / "子").mkdir(parents=True)
    (folder / "甲.txt").write_text("甲文件\n水泵每月检查一次。", encoding="utf-8")
    (folder / "子" / "乙.md").write_text("# 乙文件\n\n风机每季度检查一次。", encoding="utf-8")
    (folder / "丙.html").write_bytes(
        "<meta charset=gbk><main><h1>丙文件</h1><p>阀门每年检查。</p></main>".encode("gbk")
    )
    return folder


def ingest(service: Service, *paths: Path, **options: object) -> JobReport:
    return pipeline.ingest(service, paths, **options)


def statuses(report: JobReport) -> dict[str, str]:
    return {document.path: document.status for document in report.documents}


def stored(service: Service, kb: str = "default") -> dict[str, str]:
    """Path → text of the live documents."""
    with service.database.session() as session:
        rows = list_documents(session, get_kb(session, kb))
        return {row.path: session.get_one(DocumentVersion, row.version_id).text for row in rows}


def proven(service: Service, kb: str = "default") -> None:
    report = service.indexes.verify(kb)
    assert report.ok, report.problems


def test_documents_come_in(service: Service, folder: Path) -> None:
    seen: list[Progress] = []
    report = ingest(service, folder, progress=seen.append)
    assert report.ok
    assert statuses(report) == {"丙.html": "indexed", "子/乙.md": "indexed", "甲.txt": "indexed"}
    assert report.totals["indexed"] == report.totals["documents"] == 3
    assert report.totals["chunks"] == sum(document.chunks for document in report.documents) == 3
    assert stored(service)["丙.html"] == "丙文件\n阀门每年检查。"
    assert (seen[-1].done, seen[-1].total) == (3, 3)
    proven(service)
    with service.database.session() as session:
        job = session.get_one(Job, report.job_id)
        assert (job.state, job.lease_owner) == ("succeeded", None)
        rows = list_documents(session, get_kb(session, "default"))
        assert {row.id for row in rows} == {document.document_id for document in report.documents}
        assert [row.title for row in rows] == ["丙文件", "乙文件", "甲文件"]
        assert str(folder.parent) not in str(job_to_dict(session, job, "default"))


def test_the_same_bytes_are_skipped_and_changed_ones_replace(service: Service, folder: Path) -> None:
    first = ingest(service, folder)
    again = ingest(service, folder)
    assert set(statuses(again).values()) == {"skipped"}
    assert again.ok
    assert all("unchanged" in (document.error or "") for document in again.documents)
    assert {d.document_id for d in again.documents} == {d.document_id for d in first.documents}
    (folder / "甲.txt").write_text("甲文件\n水泵改为每周检查一次。", encoding="utf-8")
    third = ingest(service, folder)
    assert statuses(third)["甲.txt"] == "indexed"
    assert sorted(statuses(third).values()) == ["indexed", "skipped", "skipped"]
    assert stored(service)["甲.txt"] == "甲文件\n水泵改为每周检查一次。"
    proven(service)
    with service.database.session() as session:
        versions = session.scalars(
            select(DocumentVersion).where(DocumentVersion.document_id == _id(third, "甲.txt"))
        ).all()
        assert [version.deleted_at is None for version in versions] == [False, True]


def _id(report: JobReport, path: str) -> str | None:
    return next(document.document_id for document in report.documents if document.path == path)


def test_the_same_bytes_at_two_paths_are_two_documents(service: Service, folder: Path) -> None:
    (folder / "副本.txt").write_bytes((folder / "甲.txt").read_bytes())
    report = ingest(service, folder)
    assert _id(report, "副本.txt") != _id(report, "甲.txt")
    assert len(stored(service)) == 4


def test_a_deleted_document_comes_back(service: Service, folder: Path) -> None:
    from rag.store.documents import delete_document

    first = ingest(service, folder)
    with service.database.session(write=True) as session:
        removed = delete_document(session, str(_id(first, "甲.txt")))
        service.indexes.publish("default", remove=removed, session=session)
    assert "甲.txt" not in stored(service)
    assert statuses(ingest(service, folder))["甲.txt"] == "indexed"
    proven(service)


def test_bad_files_are_listed_and_the_rest_goes_on(service: Service, folder: Path) -> None:
    (folder / "坏.pdf").write_bytes(b"%PDF-1.7 broken")
    (folder / "空.txt").write_bytes(b"")
    (folder / "旧.doc").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    (folder / "乱.txt").write_bytes(bytes(range(256)) * 40)
    report = ingest(service, folder, folder.parent / "没有.txt")
    assert not report.ok
    found = {document.path: (document.status, document.error) for document in report.documents}
    assert found["坏.pdf"][0] == found["乱.txt"][0] == "failed"
    assert found["空.txt"][0] == found["旧.doc"][0] == "skipped"
    assert found[str(folder.parent / "没有.txt")] == ("failed", "no such file or folder")
    assert all(error for status, error in found.values() if status != "indexed")
    assert report.totals["indexed"] == 3
    assert report.totals["failed"] == 3
    assert len(stored(service)) == 3
    proven(service)


def test_a_damaged_new_version_leaves_the_old_one(service: Service, folder: Path) -> None:
    ingest(service, folder)
    (folder / "甲.txt").write_bytes(bytes(range(256)) * 40)
    assert statuses(ingest(service, folder))["甲.txt"] == "failed"
    assert stored(service)["甲.txt"] == "甲文件\n水泵每月检查一次。"


def test_verify_compares_the_terms_themselves(service: Service, folder: Path) -> None:
    (folder / "丁.txt").write_text("检查" * 300, encoding="utf-8")  # more often than postings count
    ingest(service, folder)
    proven(service)
    with service.database.session(write=True) as session:
        version = session.scalars(select(DocumentVersion).where(DocumentVersion.text.contains("水泵"))).one()
        version.text = version.text.replace("水泵", "气阀")  # as many terms, other ones
    (problem,) = service.indexes.verify("default").problems
    assert "The postings of 1 chunks are not those of their text" in problem


def test_the_seconds_of_a_job_are_those_of_all_who_worked_on_it(service: Service, folder: Path) -> None:
    alone = ingest(service, folder)
    assert 0 < alone.totals["seconds"] < 600
    job_id = submit(service, [folder])
    with service.database.session(write=True) as session:  # another began it the day before, and died
        jobs.get_job(session, job_id).started_at = now() - timedelta(days=1, seconds=5)
    report = run_job(service, job_id)
    assert 86_405 <= report.totals["seconds"] < 87_000
    with service.database.session() as session:
        job = jobs.get_job(session, job_id)
        assert jobs.totals(session, job)["seconds"] == job_to_dict(session, job, "default")["totals"]["seconds"]
        assert jobs.totals(session, job)["seconds"] == report.totals["seconds"]


def test_force_replaces_what_is_unchanged(service: Service, folder: Path) -> None:
    (folder / "甲.txt").write_text("水泵每月检查一次。" * 40, encoding="utf-8")
    first = ingest(service, folder)
    smaller = {"chunk_target": 60, "chunk_max": 90, "chunk_overlap": 0}
    assert set(statuses(ingest(service, folder, sizes=smaller)).values()) == {"skipped"}
    assert {d.action for d in dry_run([folder], force=True, settings=service.settings).documents} == {"replace"}
    before = stored(service)
    forced = ingest(service, folder, force=True)
    assert set(statuses(forced).values()) == {"indexed"}
    assert {d.document_id for d in forced.documents} == {d.document_id for d in first.documents}
    assert not any(document.near_duplicates for document in forced.documents)
    assert forced.totals["chunks"] > first.totals["chunks"]  # it was cut again
    assert stored(service) == before
    with service.database.session() as session:
        document = get_document(session, _id(forced, "甲.txt"))
        old, new = list_versions(session, document)
        assert (old.number, new.number, old.sha256 == new.sha256) == (1, 2, True)
        assert old.replaced_at is not None
        assert new.replaced_at is None
        assert all(version.original for version in document.versions)
    service.originals.sweep()
    proven(service)
    assert set(statuses(ingest(service, folder)).values()) == {"skipped"}


def test_sync_deletes_what_vanished_from_the_same_folder_only(service: Service, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "别处"
    other.mkdir()
    (other / "丁.txt").write_text("别处的文件。", encoding="utf-8")
    ingest(service, folder)
    ingest(service, other)
    (folder / "甲.txt").unlink()
    assert "甲.txt" in stored(service)
    ingest(service, folder)
    assert "甲.txt" in stored(service)
    ingest(service, folder, sync=True)
    assert sorted(stored(service)) == ["丁.txt", "丙.html", "子/乙.md"]
    proven(service)
    (folder / "丙.html").write_bytes(b"")  # still there, though empty: kept
    ingest(service, folder, sync=True)
    assert "丙.html" in stored(service)


def test_sync_of_a_missing_folder_deletes_nothing(service: Service, folder: Path) -> None:
    ingest(service, folder)
    folder.rename(folder.with_name("搬走了"))
    assert not ingest(service, folder, sync=True).ok
    assert len(stored(service)) == 3


@pytest.mark.parametrize("twin", [False, True])
def test_sync_keeps_what_lies_beneath_a_link_that_leads_nowhere(
    service: Service, folder: Path, tmp_path: Path, twin: bool
) -> None:
    share = tmp_path / "共享"
    share.mkdir()
    (share / "丁.txt").write_text("共享文件。", encoding="utf-8")
    (folder / "盘").symlink_to(share)
    folders = [folder]
    if twin:  # another folder with a document of the same path, so that both are called by their folders
        folders.append(tmp_path / "别处")
        (folders[1] / "盘").mkdir(parents=True)
        (folders[1] / "盘" / "丁.txt").write_text("别处的文件。", encoding="utf-8")
    ingest(service, *folders)
    before = stored(service)
    assert len(before) == 3 + len(folders)
    share.rename(tmp_path / "没有挂上")
    (folder / "甲.txt").unlink()
    report = dry_run(folders, sync=True, settings=service.settings)
    assert [gone["path"] for gone in report.deleted if gone["path"].endswith("甲.txt")] == ["甲.txt"]
    ingest(service, *folders, sync=True)
    assert "共享文件。" in stored(service).values()
    assert "甲.txt" not in stored(service)
    (folder / "盘").unlink()  # now they are gone
    ingest(service, *folders, sync=True)
    assert "共享文件。" not in stored(service).values()
    proven(service)


def test_sync_keeps_documents_of_an_archive_within_an_archive_that_is_damaged(service: Service, folder: Path) -> None:
    def pack(inner: bytes) -> None:
        with zipfile.ZipFile(folder / "外.zip", "w") as zipped:
            zipped.writestr("内.zip", inner)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("丁.txt", "里面的话。")
    pack(buffer.getvalue())
    ingest(service, folder)
    pack(b"PK broken")
    ingest(service, folder, sync=True)
    assert stored(service)["外.zip!/内.zip!/丁.txt"] == "里面的话。"


def test_dry_run_touches_nothing(service: Service, folder: Path) -> None:
    report = dry_run([folder], settings=service.settings)
    assert statuses(report) == {"丙.html": "parsed", "子/乙.md": "parsed", "甲.txt": "parsed"}
    assert report.job_id is None
    assert report.totals["chunks"] == 3
    with service.database.session() as session, pytest.raises(NotFound):
        get_kb(session, "default")


def test_several_batches_and_knowledge_bases(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "FLUSH_DOCUMENTS", 4)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(10):
        (many / f"{i}.txt").write_text(f"第{i}号设备的说明。" * 60, encoding="utf-8")
    report = ingest(service, many, kb="devices")
    assert report.totals["indexed"] == 10
    assert report.totals["chunks"] >= 20
    assert len(stored(service, "devices")) == 10
    proven(service, "devices")
    with service.database.session() as session:
        assert get_kb(session, "devices").generation == 3
    with pytest.raises(InvalidInput, match="knowledge base"):
        ingest(service, many, kb="不行")


def test_a_cancelled_job_ends_and_can_be_taken_up_again(service: Service, folder: Path) -> None:
    job_id = submit(service, [folder])
    with service.database.session() as session:
        jobs.cancel_job(session, job_id)
        job = jobs.get_job(session, job_id)
        assert job.state == "cancelled"
        assert {item.state for item in job.items} == {"skipped"}
        with pytest.raises(Conflict):
            jobs.cancel_job(session, job_id)
        with pytest.raises(NotFound):
            jobs.get_job(session, "none")
    with pytest.raises(Conflict):
        run_job(service, job_id)
    with service.database.session(write=True) as session:
        jobs.retry_job(session, job_id)
    assert run_job(service, job_id).totals["indexed"] == 3
    with service.database.session(write=True) as session, pytest.raises(Conflict, match="nothing failed"):
        jobs.retry_job(session, job_id)


def test_a_running_job_stops_when_cancelled(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "FLUSH_DOCUMENTS", 2)
    many = tmp_path / "many"
    many.mkdir()
    for i in range(40):
        (many / f"{i:02}.txt").write_text(f"第{i}号。", encoding="utf-8")

    def cancel(progress: Progress) -> None:
        if progress.stage == "indexed" and progress.done == 4:
            with service.database.session() as session:
                (job_id,) = session.scalars(select(Job.id))
                jobs.cancel_job(session, job_id)

    report = ingest(service, many, progress=cancel, workers=1)
    assert report.state == "cancelled"
    assert not report.ok
    assert 4 <= report.totals["indexed"] < 40
    assert report.totals["indexed"] + report.totals["skipped"] == 40
    proven(service)


def test_a_failure_of_ours_ends_the_job_with_a_reason(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ValueError("no such thing")

    monkeypatch.setattr(service.indexes, "publish", broken)
    with pytest.raises(ValueError, match="no such thing"):
        ingest(service, folder)
    monkeypatch.undo()
    with service.database.session(write=True) as session:
        (job,) = session.scalars(select(Job))
        assert (job.state, job.error) == ("failed", "no such thing")
        assert {(item.state, item.attempts, item.lease_owner) for item in job.items} == {("queued", 0, None)}
        jobs.retry_job(session, job.id)
    assert run_job(service, job.id).totals["indexed"] == 3


def test_embedding_that_fails_is_tried_again(service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = service.embedder.encode_passages
    calls = []

    def shaky(texts: Sequence[str]) -> object:
        calls.append(len(texts))
        if len(calls) == 1:
            raise OSError("the embedding server does not answer")
        return encode(texts)

    monkeypatch.setattr(jobs, "BACKOFF", timedelta(0))
    monkeypatch.setattr(service.embedder, "encode_passages", shaky)
    report = ingest(service, folder)
    assert report.totals["indexed"] == 3
    with service.database.session() as session:
        assert {(item.attempts, item.error) for item in session.get_one(Job, report.job_id).items} == {(2, None)}


def test_embedding_that_stays_broken_fails_the_documents_with_the_reason(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(texts: object) -> object:
        raise OSError("no answer")

    monkeypatch.setattr(jobs, "BACKOFF", timedelta(0))
    monkeypatch.setattr(service.embedder, "encode_passages", broken)
    report = ingest(service, folder)
    assert report.totals["failed"] == 3
    assert {document.error for document in report.documents} == {"embedding failed: no answer (tried 3 times)"}
    monkeypatch.undo()
    with service.database.session(write=True) as session:
        jobs.retry_job(session, str(report.job_id))
    assert run_job(service, str(report.job_id)).totals["indexed"] == 3
    proven(service)


def test_a_file_that_another_job_wrote_meanwhile_is_read_again(
    service: Service, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose bytes are the newer cannot be told, so they are read anew."""
    encode = service.embedder.encode_passages
    file = folder / "甲.txt"

    def meanwhile(texts: Sequence[str]) -> object:
        monkeypatch.undo()
        file.write_text("甲文件\n水泵改为每周检查一次。", encoding="utf-8")
        ingest(service, folder)
        return encode(texts)

    monkeypatch.setattr(service.embedder, "encode_passages", meanwhile)
    report = ingest(service, folder)
    assert report.ok
    assert stored(service)["甲.txt"] == "甲文件\n水泵改为每周检查一次。"
    assert statuses(report)["甲.txt"] == "skipped"
    proven(service)


# -- processes that die ----------------------------------------------------------------------------


def start(home: Path, folder: Path | str, delay: float = 0.0, database_url: str = "") -> subprocess.Popen[bytes]:
    """A process that ingests a folder, or works on the job of that id."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ingest.installation", str(home), str(folder), str(delay)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        | ({"CHATGGLM_DATABASE_URL": database_url} if database_url else {}),
    )


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(24):
        (folder / f"{i:02}.txt").write_text(
            f"第{i}号设备\n" + f"第{i}号设备每月检查一次并登记。" * 30, encoding="utf-8"
        )
    return folder


def test_killed_at_any_point_then_resumed(tmp_path: Path, many: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(7)
    service = installation(home)
    killed = 0
    for round_ in range(6):
        process = start(home, many, delay=0.05)
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(chance.randrange(2, 14)):
            process.stdout.readline()
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.wait()
        assert b"Traceback" not in process.stderr.read()
        killed += process.returncode == -signal.SIGKILL
        with service.database.session() as session:
            try:
                get_kb(session, "default")
            except NotFound:
                continue
            acknowledged = set(session.scalars(select(JobItem.path).where(JobItem.state == "indexed")))
        proven(service)
        assert acknowledged <= set(stored(service)), f"lost in round {round_}"
    assert killed >= 3
    with service.database.session(write=True) as session:
        waiting = len(leases.abandoned(session))  # at once: their processes are gone
    assert waiting
    reports = resume(service)
    assert len(reports) == waiting
    assert all(report.ok for report in reports)
    assert len(stored(service)) == 24
    proven(service)
    assert set(statuses(ingest(service, many)).values()) == {"skipped"}


def test_two_processes_at_once_end_as_one_would(tmp_path: Path, many: Path) -> None:
    home = tmp_path / "home"
    service = installation(home)
    processes = [start(home, many) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors.decode()
    assert len(stored(service)) == 24
    proven(service)
    with service.database.session() as session:
        live = session.scalars(select(DocumentVersion).where(DocumentVersion.deleted_at.is_(None))).all()
        assert len(live) == 24


def test_workers_share_a_job_and_one_that_dies_is_replaced(tmp_path: Path, many: Path, database_url: str) -> None:
    """Two processes on the same job; one is killed while it holds documents."""
    home = tmp_path / "home"
    service = installation(home, database_url=database_url)
    job_id = submit(service, [many])
    doomed, survivor = (start(home, job_id, 0.3, database_url) for _ in range(2))
    assert doomed.stdout is not None
    while b"'embedding'" not in doomed.stdout.readline():
        pass
    doomed.kill()
    doomed.wait()
    _, errors = survivor.communicate(timeout=600)
    assert survivor.returncode == 0, errors.decode()
    assert len(stored(service)) == 24
    proven(service)
    with service.database.session() as session:
        job = session.get_one(Job, job_id)
        assert job.state == "succeeded"
        assert {item.state for item in job.items} == {"indexed"}
        assert any(item.attempts == 2 for item in job.items), "it took over what the dead one held"
