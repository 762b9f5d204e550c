"""Each index file cut short, flipped in one bit, or gone: `kb verify` tells, nothing crashes, `kb rebuild` mends it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rag.index.verify import VerifyReport
from rag.service import Service
from rag.settings import Settings
from tests.faults.scene import BEFORE, OLD, Scene, code_word


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    replace(path, bytes(data))


def cut(path: Path) -> None:
    """The second half is gone."""
    replace(path, path.read_bytes()[: path.stat().st_size // 2])


def replace(path: Path, data: bytes) -> None:
    """New content in a new inode: files of other generations are links to the old one."""
    path.unlink()
    path.write_bytes(data)


def index_files(scene: Scene) -> list[Path]:
    """The files of the visible generation."""
    kb = scene.home / "indexes" / "1"
    current = max((folder for folder in kb.iterdir() if folder.name.isdecimal()), key=lambda folder: int(folder.name))
    return sorted(path for path in current.rglob("*") if path.is_file())


def verified(scene: Scene) -> VerifyReport:
    """`kb verify` without a command."""
    service = Service(Settings(home=scene.home))
    try:
        return service.indexes.verify("default")
    finally:
        service.database.close()


def test_each_index_file_damaged(start_sqlite: Scene) -> None:
    scene = start_sqlite.copied("damaged")
    # One of each kind: segments have random names of hex digits.
    kinds = {re.sub("[0-9a-f]{16}", "*", f"{path.parent.name}/{path.name}"): path for path in index_files(scene)}
    assert len(kinds) >= 5, kinds
    for path in kinds.values():
        whole = path.read_bytes()
        for damage in (flip, cut, Path.unlink):
            what = f"{path.relative_to(scene.home)}, {damage.__name__}"
            damage(path)
            assert not verified(scene).ok, what
            if damage is flip:  # sizes are looked at when an index is opened, checksums are not: it may be read
                search = scene.run("search", code_word(OLD[0], 1))
                assert search.code in (0, 1), f"{what}: refused or answered, but not crashed: {search.code}"
                assert "unexpected" not in search.stderr, f"{what}: {search.stderr}"
            path.unlink(missing_ok=True)
            path.write_bytes(whole)
    for path in kinds.values():
        flip(path)
    report = scene.run("kb", "verify")
    assert report.code == 1, report.stdout
    assert "kb rebuild" in report.stderr
    rebuilt = scene.run("kb", "rebuild")
    assert rebuilt.code == 0, rebuilt.stderr
    assert scene.check(BEFORE, BEFORE) == BEFORE
    scene.drop()


def test_damage_is_not_carried_on_by_the_next_ingestion(start_sqlite: Scene) -> None:
    """A flipped bit in a segment that the next generation links is still found there."""
    scene = start_sqlite.copied("carried")
    path = next(path for path in index_files(scene) if path.suffix == ".faiss")
    flip(path)
    (scene.documents / OLD[0]).unlink()
    scene.run("documents", "delete", OLD[0], "--yes")
    report = scene.run("kb", "verify", "--json")
    assert report.code == 1 or OLD[0] not in scene.state()
    assert scene.run("kb", "rebuild").code == 0
    assert OLD[0] not in scene.state()
    scene.drop()


def test_a_damaged_database_says_what_to_do(start_sqlite: Scene) -> None:
    scene = start_sqlite.copied("database")
    path = scene.home / "chatgglm.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    with open(path, "r+b") as file:
        file.write(os.urandom(4096))
    report = scene.run("kb", "verify")
    assert report.code == 1
    assert "backup" in report.stderr
    assert "Traceback" not in report.stderr
    scene.drop()
