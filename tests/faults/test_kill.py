"""SIGKILL in the middle of real ingestions, replacements, deletions, merges and rebuilds.

One kill of each act on each database; benchmarks/faults.py does hundreds.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.process import Zygote
from tests.faults.scene import ACTS, BEFORE, Scene, trial

STEPS = {"ingest": 120, "replace": 80, "force": 110, "delete": 30, "merge": 180, "rebuild": 35}
"""About as many steps does an act take at least; past the last, it is killed when it has ended."""
SEED = int(os.environ.get("CHATGGLM_TEST_FAULTS_SEED", time.time_ns() % 1_000_000))


@pytest.mark.parametrize("name", ACTS)
def test_killed_at_a_random_step(start: Scene, name: str) -> None:
    step = random.Random(f"{SEED} {name} {start.url}").randrange(STEPS[name])
    try:
        ended, _ = trial(start, ACTS[name], f"{name}-{step}", lambda scene: scene.perform(ACTS[name], die_at=step))
    except AssertionError as error:
        error.add_note(f"CHATGGLM_TEST_FAULTS_SEED={SEED}: killed at step {step} of {name}")
        raise
    assert ended.code == -signal.SIGKILL, "the act takes fewer steps than this test believes"


def test_two_processes_that_ingest_the_same_folder_end_as_one(start: Scene, other: Zygote) -> None:
    """Side by side, replacing and deleting the same documents."""
    scene = start.copied("two")
    act = ACTS["replace"]
    act.prepare(scene.documents)
    other.start(scene.command(*act.argv, batch=3))
    scene.zygote.start(scene.command(*act.argv, batch=2))
    for ended in (scene.zygote.wait(), other.wait()):
        assert ended.code == 0, ended.stderr
    after = act.after(BEFORE)
    assert scene.check(after, after) == after
    scene.drop()


def test_a_killed_command_leaves_no_process_behind(start_sqlite: Scene) -> None:
    """The parsing processes die with their parent."""
    scene = start_sqlite.copied("orphans")
    act = ACTS["ingest"]
    act.prepare(scene.documents)
    before = parsers()
    scene.perform(act, kill_after=0.5)
    deadline = time.monotonic() + 20
    while parsers() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not parsers() - before
    scene.drop()


def parsers() -> set[int]:
    """Process ids of parsing processes on this machine."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ingest.runners.worker" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found
