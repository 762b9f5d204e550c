"""The viewer: a document's stored text, opened at the quote."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from conftest import Server  # type: ignore[import-not-found]
    from playwright.sync_api import Page

Open = Callable[..., "Page"]


def get(url: str) -> Any:
    """A JSON document of the server."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def document_id(server: Server, name: str, kb: str = "default") -> str:
    """Id of the document whose path ends so."""
    rows = get(f"{server.url}/v1/documents?kb={kb}&limit=100")["data"]
    return next(row["id"] for row in rows if row["path"].endswith(name))


def test_offsets_are_code_points(server: Server, open_page: Open) -> None:
    ident = document_id(server, "员工手册.md")
    text = get(f"{server.url}/v1/documents/{ident}/text")["text"]
    wanted = "登记加班时间"  # behind characters that JavaScript counts twice
    start = text.index(wanted)
    assert any(ord(c) > 0xFFFF for c in text[:start])
    page = open_page(f"{server.url}/viewer.html?document={ident}&start={start}&end={start + len(wanted)}")
    expect(page.locator("mark")).to_have_text(wanted)
    shown = page.locator("#text").inner_text()
    assert "".join(text.split()) == "".join(shown.split())  # nothing added, nothing lost


def test_text_is_shown_not_run(server: Server, open_page: Open) -> None:
    ident = document_id(server, "写法.txt")
    page = open_page(f"{server.url}/viewer.html?document={ident}")
    expect(page.locator("#text")).to_contain_text("<img src=x onerror=")
    assert page.locator("#text img").count() == 0
    assert "坏" not in page.title()


@pytest.fixture(scope="module")
def long_document(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Id of a text of some 120,000 characters."""
    path: Path = tmp_path_factory.mktemp("long") / "长文.txt"
    lines = [f"第{i}条 这一条讲的是第{i}件事，内容写得长一些，好让全文够长。" for i in range(4000)]
    path.write_text("\n".join(lines), "utf-8")
    server.run("ingest", str(path), "--kb", "long")
    return document_id(server, "长文.txt", "long")


def test_long_text_opens_around_the_quote_and_grows(server: Server, long_document: str, open_page: Open) -> None:
    first = get(f"{server.url}/v1/documents/{long_document}/text")
    second = get(f"{server.url}/v1/documents/{long_document}/text?start={first['end']}&end={first['total_chars']}")
    text = first["text"] + second["text"]
    wanted = "第2000件事"
    start = text.index(wanted)
    page = open_page(f"{server.url}/viewer.html?document={long_document}&start={start}&end={start + len(wanted)}")
    expect(page.locator("mark")).to_have_text(wanted)
    expect(page.locator("mark")).to_be_in_viewport()
    assert page.locator("#text", has_text="第0条").count() == 0
    for _ in range(4):
        if not page.get_by_role("button", name="载入前文").is_visible():
            break
        lines = page.locator(".line").count()
        page.get_by_role("button", name="载入前文").click()
        expect(page.locator(".line").nth(lines)).to_be_attached()
    expect(page.locator("#text")).to_contain_text("第0条")
    expect(page.locator("mark")).to_have_text(wanted)
    page.get_by_role("button", name="回到引文").click()
    expect(page.locator("mark")).to_be_in_viewport()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "没有文档编号"),
        ("?document=nothing", "找不到这份文档"),
        (f"?document={quote('../../etc')}", "找不到这份文档"),
    ],
)
def test_errors_are_said_in_chinese(server: Server, open_page: Open, query: str, said: str) -> None:
    page = open_page()
    page.expected.append("404")  # type: ignore[attr-defined]
    page.goto(f"{server.url}/viewer.html{query}")
    expect(page.get_by_role("status")).to_contain_text(said)


def test_quote_outside_the_text(server: Server, open_page: Open) -> None:
    ident = document_id(server, "员工手册.md")
    page = open_page()
    page.expected.append("422")  # type: ignore[attr-defined]
    page.goto(f"{server.url}/viewer.html?document={ident}&start=9000000&end=9000010")
    expect(page.get_by_role("status")).to_contain_text("不在这份文档里")
