"""The command line, as a user calls it: in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from api.cli import app
from rag.settings import get_settings

COMMANDS = """read bench search ask chat ingest serve summarize translate kb documents keys sites eval
train""".split()  # noqa: SIM905


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "CHATGGLM_HOME": str(tmp_path / "home")}


def run(home: dict[str, str], *args: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *args],
        env=home,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """The same in this process, which saves the imports."""
    monkeypatch.setenv("CHATGGLM_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    runner = CliRunner()
    yield lambda *args: runner.invoke(app, list(args))
    get_settings.cache_clear()


def test_help_names_every_command_and_is_quick(home: dict[str, str]) -> None:
    done = run(home, "--help", timeout=20)
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.stdout), command
    spent = []
    for _ in range(3):  # processor time: the machine may be busy with other things
        before = os.times()
        run(home, "--help")
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(spent) < 0.5, spent


def test_help_imports_nothing_heavy(home: dict[str, str]) -> None:
    program = (
        "import sys, api.cli; "
        "print([m for m in ('torch', 'faiss', 'numpy', 'sqlalchemy', 'pydantic', 'fastapi', 'transformers',"
        " 'sentence_transformers', 'trafilatura') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_version(home: dict[str, str]) -> None:
    assert re.fullmatch(r"chatgglm \d+\.\d+\S*\n", run(home, "--version").stdout)


def test_usage_errors_exit_2(home: dict[str, str]) -> None:
    for args in (
        ["nonsense"],
        ["keys"],
        ["serve", "--port", "x"],
        ["summarize"],
        ["translate", "-", "--direction", "fr"],
    ):
        done = run(home, *args)
        assert done.returncode == 2, (args, done.stderr)
        assert "Traceback" not in done.stderr


def test_keys(cli: Callable[..., Result]) -> None:
    made = json.loads(cli("keys", "create", "网站", "--scope", "ask", "--expires-days", "9", "--json").stdout)
    assert made["key"].startswith(made["prefix"])
    assert made["scopes"] == ["ask"]
    plain = cli("keys", "create")
    assert re.fullmatch(r"cg-\S{40,}\n", plain.stdout)
    listed = json.loads(cli("keys", "list", "--json").stdout)["keys"]
    assert {row["name"] for row in listed} == {"网站", "key"}
    assert made["key"] not in json.dumps(listed)
    assert cli("keys", "revoke", made["prefix"]).exit_code == 0
    assert "revoked" in cli("keys", "list").stdout
    unknown = cli("keys", "revoke", "cg-none")
    assert unknown.exit_code == 1
    assert "keys list" in unknown.stderr
    assert cli("keys", "create", "--scope", "root").exit_code == 1


def test_sites(cli: Callable[..., Result]) -> None:
    missing = cli("sites", "add", "https://a.example", "--kb", "nothing")
    assert missing.exit_code == 1
    assert "There is no knowledge base" in missing.stderr
    assert cli("kb", "create", "hr").exit_code == 0
    site = json.loads(cli("sites", "add", "https://A.example/", "--kb", "hr", "--json").stdout)
    assert (site["origin"], site["kb"]) == ("https://a.example", "hr")
    assert site["id"] in cli("sites", "list").stdout
    assert cli("sites", "remove", "https://a.example").exit_code == 0
    assert json.loads(cli("sites", "list", "--json").stdout) == {"sites": []}
    assert cli("sites", "add", "a.example", "--kb", "hr").exit_code == 1


def test_serve_on_another_address_needs_a_key(home: dict[str, str]) -> None:
    refused = run(home, "serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 1
    assert "chatgglm keys create" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_serve_says_what_is_wrong_with_the_port(home: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = run(home, "serve", "--port", str(other.getsockname()[1]))
    assert taken.returncode == 1
    assert "in use" in taken.stderr
    assert "--port" in taken.stderr
    wrong = run(home, "serve", "--host", "localhost.", "--port", "99999")
    assert wrong.returncode == 2


def test_texts_that_cannot_be_worked_on(home: dict[str, str], tmp_path: Path) -> None:
    for args, stdin in ((["summarize", "-"], " \n"), (["summarize", str(tmp_path / "none.txt")], ""),
                        (["summarize", "--document", "nothing"], "")):  # fmt: skip
        done = run(home, *args, stdin=stdin)
        assert done.returncode == 1, args
        assert done.stdout == ""
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr


def test_summaries_quote_the_text(cli: Callable[..., Result], tmp_path: Path) -> None:
    text = "公司成立于一九九八年。总部在杭州，有员工三千人。公司生产水泵和阀门。产品销往四十个国家。"
    file = tmp_path / "简介.md"
    file.write_text(text, encoding="utf-8")
    done = cli("summarize", str(file), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["summary"]
    assert document["summary"] == "".join(piece["text"] for piece in document["pieces"])
    for piece in document["pieces"]:
        if piece["start"] is not None:
            assert text[piece["start"] : piece["end"]] == piece["text"]


def test_translations_say_where_they_are_unsure(cli: Callable[..., Result], tmp_path: Path) -> None:
    text = "我喜欢听音乐。请保存 config.json 文件。\n江西为抗洪一线青年入伍开通绿色通道。"
    file = tmp_path / "说明.txt"
    file.write_text(text, encoding="utf-8")
    done = cli("translate", str(file), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["translation"] == "".join(piece["text"] for piece in document["pieces"])
    assert "music" in document["translation"]
    assert document["translation"].count("\n") == 1
    assert document["model"].startswith("gglm-small-zh-en-")
    copied = [p for p in document["pieces"] if p["start"] is not None]
    assert any("config.json" in p["text"] for p in copied)
    assert all(text[p["start"] : p["end"]] == p["text"] for p in copied)
    sentences = document["sentences"]
    assert [text[s["start"] : s["end"]] for s in sentences] == [s for s in re.split("(?<=。)\n?", text) if s]
    unsure = [s for s in sentences if not s["sure"]]
    assert 0 < len(unsure) < len(sentences)
    assert f"{len(unsure)} of {len(sentences)} sentences are unsure" in done.stderr
    back = cli("translate", str(file), "--direction", "en-zh")
    assert back.exit_code == 1
    assert "英译中" in back.stderr


@pytest.fixture
def serving(home: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The shipped server with the shipped models and the guide, as `make run` starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "serve", "--port", "0"],
        env=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert address, line
    yield address.group(), process
    process.kill()
    process.communicate()


def test_serve(serving: tuple[str, subprocess.Popen[str]]) -> None:
    address, process = serving
    # Asked at once: the answer waits for the models and the guide.
    response = httpx.post(f"{address}/v1/ask", json={"question": "ChatGGLM 需要显卡吗？"}, timeout=180)
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    assert document["passages"], "the guide is in the default knowledge base"
    assert all("/" not in passage["path"] for passage in document["passages"])
    assert document["model"].startswith("gglm-")
    assert httpx.get(f"{address}/readyz").status_code == 200
    assert "<chat" in httpx.get(f"{address}/").text.lower() or "widget.js" in httpx.get(f"{address}/").text
    summary = httpx.post(f"{address}/v1/summaries", json={"text": "今天天气很好。我们去公园。"}, timeout=60).json()
    for piece in summary["pieces"]:
        if piece["start"] is not None:
            assert "今天天气很好。我们去公园。"[piece["start"] : piece["end"]] == piece["text"]
    body = {"text": "我喜欢听音乐。"}
    translation = httpx.post(f"{address}/v1/translations", json=body, timeout=60).json()
    assert "music" in translation["translation"]
    streamed = httpx.post(f"{address}/v1/translations", json={**body, "stream": True}, timeout=60).text
    assert json.dumps(translation["translation"]) in streamed
    assert translation["model"] in streamed
    refused = httpx.post(f"{address}/v1/translations", json={"text": "长" * 20_001}, timeout=60)
    assert 400 <= refused.status_code < 500
    assert "in parts" in refused.text
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
