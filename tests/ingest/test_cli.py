from __future__ import annotations

import json
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
