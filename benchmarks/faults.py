"""Kills real commands at random points and checks that nothing is lost: ingest, replace, force, delete, merge, rebuild.

    python benchmarks/faults.py [--kills 100] [--databases sqlite postgres] [--seed 1]

Half of the kills come at a random step (a file operation, an SQL statement, a commit), half at a random moment. After
each: `kb verify`, every document exactly its old or its new content, found if it is there and not found if it is gone,
what the progress display had counted is there; then the same command again, to its end. What does not hold is listed
under «violations», and the exit code is 1. A kill that came after the end of its command is not counted. Kills are
shared out evenly among the databases.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.process import Ended, Zygote  # noqa: E402
from tests.faults.scene import ACTS, BEFORE, Act, Scene, trial  # noqa: E402
from tests.postgres import NoPostgres, PostgresServer  # noqa: E402


def measure(scene: Scene, act: Act) -> Ended:
    """The act without a kill."""
    copy = scene.copied("whole")
    act.prepare(copy.documents)
    ended = copy.perform(act)
    assert ended.code == 0, ended.stderr
    copy.drop()
    return ended


def run(scene: Scene, kills: int, chance: random.Random) -> dict[str, Any]:
    """Kills until so many commands died; the counts, by act."""
    found: dict[str, Any] = {}
    whole = {name: measure(scene, act) for name, act in ACTS.items()}
    died: Counter[str] = Counter()
    violations: list[str] = []
    number = 0
    while died.total() < kills:
        act = list(ACTS.values())[number % len(ACTS)]
        number += 1
        point: dict[str, Any] = {"die_at": chance.randrange(whole[act.name].steps)}
        if chance.random() < 0.5:
            point = {"kill_after": chance.uniform(0, whole[act.name].seconds)}
        try:
            ended, state = trial(scene, act, f"kill-{number}", lambda s, a=act, p=point: s.perform(a, **p))
        except AssertionError as error:  # its folder stays for a look
            died[act.name] += 1
            violations.append(f"{act.name}, {point}: {str(error)[:500]}")
            print(violations[-1], file=sys.stderr, flush=True)
            continue
        if ended.code != -signal.SIGKILL:
            continue
        died[act.name] += 1
        after = act.after(BEFORE)
        counts = found.setdefault(act.name, {"killed": 0})
        counts["killed"] += 1
        if after != BEFORE:  # a rebuild changes no document
            done = "all" if state == after else "none" if state == BEFORE else "partly"
            counts[done] = counts.get(done, 0) + 1
        print(f"{died.total()} killed: {act.name}, {ended.steps} steps", file=sys.stderr, flush=True)
    return {"kills": died.total(), "violations": violations, "acts": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"], choices=["sqlite", "postgres"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="nothing but the report, as always, on stdout")
    options = parser.parse_args()
    report: dict[str, Any] = {"seed": options.seed}
    began = time.time()
    scratch = Path(tempfile.mkdtemp(prefix="chatgglm-faults-"))
    with Zygote() as zygote:
        for name in options.databases:
            server = None
            if name == "postgres":
                try:
                    server = PostgresServer()
                except NoPostgres as reason:
                    report[name] = {"not measured": str(reason)}
                    continue
            try:
                scene = Scene.begun(zygote, scratch / name / "start", server)
                share = -(-options.kills // len(options.databases))
                report[name] = run(scene, share, random.Random(options.seed))
            finally:
                if server:
                    server.close()
    report["seconds"] = round(time.time() - began)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if any(found.get("violations") for found in report.values() if isinstance(found, dict)):
        sys.exit(f"What was left lies in {scratch}.")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
