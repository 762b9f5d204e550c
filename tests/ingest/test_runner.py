from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ingest.limits import Limits
from ingest.runners import Task
from ingest.runners.local import LocalRunner, ParsingProcess


def tasks(folder: Path, count: int) -> list[Task]:
    for i in range(count):
        (folder / f"{i}.txt").write_text(f"第{i}篇的正文。" * (i + 1), encoding="utf-8")
    return [Task(i, str(folder / f"{i}.txt"), f"{i}.txt") for i in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_comes_back_once(tmp_path: Path, workers: int) -> None:
    todo = tasks(tmp_path, 20)
    found = {outcome.key: outcome for outcome in LocalRunner(workers).run(todo)}
    assert sorted(found) == list(range(20))
    for key, outcome in found.items():
        assert outcome.status == "parsed"
        assert outcome.parsed is not None
        assert outcome.parsed.text == f"第{key}篇的正文。" * (key + 1)
        assert outcome.chunks[0].char_start == 0
        assert outcome.size_bytes == os.path.getsize(todo[key].file)
        assert len(outcome.sha256) == 64


def test_a_bad_file_costs_only_itself(tmp_path: Path) -> None:
    todo = tasks(tmp_path, 3)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    todo.append(Task(3, str(tmp_path / "bad.pdf"), "bad.pdf"))
    found = {outcome.key: (outcome.status, outcome.error) for outcome in LocalRunner(1).run(todo)}
    assert found[0][0] == found[2][0] == "parsed"
    assert found[1] == ("failed", "no such file")
    assert found[3][0] == "failed"
    assert "damaged" in found[3][1]


def test_a_document_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "slow.txt").write_text("一二三四五。" * 3_000_000, encoding="utf-8")
    (tmp_path / "quick.txt").write_text("快。", encoding="utf-8")
    todo = [Task(0, str(tmp_path / "slow.txt"), "slow.txt"), Task(1, str(tmp_path / "quick.txt"), "quick.txt")]
    limits = Limits(parse_timeout_s=6.0, parse_timeout_s_per_mb=0.0)
    found = {outcome.key: outcome for outcome in LocalRunner(1, limits).run(todo)}
    assert found[0].status == "failed"
    assert "longer than 6 s" in found[0].error
    assert found[1].status == "parsed"


@pytest.mark.skipif(os.name != "posix", reason="limits address space")
def test_a_document_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("一二三四五。" * 8_000_000, encoding="utf-8")
    (tmp_path / "small.txt").write_text("小。", encoding="utf-8")
    todo = [Task(0, str(tmp_path / "big.txt"), "big.txt"), Task(1, str(tmp_path / "small.txt"), "small.txt")]
    found = {outcome.key: outcome for outcome in LocalRunner(1, Limits(parse_memory_mb=500)).run(todo)}
    assert found[0].status == "failed"
    assert "memory" in found[0].error
    assert found[1].status == "parsed"


def test_an_impatient_consumer_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    outcomes = LocalRunner(2).run(tasks(tmp_path, 30))
    next(outcomes)
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if thread not in before]


def test_a_killed_process_answers_at_once_even_if_it_had_not_begun(tmp_path: Path) -> None:
    worker = ParsingProcess(Limits())
    worker.kill()
    outcome = worker.run(tasks(tmp_path, 1)[0])
    assert outcome.status == "failed"
    assert worker.process is None


def test_an_error_of_the_task_source_reaches_the_consumer() -> None:
    def broken() -> object:
        yield Task(0, "none", "none.txt")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        list(LocalRunner(1).run(broken()))  # type: ignore[arg-type]
