from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from ingest import archives
from ingest.errors import DamagedFile, MissingSource
from ingest.formats import parse
from ingest.pipeline import ingest
from ingest.sources import address, expand
from tests.ingest.installation import installation


def archive(path: Path, **files: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return path


def gbk_archive(path: Path, name: str, data: bytes) -> Path:
    """As Windows writes it: the name in GBK, not marked as UTF-8."""
    buffer = io.BytesIO()
    stand_in = "x" * len(name.encode("gbk"))
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(stand_in, data)
    path.write_bytes(buffer.getvalue().replace(stand_in.encode(), name.encode("gbk")))
    return path


def test_members_are_documents(tmp_path: Path) -> None:
    file = archive(
        tmp_path / "资料.zip",
        **{
            "乙/b.md": "# 乙\n\n正文。",
            "a.txt": "甲。",
            ".hidden/c.txt": "x",
            "__MACOSX/d.txt": "x",
            "e.png": b"x",
            "f.zip": b"x",
        },
    )
    found = expand([file])
    assert [source.path for source in found.files] == ["资料.zip!/a.txt", "资料.zip!/乙/b.md"]
    assert [(p.path, p.status) for p in found.problems] == [
        ("资料.zip!/e.png", "skipped"),
        ("资料.zip!/f.zip", "failed"),
    ]
    assert parse(Path(address(found.files[1])), found.files[1].path).title == "乙"


def test_names_in_gbk(tmp_path: Path) -> None:
    file = gbk_archive(tmp_path / "w.zip", "规章制度/考勤办法.txt", "迟到扣款。".encode("gbk"))
    (source,) = expand([file]).files
    assert source.path == "w.zip!/规章制度/考勤办法.txt"
    assert parse(Path(address(source)), source.path).text == "迟到扣款。"


@pytest.mark.parametrize("name", ["../../etc/evil.txt", "/etc/evil.txt", "C:/evil.txt", "a/../../evil.txt"])
def test_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    found = expand([archive(tmp_path / "a.zip", **{name: "x"})])
    assert found.files == []
    assert "leads out" in found.problems[0].error


def test_bombs_and_damage(tmp_path: Path) -> None:
    bomb = expand([archive(tmp_path / "bomb.zip", **{"a.txt": b"0" * (30 << 20)})])
    assert bomb.files == []
    assert "beyond all measure" in bomb.problems[0].error
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not really")
    assert [(p.path, p.status) for p in expand([tmp_path / "bad.zip"]).problems] == [("bad.zip", "failed")]
    good = archive(tmp_path / "good.zip", **{"a.txt": "甲" * 5000})
    with pytest.raises(MissingSource):
        archives.read(good, "none.txt")
    data = bytearray(good.read_bytes())
    data[45] ^= 0xFF
    good.write_bytes(data)
    with pytest.raises(DamagedFile):
        archives.read(good, "a.txt")


def test_encrypted_members_are_told(tmp_path: Path) -> None:
    file = archive(tmp_path / "a.zip", **{"a.txt": "甲"})
    data = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    file.write_bytes(data)
    assert "password" in expand([file]).problems[0].error


def test_an_archive_comes_in_and_is_replaced_member_by_member(tmp_path: Path) -> None:
    service = installation(tmp_path / "home")
    folder = tmp_path / "d"
    folder.mkdir()
    archive(folder / "a.zip", **{"x.txt": "第一篇。", "y.txt": "第二篇。"})
    report = ingest(service, [folder])
    assert {d.path: d.status for d in report.documents} == {"a.zip!/x.txt": "indexed", "a.zip!/y.txt": "indexed"}
    archive(folder / "a.zip", **{"x.txt": "第一篇，改过。", "y.txt": "第二篇。"})
    report = ingest(service, [folder])
    assert {d.path: d.status for d in report.documents} == {"a.zip!/x.txt": "indexed", "a.zip!/y.txt": "skipped"}
    assert service.indexes.verify("default").ok


def test_an_exclamation_mark_in_a_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "hurra!"
    folder.mkdir()
    (folder / "a.txt").write_text("正文。", encoding="utf-8")
    (source,) = expand([folder]).files
    assert parse(Path(address(source)), source.path).text == "正文。"
