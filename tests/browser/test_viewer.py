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


def test_the_page_of_a_pdf_with_the_quote_marked(server: Server, tmp_path: Path, open_page: Open) -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    file = tmp_path / "锅炉规程.pdf"
    canvas = Canvas(str(file))
    for line in ("锅炉规程第一页。", "锅炉每两年做一次内部检验。"):
        canvas.setFont("STSong-Light", 14)
        canvas.drawString(72, 700, line)
        canvas.showPage()
    canvas.save()
    server.run("ingest", str(file), "--kb", "boiler")
    ident = document_id(server, "锅炉规程.pdf", "boiler")
    text = get(f"{server.url}/v1/documents/{ident}/text")["text"]
    start = text.index("每两年")
    address = f"{server.url}/viewer.html?document={ident}&start={start}&end={start + 3}"
    page = open_page(address)
    picture = page.get_by_role("img", name="第 2 页，引文已标出")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 500
    yellow = """image => {
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4) found += data[i] > 240 && data[i + 2] < 120;
        return found;
    }"""
    assert picture.evaluate(yellow) > 200
    expect(page.locator("#original-note")).to_be_hidden()
    expect(page.locator("mark")).to_have_text("每两年")

    for kept in (Path(server.env["CHATGGLM_HOME"]) / "originals").rglob("*"):
        if kept.is_file() and kept.read_bytes() == file.read_bytes():
            kept.unlink()
    page = open_page(address)
    page.expected.append("404")  # type: ignore[attr-defined]
    expect(page.locator("#original-note")).to_contain_text("原文件没有保存")
    expect(page.locator("mark")).to_have_text("每两年")


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
