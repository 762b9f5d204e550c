from __future__ import annotations

import pytest

from ingest.errors import DamagedFile
from ingest.formats.encoding import declared_charset, decode

SIMPLIFIED = "数据库每天凌晨三点备份一次，保留三十天。"
TRADITIONAL = "資料庫每天凌晨三點備份一次，保留三十天。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("length", [6, 20])
def test_simplified_in_every_encoding(encoding: str, length: int) -> None:
    text = SIMPLIFIED[:length]
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-8", "big5", "gb18030", "utf-16"])
@pytest.mark.parametrize("length", [6, 20])
def test_traditional_in_every_encoding(encoding: str, length: int) -> None:
    text = TRADITIONAL[:length]
    assert decode(text.encode(encoding)).text == text


def test_ten_bytes_of_gbk_are_not_korean() -> None:
    found = decode("你好，世界".encode("gbk"))
    assert (found.text, found.encoding) == ("你好，世界", "gb18030")
    assert found.confidence > 0.99


def test_ascii_in_utf16_without_a_mark() -> None:
    assert decode("plain text\n".encode("utf-16-le")).text == "plain text\n"


def test_four_byte_gb18030_and_extension_b() -> None:
    text = "生僻字𠮷与㐂，人名里常有。"
    assert decode(text.encode("gb18030")).text == text


def test_a_character_across_a_buffer_edge_is_whole() -> None:
    text = "a" + "汉" * 5000  # odd offset: any cut at an even number of bytes would part a character
    assert decode(text.encode("gb18030")).text == text


def test_a_few_damaged_bytes_cost_only_themselves() -> None:
    data = (SIMPLIFIED * 20).encode("utf-8")
    broken = data[:300] + b"\xff" + data[300:]
    found = decode(broken)
    assert found.replaced == 1
    assert found.text.replace("\ufffd", "") == SIMPLIFIED * 20
    assert found.fidelity()["undecodable"] == 1


@pytest.mark.parametrize("data", [bytes(range(256)) * 8, b"\x7fELF" + bytes([0, 1, 2, 3] * 200)])
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedFile):
        decode(data)


def test_a_declared_charset_is_believed_only_if_it_decodes() -> None:
    page = '<meta charset="utf-8"><p>' + SIMPLIFIED
    data = page.encode("gbk")
    assert declared_charset(data) == "utf-8"
    assert decode(data, "utf-8").text == page
    assert declared_charset(b'<meta http-equiv="Content-Type" content="text/html; charset=gb2312">') == "gb2312"


def test_western_text_with_a_few_accents() -> None:
    text = "The café on Main Street serves crème brûlée every evening."
    assert decode(text.encode("cp1252")).text == text
