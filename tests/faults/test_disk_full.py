"""A full disk in the middle of an ingestion: a plain message, nothing half, and all is well once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.scene import ACTS, BEFORE, Scene, code_word, names, write


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MiB, which another user (PostgreSQL's) can reach too; skips where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="chatgglm-small-"))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"needs the right to mount a small file system: {done.stderr.strip()}")
    folder.chmod(0o755)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


def test_the_disk_fills_up(start_sqlite: Scene, small_disk: Path) -> None:
    act = ACTS["merge"]
    outcomes = set()
    for spare in (60, 200, 320):  # KiB: fails in the database, in the index files, or not at all
        scene = start_sqlite.copied(f"full-{spare}")
        moved = small_disk / "home"
        shutil.copytree(scene.home, moved)
        scene.home, private = moved, scene.home
        act.prepare(scene.documents)
        ballast = fill(small_disk, spare << 10)
        ended = scene.run(*act.argv, batch=2)
        outcomes.add(ended.code)
        assert ended.code in (0, 1)
        assert "Traceback" not in ended.stderr
        assert "unexpected" not in ended.stderr, ended.stderr
        ballast.unlink()
        after = act.after(BEFORE)
        state = scene.check(BEFORE, after, ended.settled)
        assert ended.code or state == after
        again = scene.run(*act.argv)
        assert again.code == 0, again.stderr
        assert scene.check(after, after) == after
        assert not scene.leftovers()
        shutil.rmtree(moved)
        scene.home = private
        scene.drop()
    assert 1 in outcomes, "the disk was full at least once"


def test_the_disk_of_the_database_server_fills_up(start_postgres: Scene, small_disk: Path) -> None:
    """PostgreSQL cannot extend its tables: the command says so, and goes on where it was once there is room."""
    server, folder = start_postgres.postgres, small_disk / "tables"
    assert server is not None
    folder.mkdir()
    space = server.tablespace(folder)
    scene = start_postgres.copied("server-full", space)
    after = BEFORE | dict.fromkeys(names(200, 60), 1)
    for path in after:
        write(scene.documents, path, 1)
    ballast = fill(small_disk, 400 << 10)  # a new connection needs some of it
    ended = scene.run("ingest", "FOLDER", "--workers", "1", batch=2)
    assert ended.code == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr, ended.stderr
    assert "space" in ended.stderr or "full" in ended.stderr, ended.stderr
    ballast.unlink()
    scene.check(BEFORE, after, ended.settled)
    again = scene.run("ingest", "FOLDER", "--workers", "1")
    assert again.code == 0, again.stderr
    assert scene.check(after, after) == after
    scene.drop()
    server.execute(f'DROP TABLESPACE "{space}"')


def test_a_file_may_not_grow_any_further(start_sqlite: Scene) -> None:
    """The same without the right to mount: a limit on the size of each file."""
    scene = start_sqlite.copied("limited")
    act = ACTS["ingest"]
    act.prepare(scene.documents)
    limit = (scene.home / "chatgglm.db").stat().st_size + (4 << 10)
    ended = scene.zygote.run(replace(scene.command(*act.argv, batch=3), file_bytes=limit))
    assert ended.code == 1, ended.stdout
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr, ended.stderr
    after = act.after(BEFORE)
    scene.check(BEFORE, after, ended.settled)
    assert scene.run(*act.argv).code == 0
    assert scene.check(after, after) == after
    assert code_word("000", 1) in scene.run("search", code_word("000", 1)).stdout
    scene.drop()


def fill(folder: Path, spare: int) -> Path:
    """A file that leaves so many bytes free."""
    path = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - spare))
    return path
