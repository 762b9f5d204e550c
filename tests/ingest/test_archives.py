from __future__ import annotations

import io
import os
import sys
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest import archives
from ingest.archive_files import opened
from ingest.errors import DamagedFile, MissingSource
from ingest.formats import parse
from ingest.limits import Limits, TooLarge, applied
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
            "e.mp4": b"x",
            "f.zip": b"x",
        },
    )
    found = expand([file])
    assert [source.path for source in found.files] == ["资料.zip!/a.txt", "资料.zip!/乙/b.md"]
    assert [(p.path, p.status) for p in found.problems] == [
        ("资料.zip!/e.mp4", "skipped"),
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


# -- TAR, and archives within archives -------------------------------------------------------------


def tar(path: Path, *members: tuple[str | bytes, bytes], **options: Any) -> Path:
    """A TAR of (name, data); a name in bytes is written as it is. ``options``: fields of the first member."""
    with tarfile.open(path, "w:" + KINDS.get("".join(path.suffixes), ""), format=tarfile.GNU_FORMAT) as file:
        for i, (name, data) in enumerate(members):
            file.errors = "surrogateescape"
            info = tarfile.TarInfo(name if isinstance(name, str) else os.fsdecode(name))
            info.size = len(data)
            for field, value in (options if i == 0 else {}).items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(data))
    return path


KINDS = {".tar": "", ".tar.gz": "gz", ".tgz": "gz", ".tar.bz2": "bz2", ".tar.xz": "xz"}


@pytest.mark.parametrize("suffix", KINDS)
def test_tar_members_are_documents_too(tmp_path: Path, suffix: str) -> None:
    file = tar(
        tmp_path / f"资料{suffix}",
        ("./乙/b.md", "# 乙\n\n正文。".encode()),
        ("规章/考勤.txt".encode("gbk"), "迟到扣款。".encode("gbk")),
        (".git/x.txt", b"x"),
        ("./乙/b.md", "# 乙\n\n后来的正文。".encode()),
    )
    found = expand([file])
    assert [source.path for source in found.files] == [f"资料{suffix}!/乙/b.md", f"资料{suffix}!/规章/考勤.txt"]
    assert found.problems == []
    texts = [parse(Path(address(source)), source.path).text for source in found.files]
    assert texts == ["乙\n后来的正文。", "迟到扣款。"]  # the last of a name holds, as when it is unpacked


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt"])
def test_tar_names_that_lead_outside(tmp_path: Path, name: str) -> None:
    found = expand([tar(tmp_path / "a.tar", (name, b"x"))])
    assert found.files == []
    assert "leads out" in found.problems[0].error


@pytest.mark.parametrize(
    ("kind", "said"), [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.FIFOTYPE, "no plain file")]
)
def test_tar_links_and_devices_are_not_followed(tmp_path: Path, kind: bytes, said: str) -> None:
    (problem,) = expand([tar(tmp_path / "a.tar", ("a.txt", b""), type=kind, linkname="/etc/passwd")]).problems
    assert said in problem.error


def test_links_in_zip_are_not_followed(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    assert "link" in expand([tmp_path / "a.zip"]).problems[0].error


def test_archives_within_archives(tmp_path: Path) -> None:
    inner = tar(tmp_path / "内.tgz", ("c.txt", "里面的话。".encode())).read_bytes()
    middle = archive(tmp_path / "中.zip", **{"内.tgz": inner, "b.txt": "中间的话。"}).read_bytes()
    outer = archive(tmp_path / "外.zip", **{"中.zip": middle, "a!/a.txt": "外面的话。"})
    found = expand([outer])
    assert [source.path for source in found.files] == [
        "外.zip!/a!/a.txt",
        "外.zip!/中.zip!/b.txt",
        "外.zip!/中.zip!/内.tgz!/c.txt",
    ]
    texts = [parse(Path(address(source)), source.path).text for source in found.files]
    assert texts == ["外面的话。", "中间的话。", "里面的话。"]
    shallow = expand([outer], limits=Limits(max_archive_depth=2))
    assert [(p.path, "MAX_ARCHIVE_DEPTH" in p.error) for p in shallow.problems] == [("外.zip!/中.zip!/内.tgz", True)]


def test_limits_of_archives_say_which_setting_to_raise(tmp_path: Path) -> None:
    many = archive(tmp_path / "many.zip", **{f"{i}.txt": "x" for i in range(5)})
    large = tar(tmp_path / "large.tar.gz", *((f"{i}.txt", os.urandom(1 << 19)) for i in range(4)))
    for file, limits, setting in (
        (many, Limits(max_archive_files=4), "CHATGGLM_MAX_ARCHIVE_FILES"),
        (large, Limits(max_archive_mb=1), "CHATGGLM_MAX_ARCHIVE_MB"),
    ):
        found = expand([file], limits=limits)
        assert found.files == []
        assert setting in found.problems[0].error
    (problem, *_) = expand(
        [tar(tmp_path / "one.tar", ("a.txt", bytes(2 << 20)))], limits=Limits(max_document_mb=1)
    ).problems
    assert "CHATGGLM_MAX_DOCUMENT_MB" in problem.error


def test_members_of_a_tar_are_counted_while_they_are_listed(tmp_path: Path) -> None:
    file = tar(tmp_path / "a.tar", *((f".git/{i}", b"") for i in range(9)), *((f"{i}.txt", b"") for i in range(4)))
    with applied(Limits(max_archive_files=4)):
        assert len(opened(file, file.name).entries) == 13  # hidden ones are not counted
    with applied(Limits(max_archive_files=3)), pytest.raises(TooLarge, match=r"at least 4 files.* 3.*MAX_ARCHIVE"):
        opened(file, file.name)


def test_an_archive_that_takes_too_long_to_list_is_given_up(tmp_path: Path) -> None:
    header = tarfile.TarInfo("甲/空.txt").tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    (tmp_path / "long.tar").write_bytes(header * 300_000)
    archive(tmp_path / "short.zip", **{"a.txt": "x"})
    limits = Limits(parse_timeout_s=1.0, parse_timeout_s_per_mb=0.0, max_archive_files=10**6)
    began = time.monotonic()
    found = expand([tmp_path / "long.tar"], limits=limits)
    assert time.monotonic() - began < 5.0
    assert found.files == []
    assert "listing the archive took longer than 1 s" in found.problems[0].error
    assert "CHATGGLM_PARSE_TIMEOUT_S" in found.problems[0].error
    folder = expand([tmp_path], limits=replace(limits, parse_timeout_s=3.0))
    assert [source.path for source in folder.files] == ["short.zip!/a.txt"]  # the rest goes on


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_an_archive_that_takes_too_much_memory_to_list_is_given_up(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30  # a name of two gigabytes
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate((2 << 30) + 1024)
    (problem,) = expand([tmp_path / "a.tar"], limits=Limits(parse_memory_mb=512)).problems
    assert "CHATGGLM_PARSE_MEMORY_MB" in problem.error


@pytest.mark.parametrize("suffix", KINDS)
def test_damaged_tar(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"no archive at all")
    data = tar(tmp_path / f"b{suffix}", ("a.txt", os.urandom(5000))).read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(data[:3000])
    found = expand([tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"])
    if found.files:  # a cut plain TAR still lists its member
        with pytest.raises(DamagedFile):
            archives.read(found.files[0].file, found.files[0].member)
    assert all("damaged" in problem.error for problem in found.problems)
    assert len(found.files) + len(found.problems) == 2


def test_an_exclamation_mark_in_a_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "hurra!"
    folder.mkdir()
    (folder / "a.txt").write_text("正文。", encoding="utf-8")
    (source,) = expand([folder]).files
    assert parse(Path(address(source)), source.path).text == "正文。"
