"""`chatgglm kb …` and `chatgglm documents …`: what they print, do, and exit with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from rag import cli_kb
from rag.settings import Settings
from rag.store.originals import Originals
from tests.rag.world import World

DOCUMENTS = {"制度/年假.txt": "年假有十五天。\n\n病假要告知主管。", "费用.txt": "出差补贴每天八十元。"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "home")

    class Stand:
        """The service as the commands see it, with a small embedder."""

        settings = world.settings
        database = world.database
        indexes = world.indexes
        originals = Originals(world.database, world.settings)

    monkeypatch.setattr(cli_kb, "open_service", Stand)
    return world


def call(*arguments: str) -> Result:
    app = typer.Typer()
    groups = {"kb": typer.Typer(), "documents": typer.Typer()}
    cli_kb.register(app, groups)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return CliRunner().invoke(app, list(arguments))


def document(*arguments: str, code: int = 0) -> Any:
    """The one JSON document on stdout."""
    result = call(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_knowledge_base_comes_and_goes(world: World) -> None:
    made = document("kb", "create", "hr-2024", "--name", "人事制度")
    assert (made["kb"], made["name"]) == ("hr-2024", "人事制度")
    world.put(DOCUMENTS, kb="hr-2024")
    rows = {row["kb"]: row for row in document("kb", "list")["knowledge_bases"]}
    assert set(rows) == {"default", "hr-2024"}
    row = rows["hr-2024"]
    assert (row["name"], row["documents"], row["chunks"], row["generation"]) == ("人事制度", 2, 3, 1)
    assert row["created_at"].endswith("Z")
    folder = world.settings.home / "indexes" / "2"
    assert folder.is_dir()
    gone = document("kb", "delete", "hr-2024")
    assert gone == {"kb": "hr-2024", "deleted": True, "documents": 2, "chunks": 3}
    assert not folder.exists()
    assert [row["kb"] for row in document("kb", "list")["knowledge_bases"]] == ["default"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kb", "create", "default"), "already"),
        (("kb", "create", "人事"), "a-z"),
        (("kb", "delete", "nowhere"), "kb list"),
        (("kb", "verify", "nowhere"), "kb list"),
        (("kb", "rebuild", "nowhere"), "kb list"),
        (("documents", "list", "--kb", "nowhere"), "kb list"),
        (("documents", "show", "nothing"), "documents list"),
        (("documents", "delete", "nothing"), "documents list"),
    ],
)
def test_errors_are_one_line_and_exit_1(world: World, arguments: tuple[str, ...], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("kb", "create"), ("kb", "nonsense"), ("documents", "delete")])
def test_wrong_usage_exits_2(world: World, arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 2


def test_verify_says_what_does_not_agree_and_rebuild_repairs_it(world: World) -> None:
    world.put(DOCUMENTS)
    good = document("kb", "verify")
    assert good["ok"] is True
    assert good["problems"] == []
    assert good["counts"] == {
        "generation": 1,
        "documents": 2,
        "chunks": 3,
        "vectors": 3,
        "postings": 3,
        "tombstoned": 0,
        "files": good["counts"]["files"],
    }
    next((world.settings.home / "indexes" / "1" / "1" / "vectors").glob("*.faiss")).unlink()
    bad = document("kb", "verify", "default", code=1)
    assert bad["ok"] is False
    assert "missing" in bad["problems"][0]
    plain = call("kb", "verify")
    assert plain.exit_code == 1
    assert "kb rebuild default" in plain.stderr
    rebuilt = document("kb", "rebuild")
    assert (rebuilt["generation"], rebuilt["chunks"]) == (2, 3)
    assert document("kb", "verify")["ok"] is True
    assert "agrees" in call("kb", "verify").stderr


def test_documents_are_listed_shown_and_deleted(world: World) -> None:
    ids = world.put(DOCUMENTS)
    rows = document("documents", "list")["documents"]
    assert [(row["path"], row["chunks"]) for row in rows] == [("制度/年假.txt", 2), ("费用.txt", 1)]
    assert rows[0]["document_id"] == ids["制度/年假.txt"]
    by_id = document("documents", "show", ids["制度/年假.txt"])
    assert by_id == document("documents", "show", "制度/年假.txt")
    assert by_id["text"] == DOCUMENTS["制度/年假.txt"]
    spans = [by_id["text"][c["char_start"] : c["char_end"]] for c in by_id["chunks"]]
    assert spans == ["年假有十五天。", "病假要告知主管。"]
    assert call("documents", "show", "费用.txt").stdout == "出差补贴每天八十元。\n"
    gone = document("documents", "delete", "制度/年假.txt")
    assert gone["deleted"] == [{"document_id": ids["制度/年假.txt"], "kb": "default", "path": "制度/年假.txt"}]
    assert [row["path"] for row in document("documents", "list")["documents"]] == ["费用.txt"]
    index = world.indexes.open("default")
    assert len(index) == 1, "the index lets go of it too"
    assert document("kb", "verify")["counts"]["tombstoned"] == 0
    assert call("documents", "show", "制度/年假.txt").exit_code == 1


def test_of_several_documents_all_are_deleted_or_none(world: World) -> None:
    world.put(DOCUMENTS)
    assert call("documents", "delete", "费用.txt", "没有.txt").exit_code == 1
    assert len(document("documents", "list")["documents"]) == 2
    assert call("documents", "delete", "费用.txt", "制度/年假.txt").exit_code == 0
    assert document("documents", "list")["documents"] == []
    assert "holds no documents" in call("documents", "list").stderr


def test_plain_lists_go_to_stdout(world: World) -> None:
    world.put(DOCUMENTS)
    assert "default" in call("kb", "list").stdout
    assert "费用.txt" in call("documents", "list").stdout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    from rag.settings import get_settings

    monkeypatch.setenv("CHATGGLM_HOME", str(tmp_path / "fresh"))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


def test_the_real_service_makes_its_database_on_the_first_command(home: Settings) -> None:
    assert document("kb", "list") == {"knowledge_bases": []}
    assert (home.home / "chatgglm.db").is_file()
    assert "chatgglm ingest" in call("kb", "list").stderr


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = (
        "import sys, typer; from rag import cli_kb\n"
        "cli_kb.register(typer.Typer(), {'kb': typer.Typer(), 'documents': typer.Typer()})\n"
        "heavy = {'torch', 'faiss', 'sqlalchemy', 'numpy', 'pydantic', 'rich.console'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_history_and_purge(world: World) -> None:
    ids = world.put(DOCUMENTS)
    world.put({"费用.txt": "出差补贴每天一百元。"})
    history = document("documents", "history", "费用.txt")
    assert [(v["version"], v["characters"], bool(v["replaced_at"])) for v in history["versions"]] == [
        (1, 10, True),
        (2, 10, False),
    ]
    assert "(present)" in call("documents", "history", "费用.txt").stdout
    assert call("documents", "delete", "费用.txt").exit_code == 0
    assert document("documents", "history", ids["费用.txt"])["deleted_at"]
    gone = document("documents", "delete", "费用.txt", "制度/年假.txt", "--purge")
    assert gone["purged"] is True
    assert document("kb", "verify")["ok"] is True
    assert document("documents", "list")["documents"] == []
    kept = document("documents", "history", "费用.txt")["versions"]
    assert [v["characters"] for v in kept] == [0, 0]
    for file in world.settings.home.glob("chatgglm.db*"):
        content = file.read_bytes()
        assert not any(word.encode() in content for word in ("八十元", "一百元", "告知主管")), file.name
    assert call("documents", "delete", "没有.txt", "--purge").exit_code == 1
    assert call("documents", "history", "没有.txt").exit_code == 1
