from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.sources import expand, root_id


def write(path: Path, text: str = "正文。") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def paths(found: object) -> list[str]:
    return [source.path for source in found.files]  # type: ignore[attr-defined]


def test_a_folder_in_sorted_order_with_relative_paths(tmp_path: Path) -> None:
    for name in ("b.txt", "a/二.md", "a/一.pdf", "a/x/y.docx", ".hidden/z.txt", ".z.txt", "a/~$lock.docx", "Thumbs.db"):
        write(tmp_path / "资料" / name)
    found = expand([tmp_path / "资料"])
    assert paths(found) == ["a/x/y.docx", "a/一.pdf", "a/二.md", "b.txt"]
    assert found.problems == []
    assert {source.root for source in found.files} == {root_id(tmp_path / "资料")}
    assert found.complete == [root_id(tmp_path / "资料")]
    assert str(tmp_path) not in "".join(paths(found))


def test_unsupported_is_skipped_in_a_folder_and_failed_when_named(tmp_path: Path) -> None:
    file = write(tmp_path / "d" / "a.xyz")
    assert [(p.path, p.status) for p in expand([tmp_path / "d"]).problems] == [("a.xyz", "skipped")]
    (problem,) = expand([file]).problems
    assert (problem.path, problem.status) == ("a.xyz", "failed")
    assert ".docx" in problem.error


def test_missing_paths_and_special_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    found = expand([tmp_path / "none.txt", tmp_path / "pipe.txt"])
    assert [(p.status, p.error) for p in found.problems] == [
        ("failed", "no such file or folder"),
        ("failed", "not a regular file"),
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.txt")
    write(tmp_path / "elsewhere" / "b.txt")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d" / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    found = expand([tmp_path / "d"])
    assert paths(found) == ["a.txt", "other/b.txt"]
    assert [(p.path, p.status) for p in found.problems] == [("gone.txt", "failed")]


def test_clashing_names_get_their_folders(tmp_path: Path) -> None:
    a, b = write(tmp_path / "x" / "读我.txt", "甲"), write(tmp_path / "y" / "读我.txt", "乙")
    assert paths(expand([a, b])) == ["x/读我.txt", "y/读我.txt"]
    assert paths(expand([b, a])) == ["y/读我.txt", "x/读我.txt"]
    assert paths(expand([tmp_path / "x", tmp_path / "y"])) == ["x/读我.txt", "y/读我.txt"]
    assert paths(expand([a, tmp_path / "x", a])) == ["读我.txt"]


def test_patterns(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "drafts/c.txt"):
        write(tmp_path / name)
    assert paths(expand([tmp_path], include=["*.txt"])) == ["a.txt", "drafts/c.txt"]
    assert paths(expand([tmp_path], exclude=["drafts/*"])) == ["a.txt", "b.md"]


def test_decomposed_names_are_composed(tmp_path: Path) -> None:
    write(tmp_path / "re\u0301sume\u0301.txt")
    assert paths(expand([tmp_path])) == ["r\u00e9sum\u00e9.txt"]


def test_names_in_gbk_are_decoded(tmp_path: Path) -> None:
    raw = os.path.join(os.fsencode(tmp_path), "会议纪要.txt".encode("gbk"))
    try:
        with open(raw, "wb") as file:
            file.write("正文。".encode())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (source,) = expand([tmp_path]).files
    assert source.path == "会议纪要.txt"
    assert source.file.read_text(encoding="utf-8") == "正文。"


def test_a_folder_that_may_not_be_read_is_not_complete(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    write(tmp_path / "locked" / "a.txt")
    (tmp_path / "locked").chmod(0)
    try:
        found = expand([tmp_path])
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert found.complete == []
    assert found.problems[0].status == "failed"
