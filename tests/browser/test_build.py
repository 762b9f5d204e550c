"""The committed build: made from the committed sources, self-contained, small."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from api.web import EMBEDDABLE, STATIC
from ingest.formats import PARSERS

SOURCES = Path(__file__).parents[2] / "api" / "widget"


def test_build_is_of_these_sources() -> None:
    files = [path for folder in ("src", "pages", "public") for path in (SOURCES / folder).rglob("*") if path.is_file()]
    files.append(SOURCES / "package-lock.json")
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(SOURCES).as_posix(), path) for path in files):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    built = json.loads((STATIC / "build.json").read_text("utf-8"))["sources"]
    assert built == digest.hexdigest(), "the sources have changed: run `make widget` and commit api/web/static"


@pytest.mark.parametrize("name", EMBEDDABLE)
def test_widget_is_one_small_file_that_names_no_other_server(name: str) -> None:
    text = (STATIC / name).read_text("utf-8").replace("https://github.com/markedjs/marked", "")  # in an error text
    assert len(text.encode()) < 160_000
    hosts = set(re.findall(r"https?://([\w.-]+)", text))
    assert hosts <= {"www.w3.org"}, hosts  # the name spaces of SVG and MathML
    assert not re.search(r"\beval\(|new Function\(", text)


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.html")), ids=lambda p: p.name)
def test_pages_hold_to_the_policy(path: Path) -> None:
    html = path.read_text("utf-8")
    assert not re.search(r"\sstyle=|<style|\son\w+=", html)
    assert not re.search(r"<script(?![^>]*\ssrc=)", html)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


def test_home_page_names_only_formats_that_there_are() -> None:
    sentence = re.search(r"支持 (\..*?)。", (STATIC / "index.html").read_text("utf-8"))
    assert sentence
    named = set(re.findall(r"\.\w+", sentence.group(1)))
    assert {".pdf", ".docx"} <= named <= {*PARSERS, ".zip"}


def test_lock_file_names_no_registry() -> None:
    assert "resolved" not in (SOURCES / "package-lock.json").read_text("utf-8")
    assert "://" not in (SOURCES / ".npmrc").read_text("utf-8")


def test_licences_of_the_libraries_inside_are_shipped() -> None:
    text = (STATIC / "widget-licenses.txt").read_text("utf-8")
    locked = json.loads((SOURCES / "package-lock.json").read_text("utf-8"))["packages"]
    for name in ("lit", "lit-html", "lit-element", "@lit/reactive-element", "marked", "dompurify"):
        assert f"{name} {locked[f'node_modules/{name}']['version']} (" in text
