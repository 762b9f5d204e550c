"""Tags and metadata from front matter, HTML and side-car files, into rows that can be filtered by."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import select

import ingest.pipeline as pipeline
from ingest.formats import parse
from ingest.metadata import front_matter, labels
from ingest.report import JobReport
from ingest.sidecars import sidecar_of
from ingest.sources import expand
from rag.service import Service
from rag.store.documents import get_document
from rag.store.kbs import get_kb
from rag.store.labels import document_date, parse_date
from rag.store.models import Document, DocumentField, DocumentTag
from tests.ingest.installation import installation


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return installation(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "资料"
    folder.mkdir()
    (folder / "甲.md").write_text(
        "---\ntitle: 年假制度\ntags: 人事，假期\n日期: 2024-03-01\n级别: 3\n适用: [总部, 分部]\n---\n年假有十五天。",
        encoding="utf-8",
    )
    (folder / "乙.txt").write_text("水泵每月检查一次。", encoding="utf-8")
    return folder


def ingest(service: Service, folder: Path) -> JobReport:
    return pipeline.ingest(service, [folder], workers=1)


def document(service: Service, path: str) -> Document:
    with service.database.session() as session:
        return get_document(session, path, get_kb(session, "default"))


def test_front_matter_and_side_cars_become_rows(service: Service, folder: Path) -> None:
    (folder / "乙.txt.meta.yaml").write_text(
        "title: 水泵手册\ntags: [设备, 检修]\n发布日期: 2023年5月6日\n负责:\n  部门: 设备科\n", encoding="utf-8"
    )
    report = ingest(service, folder)
    assert [row.path for row in report.documents] == ["乙.txt", "甲.md"], "the side-car is no document"
    one, two = document(service, "甲.md"), document(service, "乙.txt")
    assert (one.title, one.tags, one.dated) == ("年假制度", ["人事", "假期"], date(2024, 3, 1))
    assert (two.title, two.tags, two.dated) == ("水泵手册", ["设备", "检修"], date(2023, 5, 6))
    with service.database.session() as session:
        tags = session.execute(select(DocumentTag.tag).where(DocumentTag.document_id == two.id)).scalars()
        assert sorted(tags) == ["检修", "设备"]
        fields = {(f.name, f.value): f.number for f in session.scalars(select(DocumentField))}
        assert fields == {
            ("日期", "2024-03-01"): None,
            ("级别", "3"): 3.0,
            ("适用", "总部"): None,
            ("适用", "分部"): None,
            ("发布日期", "2023年5月6日"): None,
            ("负责.部门", "设备科"): None,
        }


def test_a_changed_side_car_is_a_change_of_its_document(service: Service, folder: Path) -> None:
    ingest(service, folder)
    assert {row.status for row in ingest(service, folder).documents} == {"skipped"}
    (folder / "乙.txt.meta.json").write_text(json.dumps({"tags": ["设备"]}), encoding="utf-8")
    assert {row.path: row.status for row in ingest(service, folder).documents} == {
        "甲.md": "skipped",
        "乙.txt": "indexed",
    }
    assert document(service, "乙.txt").tags == ["设备"]
    (folder / "乙.txt.meta.json").unlink()
    ingest(service, folder)
    assert document(service, "乙.txt").tags == []
    with service.database.session() as session:
        assert session.scalars(select(DocumentTag.tag)).all() == ["人事", "假期"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (".meta.yaml", b"tags: [a", "cannot be read"),
        (".meta.json", b"[1, 2]", "must hold a mapping"),
        (".meta.yaml", "标签: x".encode("gbk"), "not in UTF-8"),
    ],
)
def test_a_side_car_that_cannot_be_used_fails_its_document(
    service: Service, folder: Path, name: str, content: bytes, why: str
) -> None:
    (folder / f"乙.txt{name}").write_bytes(content)
    rows = {row.path: row for row in ingest(service, folder).documents}
    assert rows["甲.md"].status == "indexed"
    assert rows["乙.txt"].status == "failed"
    assert why in str(rows["乙.txt"].error)


def test_side_cars_go_with_their_files(folder: Path) -> None:
    (folder / "没有.pdf.meta.yaml").write_text("tags: a", encoding="utf-8")
    (folder / "乙.txt.meta.yml").write_text("tags: a", encoding="utf-8")
    found = expand([folder])
    assert sorted(source.path for source in found.files) == ["乙.txt", "甲.md"]
    assert [(p.path, p.status) for p in found.problems] == [("没有.pdf.meta.yaml", "skipped")]
    named = expand([folder / "乙.txt", folder / "乙.txt.meta.yml"])
    assert [source.path for source in named.files] == ["乙.txt"]
    assert not named.problems
    assert sidecar_of(str(folder / "乙.txt")) == str(folder / "乙.txt.meta.yml")


def test_side_cars_in_archives(service: Service, tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "包"
    folder.mkdir()

    def write(tags: str) -> None:
        with zipfile.ZipFile(folder / "资料.zip", "w") as archive:
            archive.writestr("子/乙.txt", "水泵每月检查一次。")
            archive.writestr("子/乙.txt.meta.yaml", f"title: 水泵手册\ntags: [{tags}]\n")
            archive.writestr("丢了.txt.meta.json", "{}")
            archive.writestr("丙.txt", "阀门每年检查。")
            archive.writestr("丙.txt.meta.json", "[1]")

    write("设备")
    report = ingest(service, folder)
    found = {row.path: (row.status, row.error or "") for row in report.documents}
    assert found["资料.zip!/子/乙.txt"][0] == "indexed"
    assert found["资料.zip!/丢了.txt.meta.json"] == ("skipped", "a side-car without the file that it describes")
    assert found["资料.zip!/丙.txt"][0] == "failed"
    assert "丙.txt.meta.json must hold a mapping" in found["资料.zip!/丙.txt"][1]
    assert len(found) == 3
    path = "资料.zip!/子/乙.txt"
    assert (document(service, path).title, document(service, path).tags) == ("水泵手册", ["设备"])
    again = {row.path: row.status for row in ingest(service, folder).documents}
    assert again[path] == "skipped"
    write("检修")
    again = {row.path: row.status for row in ingest(service, folder).documents}
    assert again[path] == "indexed"
    assert document(service, path).tags == ["检修"]


def test_html_says_what_it_is_about() -> None:
    page = (
        "<html><head><title>通知</title><meta name=keywords content='放假, 国庆'><meta name=author content=办公室>"
        "<meta property='article:published_time' content='2024-09-20T08:00:00+08:00'></head>"
        "<body><main><p>国庆节放假七天。</p></main></body></html>"
    )
    parsed = parse(page.encode(), "a.html")
    assert parsed.tags == ("放假", "国庆")
    assert parsed.meta == {"author": "办公室", "date": "2024-09-20T08:00:00+08:00"}
    assert document_date(parsed.meta) == date(2024, 9, 20)
    matter = parse(f"---\ntitle: 首页\ntags: [a]\n---\n{page}".encode(), "a.html")
    assert (matter.title, matter.tags[-1]) == ("首页", "a")
    assert "title" not in matter.text


def test_values_of_every_kind() -> None:
    found = labels(
        {"tags": ["a", ["b", "c，d"], 7], "when": date(2024, 1, 2), "n": 1.5, "none": None, "x": float("inf")}
    )
    assert found.tags == ("a", "b", "c", "d", "7")
    assert found.meta == {"when": "2024-01-02", "n": 1.5, "none": None, "x": "inf"}
    assert json.dumps(found.meta)
    assert front_matter("---\n- a\n- b\n---\nrest")[1] == "rest"
    assert front_matter("--- no\nrest") == (labels({}), "--- no\nrest")


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024-03-01", date(2024, 3, 1)),
        ("2024/3/1 10:00", date(2024, 3, 1)),
        ("2024年3月1日", date(2024, 3, 1)),
        ("20240301", date(2024, 3, 1)),
        ("2024-13-01", None),
        ("三月", None),
        ("202403011", None),
        (None, None),
    ],
)
def test_dates(text: str | None, day: date | None) -> None:
    assert parse_date(text) == day


def test_patterns_hold_for_folders_and_in_archives(tmp_path: Path) -> None:
    import zipfile

    top = tmp_path / "top"
    for name in ("a.TXT", "drafts/b.txt", "x/drafts/c.txt", "x/d.md"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("文字。", encoding="utf-8")
    with zipfile.ZipFile(top / "z.zip", "w") as archive:
        archive.writestr("e.txt", "文字。")
        archive.writestr("f.md", "文字。")

    def paths(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
        return sorted(source.path for source in expand([top], include, exclude).files)

    assert paths(exclude=("drafts",)) == ["a.TXT", "x/d.md", "z.zip!/e.txt", "z.zip!/f.md"]
    assert paths(include=("*.txt",)) == ["a.TXT", "drafts/b.txt", "x/drafts/c.txt", "z.zip!/e.txt"]
    assert paths(include=("**/*.md",), exclude=("z.zip",)) == ["x/d.md"]
    assert paths(include=("x",), exclude=("x/drafts/*",)) == ["x/d.md"]
