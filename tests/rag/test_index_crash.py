"""SIGKILL in the middle of publishing and merging, at every kind of step, in real processes on real files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import alembic.command  # imported here once, not in each of the many children
import faiss
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from rag.index import segments
from rag.index.generations import IndexManager
from rag.index.merging import Merger
from rag.index.text import index_text
from rag.settings import Settings
from rag.store.documents import (
    NewChunk,
    NewVersion,
    list_documents,
    live_version,
    replace_version,
    version_chunk_ids,
)
from rag.store.kbs import get_kb, get_or_create_kb
from rag.store.session import Database
from tests.rag.world import BigramEmbedder

assert alembic.command
assert faiss
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

STEPS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open"}
"""Audit events of the interpreter at which a process may die; ``open`` counts when writing."""


def die_at(step: int, engine: Engine) -> Callable[[], int]:
    """Kill this process at the given step from now on (never, if −1); returns how many there were."""
    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def audit(name: str, args: tuple[object, ...]) -> None:
        if name in STEPS and (name != "open" or "r" not in str(args[1] or "w")):
            count()

    sys.addaudithook(audit)
    event.listen(engine, "commit", lambda connection: count())
    event.listen(engine, "after_cursor_execute", lambda *args: count() if args[2][:6] in ("UPDATE", "INSERT") else None)
    return lambda: seen


class Scene:
    """Two documents indexed; the act replaces one and adds another, or merges their two segments."""

    merges = False

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.database = Database(self.settings)
        self.database.migrate()
        self.embedder = BigramEmbedder()
        self.indexes = IndexManager(self.database, self.settings, self.embedder)

    def store(self, session: Session, path: str, text: str) -> tuple[list[int], list[int]]:
        kb = get_or_create_kb(session)
        old = live_version(session, kb, path)
        gone = version_chunk_ids(session, old.document) if old else []
        new = NewVersion("0" * 64, "text/plain", len(text), text)
        return replace_version(session, kb, path, "题", new, [NewChunk(0, len(text))])[2], gone

    def change(self, together: bool) -> None:
        """What is killed."""
        if self.merges:
            self.indexes.settle("default")
        else:
            self.act(CHANGE, together)

    def changed(self) -> bool:
        """Whether the change can be seen."""
        if self.merges:
            return len(self.indexes.open("default").lexical.segments) == 1
        return self.contents() != BEFORE

    def act(self, contents: dict[str, str], together: bool) -> None:
        """Store and publish; ``together`` in one transaction, else one after the other."""
        added: list[int] = []
        removed: list[int] = []
        texts = [index_text("题", "", text) for text in contents.values()]
        vectors = self.embedder.encode_passages(texts)
        with self.database.session(write=True) as session:
            for path, text in contents.items():
                ids, gone = self.store(session, path, text)
                added += ids
                removed += gone
            if together:
                self.indexes.publish("default", (added, texts, vectors), removed, session=session)
        if not together:
            self.indexes.publish("default", (added, texts, vectors), removed)

    def contents(self) -> dict[str, str]:
        """What SQL says."""
        with self.database.session() as session:
            kb = get_kb(session, "default")
            rows = [(row.path, live_version(session, kb, row.path)) for row in list_documents(session, kb)]
            return {path: version.text for path, version in rows if version}

    def close(self) -> None:
        self.database.close()


STRIDE = os.environ.get("CHATGGLM_TEST_KILL_STRIDE", "4")
"""1 kills at every single step (a minute or two)."""
BEFORE = {"a.txt": "年假有十五天", "b.txt": "病假要告知主管"}
CHANGE = {"a.txt": "年假改为二十天", "c.txt": "加班费另算"}


def forked(work: Callable[[], None]) -> int:
    """Run in a child; 0 if it came to its end, −9 if it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_steps(home: Path, together: bool, report: Path) -> None:
    scene = Scene(home)
    steps = die_at(-1, scene.database.engine)
    scene.change(together)
    report.write_text(str(steps()))


def killed_at(step: int, home: Path, together: bool) -> None:
    scene = Scene(home)
    die_at(step, scene.database.engine)
    scene.change(together)
    os.kill(os.getpid(), signal.SIGKILL)  # beyond the last step: everything was acknowledged


def check(home: Path, together: bool, note: Path) -> None:
    """The state after the kill, healed and whole again; notes down which of the two it was."""
    scene = Scene(home)
    contents, changed = scene.contents(), scene.changed()
    assert contents in ([BEFORE] if scene.merges else [BEFORE, BEFORE | CHANGE]), f"half of a transaction: {contents}"
    report = scene.indexes.verify("default")
    if together or scene.merges:
        assert report.ok, f"rows and index came apart: {report.problems}"
    index = scene.indexes.open("default")
    assert len(index.vectors) == len(index.lexical), "readers see a whole generation, whatever happened"
    scene.indexes.sync("default")
    report = scene.indexes.verify("default")
    assert report.ok, report.problems
    assert report.counts["vectors"] == len(contents)
    scene.act({"d.txt": "最后一篇"}, together)
    report = scene.indexes.verify("default")
    assert report.ok, report.problems
    folder = scene.settings.home / "indexes" / "1"
    assert not list(folder.glob("new-*")), "the next publisher sweeps up"
    scene.indexes.settle("default")
    assert scene.indexes.verify("default").ok
    note.write_text("after" if changed else "before")


def every_step(root: Path, together: bool, stride: int) -> dict[str, int]:
    """Kill at every ``stride``-th step of the act and right after it, each time in a fresh copy of the scene."""
    start = root / "start"

    def begin() -> None:
        scene = Scene(start)
        for path, text in BEFORE.items():  # one segment each, where segments are sealed at once
            scene.act({path: text}, together)
        scene.close()

    assert forked(begin) == 0
    shutil.copytree(start, root / "count")
    assert forked(lambda: count_steps(root / "count", together, root / "steps")) == 0
    steps = int((root / "steps").read_text())
    outcomes = {"steps": steps, "killed": 0, "before": 0, "after": 0}
    note = root / "outcome"
    for step in [*range(0, steps, stride), steps]:
        home = root / f"at{step}"
        shutil.copytree(start, home)
        assert forked(partial(killed_at, step, home, together)) == -signal.SIGKILL
        assert forked(partial(check, home, together, note)) == 0, f"killed at step {step}"
        outcomes[note.read_text()] += 1
        outcomes["killed"] += 1
        shutil.rmtree(home)
    return outcomes


@pytest.mark.parametrize("act", ["one transaction", "rows, then index", "merge"])
def test_killed_at_steps_of_publishing(tmp_path: Path, act: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rag.test_index_crash", str(tmp_path), act, STRIDE],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = json.loads(done.stdout)
    assert outcomes["steps"] > 25
    assert outcomes["killed"] >= min(outcomes["steps"], 10)
    assert min(outcomes["before"], outcomes["after"]) > 0, "kills on both sides of the commit"


def test_killed_at_random_moments_while_two_publish(tmp_path: Path) -> None:
    """Two processes publish on and on and are killed again and again; nothing is lost or half."""
    scene = Scene(tmp_path)
    scene.act(BEFORE, together=True)
    rng = random.Random(5)
    code = (
        "import sys; from pathlib import Path; from tests.rag.test_index_crash import Scene\n"
        "scene = Scene(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    scene.act({f'{sys.argv[2]}.txt': f'第{number}次', f'{sys.argv[2]}{number % 3}.txt': '内容'}, True)\n"
    )
    for round_ in range(3):
        workers = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stdout=subprocess.PIPE)
            for name in ("x", "y")
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.3, 1.5))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
        report = scene.indexes.verify("default")
        assert report.ok, (round_, report.problems)
        assert scene.contents().items() >= BEFORE.items()
    assert report.counts["generation"] > 3, "something was published between the kills"


if __name__ == "__main__":
    if sys.argv[2] == "merge":
        segments.OPEN = 1  # every segment is sealed
        Scene.merges = True
        Merger.report = lambda self, kb_slug: None  # type: ignore[method-assign]
    print(json.dumps(every_step(Path(sys.argv[1]), sys.argv[2] != "rows, then index", int(sys.argv[3]))))
