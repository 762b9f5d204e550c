from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest import limits
from ingest.formats import parse
from ingest.limits import Limits, TooLarge, applied
from ingest.runners.worker import work
from rag.settings import Settings


def test_each_limit_is_a_setting_of_the_same_default(tmp_path: Path) -> None:
    assert Limits.of(Settings(home=tmp_path)) == Limits()
    assert Limits.of(Settings(home=tmp_path, max_pages=7)).max_pages == 7
    assert Limits.of(Settings(home=tmp_path), parse_timeout_s=5.0).parse_timeout_s == 5.0


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
def test_settings_refuse_senseless_limits(field: dataclasses.Field[object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=field.name):
        Settings(home=tmp_path, **{field.name: -1})


def test_pages(make_pdf: Callable[..., bytes]) -> None:
    data = make_pdf([["第一页。"], ["第二页。"], ["第三页。"]])
    with applied(Limits(max_pages=2)), pytest.raises(TooLarge, match=r"3 pages.* 2.*CHATGGLM_MAX_PAGES"):
        parse(data, "a.pdf")
    with applied(Limits(max_pages=3)):
        assert len(parse(data, "a.pdf").pages) == 3


def test_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a" * ((1 << 20) + 1))
    with applied(Limits(max_document_mb=1)):
        with pytest.raises(TooLarge, match=r"2 MiB.* 1.*CHATGGLM_MAX_DOCUMENT_MB"):
            parse(file)
        answer = work(str(file), file.name)
    assert (answer["status"], "CHATGGLM_MAX_DOCUMENT_MB" in answer["error"]) == ("failed", True)


def test_large_documents_get_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(limits, "_grant", asked.append)
    (tmp_path / "a.txt").write_bytes(b"a" * 500_000)
    with applied(Limits(parse_timeout_s_per_mb=100.0)):
        work(str(tmp_path / "a.txt"), "a.txt")
    assert asked == [50.0]
