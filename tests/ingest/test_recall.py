"""No format loses characters: the same text in every format, against what it says."""

from __future__ import annotations

import functools
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from benchmarks.formats import MADE, comparable, made
from ingest.formats import ocr, parse
from ingest.sources import address, expand

FLOORS = {
    "text_gbk.txt": 1.0,
    "page_utf8.html": 1.0,
    "page_gbk.html": 1.0,
    "page_gbk_nometa.html": 1.0,
    "doc.docx": 1.0,
    "slides.pptx": 1.0,
    "book.epub": 1.0,
    "chromium.pdf": 1.0,
    "rl_cid.pdf": 1.0,
    "rl_wqy.pdf": 1.0,
    "scan.pdf": 0.99,
    "ocr.png": 0.99,
    "ocr_rot.png": 0.99,
}
"""Share of the true characters found in order, white space removed; as measured, OCR rounded down."""
BY_OCR = ("scan.pdf", "ocr.png", "ocr_rot.png")


def squeezed(text: str) -> str:
    return "".join(text.split())


@functools.cache
def text_of(file: Path) -> str:
    return squeezed(parse(file).text)


def matched(a: str, b: str) -> int:
    return sum(block.size for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())


@pytest.mark.shared
@pytest.mark.parametrize("name", FLOORS)
def test_recall(samples: Path, name: str) -> None:
    if name in BY_OCR and not ocr.available():
        pytest.skip("needs the extra ocr")
    truth = squeezed((samples / "truth.txt").read_text(encoding="utf-8"))
    assert matched(truth, text_of(samples / name)) / len(truth) >= FLOORS[name]


TEXT = """检索增强生成（RAG）是一种结合信息检索与文本生成的方法，2024年的召回率可达95.3%。
违约金为合同总价的百分之五，自逾期之日起按日计算；不满一日的，按一日计算。
北京大学创办于1898年，初名京师大学堂，校园位于北京市海淀区颐和园路5号，又称燕园。
本合同一式两份，双方各执一份，自签字盖章之日起生效。"""


@pytest.mark.parametrize("name", MADE)
def test_recall_of_formats_made_here(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(made(TEXT)[name])
    read = "".join(parse(Path(address(source)), source.path).text for source in expand([tmp_path / name]).files)
    truth = comparable(TEXT, name)
    assert matched(truth, comparable(read, name)) == len(truth)


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name in FLOORS if name.endswith(("html", "pdf")) and name not in BY_OCR])
def test_little_is_added(samples: Path, name: str) -> None:
    """What the truth lacks is the file's own title, its table and a formula; menus and footers are not."""
    truth = squeezed((samples / "truth.txt").read_text(encoding="utf-8"))
    text = text_of(samples / name)
    assert len(text) - matched(truth, text) <= 60
