"""`chatgglm ingest --watch`: a real process over a real folder, ended by a real Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gglm.errors import UserError
from ingest import watch
from ingest.watch import Watcher
from rag.store.documents import list_documents
from rag.store.kbs import get_kb
from tests.ingest.installation import installation

ROOT = Path(__file__).resolve().parents[2]


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def test_changes_come_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_MS", 200)
    single = tmp_path / "b" / "single.txt"
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    single.write_text("一", encoding="utf-8")
    with Watcher([tmp_path / "a", single]) as watcher:
        changes = watcher.changes()
        time.sleep(0.5)
        (tmp_path / "b" / "other.txt").write_text("不", encoding="utf-8")
        for name in ("x.txt", "y.txt", "z.pdf.meta.yaml"):
            (tmp_path / "a" / name).write_text("一", encoding="utf-8")
        single.write_text("二", encoding="utf-8")
        seen: set[str] = set()
        while len(seen) < 4:
            seen |= {path.name for path in next(changes)}
    assert seen == {"x.txt", "y.txt", "z.pdf", "single.txt"}
    with pytest.raises(UserError, match="no such"):
        Watcher([tmp_path / "nowhere"])


def test_watch_ingests_what_changes_until_ctrl_c(tmp_path: Path) -> None:
    folder, home = tmp_path / "资料", tmp_path / "home"
    folder.mkdir()
    (folder / "甲.txt").write_text("甲。", encoding="utf-8")
    service = installation(home)

    def texts() -> dict[str, str]:
        with service.database.session() as session:
            return {row.path: row.sha256 for row in list_documents(session, get_kb(session, "default"))}

    code = (
        "import signal, sys, rag.service; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.ingest.installation import installation; from pathlib import Path\n"
        "rag.service.get_service = lambda: installation(Path(sys.argv[1]))\n"
        "from ingest import watch; watch.QUIET_MS = 100\n"
        "import typer; from ingest.cli import register\n"
        "app = typer.Typer(); app.callback()(lambda: None); register(app, {})\n"
        "app(['ingest', sys.argv[2], '--watch', '--sync', '--workers', '1'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        while "Watching" not in "".join(lines):
            line = process.stderr.readline()
            assert line, process.communicate()
            lines.append(line)
        first = texts()
        (folder / "乙.txt").write_text("乙。", encoding="utf-8")
        (folder / "甲.txt").write_text("甲改了。", encoding="utf-8")
        wait(lambda: set(texts()) == {"甲.txt", "乙.txt"} and texts()["甲.txt"] != first["甲.txt"])
        (folder / "甲.txt").unlink()
        wait(lambda: set(texts()) == {"乙.txt"})
        time.sleep(1.0)  # the job's last words
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Watching has ended." in errors
    assert "Traceback" not in errors
