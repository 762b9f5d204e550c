"""Workers share the items of a job, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from ingest import jobs, leases
from ingest.models import Job, JobItem
from ingest.report import job_to_dict
from ingest.sources import Source, Sources
from rag.settings import Settings
from rag.store import base
from rag.store.base import now
from rag.store.kbs import get_or_create_kb
from rag.store.session import Database


@pytest.fixture
def database(tmp_path: Path, database_url: str) -> Database:
    database = Database(Settings(home=tmp_path, database_url=database_url))
    database.migrate()
    return database


@pytest.fixture
def job_id(database: Database) -> str:
    sources = Sources([Source(Path(f"/nowhere/{i:02}.txt"), f"{i:02}.txt") for i in range(20)])
    with database.session(write=True) as session:
        return jobs.create_job(session, get_or_create_kb(session), sources, {}).id


def claim(database: Database, job_id: str, worker: str, limit: int = 4) -> list[str]:
    with database.session(write=True) as session:
        return [item.path for item in leases.claim(session, job_id, worker, limit)]


def items(session: Session, job_id: str) -> list[JobItem]:
    return list(session.get_one(Job, job_id).items)


def test_every_item_goes_to_one_worker(database: Database, job_id: str) -> None:
    assert claim(database, job_id, "a") == ["00.txt", "01.txt", "02.txt", "03.txt"]
    found: dict[str, list[str]] = {name: [] for name in "bcde"}

    def work(name: str) -> None:
        while some := claim(database, job_id, name, 2):
            found[name] += some

    threads = [threading.Thread(target=work, args=(name,)) for name in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path for some in found.values() for path in some) == [f"{i:02}.txt" for i in range(4, 20)]
    with database.session() as session:
        job = session.get_one(Job, job_id)
        assert job.state == "running"
        assert {(item.state, item.attempts) for item in job.items} == {("parsing", 1)}
        assert leases.claimable(session) == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_row_that_another_transaction_holds_is_passed_over(database: Database, job_id: str) -> None:
    """SKIP LOCKED: nobody waits for a worker that is in the middle of its claim."""
    with database.session() as slow:
        slow.execute(update(JobItem).where(JobItem.ordinal < 3).values(lease_owner="slow"))
        assert claim(database, job_id, "quick") == ["03.txt", "04.txt", "05.txt", "06.txt"]


def test_a_lease_that_ran_out_is_taken_over_and_the_old_worker_writes_nothing(database: Database, job_id: str) -> None:
    claim(database, job_id, "elsewhere:1:x", 20)
    assert claim(database, job_id, "b") == []
    with database.session() as session:
        session.execute(update(JobItem).values(lease_until=now() - timedelta(seconds=1)))
    assert claim(database, job_id, "b", 1) == ["00.txt"]
    with database.session(write=True) as session:
        first, second, *_ = items(session, job_id)
        assert first.attempts == 2
        assert leases.held(session, "elsewhere:1:x", [first.id, second.id]) == {second.id}
        assert leases.renew(session, job_id, "elsewhere:1:x")
    assert claim(database, job_id, "b") == [], "renewed"


def test_a_worker_of_this_machine_that_died_is_replaced_at_once(database: Database, job_id: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    machine = leases.new_worker().split(":")[0]
    claim(database, job_id, f"{machine}:{child.pid}:x", 3)
    claim(database, job_id, f"{machine}:{os.getpid()}:y", 3)
    with database.session(write=True) as session:
        assert leases.reap(session) == 0
        assert leases.abandoned(session) == []
    child.kill()
    child.wait()
    with database.session(write=True) as session:
        assert leases.reap(session, job_id) == 3
    assert claim(database, job_id, "z", 3) == ["00.txt", "01.txt", "02.txt"]


def test_what_a_worker_gives_back_counts_as_not_tried(database: Database, job_id: str) -> None:
    claim(database, job_id, "a", 20)
    with database.session(write=True) as session:
        leases.release(session, job_id, "a")
        assert leases.abandoned(session) == [job_id]
        assert {(item.state, item.attempts) for item in items(session, job_id)} == {("queued", 0)}


def test_failures_that_may_pass_are_tried_again_later(database: Database, job_id: str) -> None:
    for attempt in (1, 2, 3):
        assert claim(database, job_id, "a", 1) == ["00.txt"]
        with database.session(write=True) as session:
            item = items(session, job_id)[0]
            jobs.fail(item, "the share does not answer", passing=True)
            if attempt < 3:
                assert item.state == "queued"
                assert item.error == "the share does not answer"
                assert item.retry_at is not None
                wait = item.retry_at - now()
                assert timedelta(0) < wait <= jobs.BACKOFF * 4 ** (attempt - 1)
        if attempt < 3:
            assert claim(database, job_id, "b", 1) != ["00.txt"], "not yet"
            with database.session() as session:
                items(session, job_id)[0].retry_at = now()
    with database.session() as session:
        item = items(session, job_id)[0]
        assert (item.state, item.attempts) == ("failed", 3)
        assert item.error == "the share does not answer (tried 3 times)"


def test_a_failure_for_good_is_not_tried_again(database: Database, job_id: str) -> None:
    claim(database, job_id, "a", 1)
    with database.session(write=True) as session:
        jobs.fail(items(session, job_id)[0], "the file is damaged")
        assert items(session, job_id)[0].state == "failed"


def test_a_job_to_be_cancelled_gives_out_nothing_more(database: Database, job_id: str) -> None:
    claim(database, job_id, "a", 2)
    with database.session(write=True) as session:
        assert jobs.cancel_job(session, job_id).state == "running", "a is at work"
        assert not leases.renew(session, job_id, "a")
    assert claim(database, job_id, "b") == []
    with database.session(write=True) as session:
        leases.release(session, job_id, "a")
        jobs.cancel_job(session, job_id)
        assert session.get_one(Job, job_id).state == "cancelled"
        jobs.retry_job(session, job_id)
    assert len(claim(database, job_id, "b", 50)) == 20


def test_progress_tells_rates_and_the_time_left(
    database: Database, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(database, job_id, "a", 5)
    moment = now()
    monkeypatch.setattr(base, "now", lambda: moment)
    with database.session(write=True) as session:
        job = session.get_one(Job, job_id)
        job.started_at = moment - timedelta(seconds=10)
        for item in job.items[:5]:
            item.chunks, item.size_bytes = 4, 1000
            jobs.settle(item, "indexed")
            item.finished_at = moment
        session.flush()
        shown = job_to_dict(session, job, "default")
    progress = shown["progress"]
    assert (progress["done"], progress["total"]) == (5, 20)
    assert (progress["documents_per_s"], progress["chunks_per_s"], progress["seconds_left"]) == (0.5, 2.0, 30.0)
    assert "/nowhere" not in str(shown)
