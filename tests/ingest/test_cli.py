from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import rag.service
from ingest.cli import register
from rag.service import Service
from tests.ingest.installation import installation


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    service = installation(tmp_path / "home")
    monkeypatch.setattr(rag.service, "get_service", lambda: service)
    return service


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "资料"
    folder.mkdir()
    (folder / "甲.txt").write_text("甲文件\n水泵每月检查一次。", encoding="utf-8")
    return folder


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app, {})
    return CliRunner().invoke(app, ["ingest", *map(str, arguments)], input=stdin)


def document(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("service")
def test_json_follows_the_contract(folder: Path) -> None:
    result = run(folder, "--kb", "pumps", "--json")
    assert result.exit_code == 0
    found = document(result)
    assert found["kb"] == "pumps"
    assert len(found["job_id"]) == 36
    (row,) = found["documents"]
    assert row["path"] == "甲.txt"
    assert (row["status"], row["chunks"], row["error"]) == ("indexed", 1, None)
    assert len(row["document_id"]) == 36
    assert found["totals"]["indexed"] == 1
    again = document(run(folder, "--kb", "pumps", "--json"))
    assert again["documents"][0]["status"] == "skipped"
    assert again["documents"][0]["document_id"] == row["document_id"]


@pytest.mark.usefixtures("service")
def test_a_missing_path_fails_and_the_rest_is_indexed(folder: Path) -> None:
    result = run(folder / "没有.pdf", folder, "--json")
    assert result.exit_code == 1
    assert {row["status"] for row in document(result)["documents"]} == {"indexed", "failed"}
    assert "no such file" in result.stdout


@pytest.mark.usefixtures("service")
def test_output_for_people(folder: Path) -> None:
    (folder / "坏.docx").write_bytes(b"PK broken")
    (folder / "空.md").write_bytes(b"")
    result = run(folder)
    assert result.exit_code == 1
    assert "indexed  甲.txt  (1 chunks)" in result.stdout
    assert "skipped  空.md: the file is empty" in result.stdout
    assert "1 indexed, 1 skipped, 1 failed" in result.stdout
    assert "坏.docx" in result.stderr
    assert "Traceback" not in result.output


def test_dry_run_makes_no_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rag.settings import get_settings

    monkeypatch.setenv("CHATGGLM_HOME", str(tmp_path / "fresh"))
    monkeypatch.setattr(rag.service, "get_service", lambda: pytest.fail("the store was opened"))
    get_settings.cache_clear()
    try:
        result = run(folder, "--dry-run", "--json")
    finally:
        get_settings.cache_clear()
    assert result.exit_code == 0
    row = document(result)["documents"][0]
    assert (row["status"], row["action"]) == ("parsed", "index")
    assert not (tmp_path / "fresh").exists()


@pytest.mark.usefixtures("service")
def test_paths_from_stdin_and_wrong_usage(folder: Path) -> None:
    found = document(run("-", "--json", stdin=f"{folder / '甲.txt'}\n".encode()))
    assert [row["path"] for row in found["documents"]] == ["甲.txt"]
    assert run().exit_code == 2
    assert run(folder, "--workers", "-1").exit_code == 2
    result = run(folder, "--kb", "坏 名字")
    assert result.exit_code == 1
    assert "cannot name a knowledge base" in result.stderr


def jobs(*arguments: object) -> Result:
    app = typer.Typer()
    groups = {"jobs": typer.Typer()}
    register(app, groups)
    app.add_typer(groups["jobs"], name="jobs")
    return CliRunner().invoke(app, ["jobs", *map(str, arguments)])


@pytest.mark.usefixtures("service")
def test_dry_run_tells_what_would_happen_and_changes_nothing(folder: Path, service: Service) -> None:
    (folder / "乙.txt").write_text("乙文件。", encoding="utf-8")
    (folder / "丙.txt").write_text("丙文件。", encoding="utf-8")
    assert run(folder).exit_code == 0
    (folder / "乙.txt").write_text("乙文件改了。", encoding="utf-8")
    (folder / "丙.txt").unlink()
    (folder / "丁.txt").write_text("丁文件。", encoding="utf-8")
    (folder / "坏.pdf").write_bytes(b"%PDF broken")
    before = service.settings.home.joinpath("chatgglm.db").read_bytes()
    monkey = pytest.MonkeyPatch()
    from rag import settings

    monkey.setattr(settings, "get_settings", lambda: service.settings)
    try:
        found = document(run(folder, "--dry-run", "--sync", "--json"))
        plain = run(folder, "--dry-run", "--sync").stdout
    finally:
        monkey.undo()
    actions = {row["path"]: row["action"] for row in found["documents"]}
    assert actions == {"甲.txt": "skip", "乙.txt": "replace", "丁.txt": "index", "坏.pdf": "fail"}
    assert [row["path"] for row in found["deleted"]] == ["丙.txt"]
    assert "Would be: 1 indexed, 1 replaced, 1 deleted" in plain
    assert service.settings.home.joinpath("chatgglm.db").read_bytes() == before
    real = document(run(folder, "--sync", "--json"))
    assert [row["path"] for row in real["deleted"]] == ["丙.txt"]
    assert {row["path"]: row["status"] for row in real["documents"]} == {
        "甲.txt": "skipped",
        "乙.txt": "indexed",
        "丁.txt": "indexed",
        "坏.pdf": "failed",
    }


@pytest.mark.usefixtures("service")
def test_sync_spares_what_a_pattern_leaves_out(folder: Path) -> None:
    (folder / "乙.md").write_text("乙。", encoding="utf-8")
    run(folder)
    assert document(run(folder, "--sync", "--exclude", "*.md", "--json"))["deleted"] == []


@pytest.mark.usefixtures("service")
def test_jobs_are_listed_shown_cancelled_and_tried_again(folder: Path, service: Service) -> None:
    from ingest.pipeline import submit

    (folder / "坏.docx").write_bytes(b"PK broken")
    failed = document(run(folder, "--json"))["job_id"]
    waiting = submit(service, [folder / "甲.txt"])
    rows = json.loads(jobs("list", "--json").stdout)["jobs"]
    assert {(row["id"], row["state"]) for row in rows} == {(failed, "failed"), (waiting, "queued")}
    assert failed in jobs("list").stdout
    shown = json.loads(jobs("show", failed, "--json").stdout)
    assert {row["path"]: row["status"] for row in shown["documents"]} == {"甲.txt": "indexed", "坏.docx": "failed"}
    assert "坏.docx" in jobs("show", failed).stdout
    assert json.loads(jobs("cancel", waiting, "--json").stdout)["state"] == "cancelled"
    assert jobs("cancel", waiting).exit_code == 1
    assert jobs("show", "none").exit_code == 1
    (folder / "坏.docx").unlink()
    again = jobs("retry", failed, "--json")
    assert again.exit_code == 1
    assert {row["path"]: row["error"] for row in json.loads(again.stdout)["documents"]}["坏.docx"] == "no such file"
    assert jobs("retry", waiting).exit_code == 0
    assert jobs("retry", waiting).exit_code == 1
    left = submit(service, [folder])
    assert "skipped" in jobs("work").stdout
    assert json.loads(jobs("show", left, "--json").stdout)["state"] == "succeeded"


@pytest.mark.usefixtures("service")
def test_near_duplicates_are_told(folder: Path) -> None:
    text = "水泵每月检查一次，发现异常立即停机并上报主管领导，由设备科负责登记。" * 3
    for name in ("一.txt", "二.txt"):
        (folder / name).write_text(text + name[0], encoding="utf-8")
    rows = {row["path"]: row for row in document(run(folder, "--json"))["documents"]}
    (twin,) = rows["一.txt"]["near_duplicates"]
    assert twin["path"] == "二.txt"
    assert twin["document_id"] == rows["二.txt"]["document_id"]
    assert twin["similarity"] > 0.8
    assert rows["甲.txt"]["near_duplicates"] == []


@pytest.mark.usefixtures("service")
def test_the_advice_to_ingest_again_works(folder: Path, make_pdf: Callable[..., bytes]) -> None:
    (folder / "扫描.pdf").write_bytes(make_pdf([["第一页有字，水泵每月检查一次。"], []]))
    assert "--force" in run(folder).output
    assert document(run(folder, "--json"))["totals"]["skipped"] == 2
    assert document(run(folder, "--force", "--json"))["totals"]["indexed"] == 2


@pytest.mark.usefixtures("service")
def test_watch_and_json_do_not_go_together(folder: Path) -> None:
    assert run(folder, "--watch", "--json").exit_code == 2
