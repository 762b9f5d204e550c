from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import DamagedFile, EmptyFile, EncryptedFile, MissingSource, NoText, UnsupportedFormat
from ingest.formats import parse
from ingest.types import Parsed


def blocks(parsed: Parsed) -> list[tuple[str, str]]:
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def lines(parsed: Parsed) -> list[str]:
    return parsed.text.split("\n")


# -- text and Markdown -----------------------------------------------------------------------------


def test_text_with_markdown_headings_and_articles() -> None:
    source = (
        "# 管理办法\r\n\r\n第一章 总则\r\n第一条 为了规范管理，制定本办法。\r\n本办法自发布之日起施行。\r\n"
        "第二章 附则\r\n第二条 由总务处解释。"
    )
    parsed = parse(source.encode("gb18030"), "办法.txt")
    assert parsed.title == "管理办法"
    assert parsed.fidelity["encoding"] == "gb18030"
    assert [(level, text) for _, level, text in parsed.headings] == [
        (1, "管理办法"),
        (2, "第一章 总则"),
        (2, "第二章 附则"),
    ]
    assert [kind for kind, _ in blocks(parsed)] == ["heading", "heading", "article", "text", "heading", "article"]


def test_a_reference_to_an_article_does_not_begin_one() -> None:
    parsed = parse("通知。\n第十二条第一项规定的情形，应当报告。\n第十二条和第十三条不适用。".encode(), "a.txt")
    assert [kind for kind, _ in blocks(parsed)] == ["text", "text", "text"]


def test_short_first_line_is_the_title_and_a_sentence_is_not() -> None:
    assert parse("停水通知\n明日上午停水。".encode(), "x.txt").title == "停水通知"
    assert parse("明日上午停水。\n请储水备用。".encode(), "通知（明日）.txt").title == "通知（明日）"


def test_form_feeds_are_pages() -> None:
    parsed = parse("第一页的话。\f第二页的话。\f第三页。".encode(), "a.txt")
    assert [parsed.page_at(parsed.text.index(mark)) for mark in ("第一页", "第二页", "第三页")] == [1, 2, 3]


def test_markdown_structure() -> None:
    source = """---
title: 安装手册
tags: [安装, 运维]
version: 3
---
# 安装

先看 **前提**，再看[步骤](https://example.org)。
第二行另起。

## 步骤

1. 下载
2. 解压
   - 不要覆盖

| 端口 | 用途 |
|------|------|
| 8000 | 网页 |
| 5432 | 数据库 |

```bash
make run

make test
```
"""
    parsed = parse(source.encode(), "install.md")
    assert (parsed.title, parsed.tags, parsed.meta) == ("安装手册", ("安装", "运维"), {"version": 3})
    assert blocks(parsed) == [
        ("heading", "安装"),
        ("text", "先看 前提，再看步骤。"),
        ("text", "第二行另起。"),
        ("heading", "步骤"),
        ("item", "1. 下载"),
        ("item", "2. 解压"),
        ("item", "- 不要覆盖"),
        ("row", "端口 | 用途"),
        ("row", "端口：8000；用途：网页"),
        ("row", "端口：5432；用途：数据库"),
        ("code", "make run\n\nmake test"),
    ]


def test_html_within_markdown() -> None:
    table = "<table><tr><th>项目</th><th>价格</th></tr><tr><td>洗车</td><td>30元</td></tr></table>"
    source = f"# 价目\n\n{table}\n\n<!-- 注 -->\n\n完。"
    assert lines(parse(source.encode(), "a.md")) == ["价目", "项目 | 价格", "项目：洗车；价格：30元", "完。"]


def test_footnotes_in_markdown_are_text() -> None:
    source = """甲方逾期的，按约定支付违约金[^1]，见[条款][a]和[附图][b]。

[^1]: 违约金为合同总价的**百分之五**。
[^二]: 自次日起计算，
  不满一日的按一日计算。
[a]: https://example.org "条款"
[b]: 附件/图.png
[注]: 甲/乙双方各执一份。

    [^3]: 代码

> [^4]: 引文里的注。
"""
    assert lines(parse(source.encode(), "a.md")) == [
        "甲方逾期的，按约定支付违约金[^1]，见条款和附图。",
        "[^1]: 违约金为合同总价的百分之五。",
        "[^二]: 自次日起计算，",
        "不满一日的按一日计算。",
        "[注]: 甲/乙双方各执一份。",
        "[^3]: 代码",
        "[^4]: 引文里的注。",
    ]


# -- HTML ------------------------------------------------------------------------------------------

PAGE = """<!doctype html><html><head>{meta}<title>报销制度 - 某公司内网</title><style>p {{}}</style></head><body>
<nav><a href="/">首页</a><a href="/n">新闻</a></nav><div class="ad">广告：点击购买</div>
<{main}><h1>报销制度</h1><p>差旅费须在<b>三十日</b>内报销。<br>逾期不予受理。</p><h2>标准</h2>
<table><tr><th>城市</th><th>每日上限</th></tr><tr><td rowspan="2">北京</td><td>600元</td></tr>
<tr><td>旺季700元</td></tr></table>
<ul><li>附发票</li><li>附行程单<ol><li>纸质</li></ol></li></ul><pre>a  b
 c</pre></{main}>
<script>var hidden = 1;</script><div style="display:none">看不见</div><footer>版权所有</footer></body></html>"""

EXPECTED = [
    ("heading", "报销制度"),
    ("text", "差旅费须在三十日内报销。"),
    ("text", "逾期不予受理。"),
    ("heading", "标准"),
    ("row", "城市 | 每日上限"),
    ("row", "城市：北京；每日上限：600元"),
    ("row", "城市：北京；每日上限：旺季700元"),
    ("item", "- 附发票"),
    ("item", "- 附行程单"),
    ("item", "1. 纸质"),
    ("code", "a  b\n c"),
]


@pytest.mark.parametrize("main", ["main", "article", "div"])
@pytest.mark.parametrize(
    ("meta", "encoding"),
    [
        ('<meta charset="utf-8">', "utf-8"),
        ('<meta charset="gbk">', "gbk"),
        ("", "gbk"),
        ('<meta charset="utf-8">', "gbk"),
    ],
)
def test_page_in_several_encodings_and_layouts(main: str, meta: str, encoding: str) -> None:
    parsed = parse(PAGE.format(meta=meta, main=main).encode(encoding), "page.html")
    assert parsed.title == "报销制度"
    assert blocks(parsed) == EXPECTED


def test_a_page_title_loses_the_site_name() -> None:
    head = "<html><head><title>开放时间 - 图书馆</title></head>"
    page = head + "<body><main><p>周一至周五开放，周末闭馆。</p></main></body></html>"
    assert parse(page.encode(), "x.htm").title == "开放时间"


def test_layout_tables_are_walked_as_text() -> None:
    page = "<body><main><table><tr><td><p>第一段话。</p><p>第二段话。</p></td></tr></table></main></body>"
    assert blocks(parse(page.encode(), "x.html")) == [("text", "第一段话。"), ("text", "第二段话。")]


# -- Word ------------------------------------------------------------------------------------------


def test_docx_headings_and_tables_in_order(make_docx: Callable[..., bytes]) -> None:
    def build(document: Any) -> None:
        document.core_properties.title = "核心属性里的标题"
        document.add_heading("设备台账", 1)
        document.add_paragraph("下表列出全部设备。")
        table = document.add_table(rows=3, cols=3)
        for row, cells in zip(
            table.rows, [("编号", "名称", "地点"), ("A1", "水泵", "一楼"), ("A2", "风机", "二楼")], strict=True
        ):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
        document.add_heading("附注", 2)
        document.add_paragraph("每季度核对一次。", style="List Bullet")

    parsed = parse(make_docx(build), "台账.docx")
    assert parsed.title == "设备台账"
    assert blocks(parsed) == [
        ("heading", "设备台账"),
        ("text", "下表列出全部设备。"),
        ("row", "编号 | 名称 | 地点"),
        ("row", "编号：A1；名称：水泵；地点：一楼"),
        ("row", "编号：A2；名称：风机；地点：二楼"),
        ("heading", "附注"),
        ("item", "- 每季度核对一次。"),
    ]


def test_docx_key_value_and_merged_cells(make_docx: Callable[..., bytes]) -> None:
    def build(document: Any) -> None:
        table = document.add_table(rows=2, cols=2)
        for row, cells in zip(table.rows, [("负责人", "张三"), ("电话", "无")], strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
        document.add_paragraph("中间的话。")
        merged = document.add_table(rows=3, cols=3)
        for row, cells in zip(
            merged.rows, [("类别", "名称", "数量"), ("水果", "苹果", "3"), ("", "梨", "5")], strict=True
        ):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
        merged.cell(1, 0).merge(merged.cell(2, 0))

    assert lines(parse(make_docx(build), "表.docx")) == [
        "负责人：张三",
        "电话：无",
        "中间的话。",
        "类别 | 名称 | 数量",
        "类别：水果；名称：苹果；数量：3",
        "类别：水果；名称：梨；数量：5",
    ]


def test_docx_content_controls_tracked_changes_and_automatic_numbers(make_docx: Callable[..., bytes]) -> None:
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    def build(document: Any) -> None:
        numbering = document.part.numbering_part.element
        numbering.insert(
            0,
            parse_xml(
                f'<w:abstractNum {nsdecls("w")} w:abstractNumId="77"><w:lvl w:ilvl="0"><w:start w:val="9"/>'
                '<w:numFmt w:val="chineseCountingThousand"/><w:lvlText w:val="第%1条"/></w:lvl></w:abstractNum>'
            ),
        )
        numbering.append(parse_xml(f'<w:num {nsdecls("w")} w:numId="77"><w:abstractNumId w:val="77"/></w:num>'))
        for text in ("出租人应当保证房屋安全。", "承租人不得转租。"):
            paragraph = document.add_paragraph(text)
            paragraph._p.get_or_add_pPr().append(
                parse_xml(f'<w:numPr {nsdecls("w")}><w:ilvl w:val="0"/><w:numId w:val="77"/></w:numPr>')
            )
        body = document.element.body
        body.insert(
            len(body) - 1,
            parse_xml(
                f"<w:sdt {nsdecls('w')}><w:sdtContent><w:p><w:r><w:t>控件里的字</w:t></w:r></w:p>"
                "</w:sdtContent></w:sdt>"
            ),
        )
        body.insert(
            len(body) - 1,
            parse_xml(
                f"<w:p {nsdecls('w')}><w:r><w:t>押金</w:t></w:r><w:ins><w:r><w:t>两</w:t></w:r></w:ins>"
                "<w:del><w:r><w:delText>三</w:delText></w:r></w:del><w:r><w:t>个月</w:t></w:r></w:p>"
            ),
        )

    parsed = parse(make_docx(build), "合同.docx")
    assert blocks(parsed) == [
        ("article", "第九条 出租人应当保证房屋安全。"),
        ("article", "第十条 承租人不得转租。"),
        ("text", "控件里的字"),
        ("text", "押金两个月"),
    ]


def test_docx_footnotes_and_formulas(make_docx: Callable[..., bytes]) -> None:
    from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    notes = (
        f"<w:footnotes {nsdecls('w')}><w:footnote w:type='separator' w:id='0'><w:p/></w:footnote>"
        "<w:footnote w:id='1'><w:p><w:r><w:t>见附录。</w:t></w:r></w:p></w:footnote></w:footnotes>"
    )

    def build(document: Any) -> None:
        paragraph = document.add_paragraph("面积为")
        paragraph._p.append(
            parse_xml(
                '<m:oMath xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math">'
                "<m:r><m:t>a×b</m:t></m:r></m:oMath>"
            )
        )
        part = Part(PackURI("/word/footnotes.xml"), CONTENT_TYPE.WML_FOOTNOTES, notes.encode(), document.part.package)
        document.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)

    assert lines(parse(make_docx(build), "a.docx")) == ["面积为a×b", "注1：见附录。"]


# -- PDF -------------------------------------------------------------------------------------------

PARAGRAPH = (
    "本馆藏书一百二十万册，其中古籍三万余册，均可在阅览室内借阅，不得带出馆外，"
    "违者按照规定处理并且记入读者诚信档案之中。"
)


def wrapped(text: str, width: int = 37) -> list[str]:
    return [text[i : i + width] for i in range(0, len(text), width)]


def test_pdf_lines_become_paragraphs(make_pdf: Callable[..., bytes]) -> None:
    data = make_pdf([["借阅须知", *wrapped(PARAGRAPH), "办证免费。", *wrapped(PARAGRAPH)]])
    assert lines(parse(data, "a.pdf")) == ["借阅须知", PARAGRAPH, "办证免费。", PARAGRAPH]


def test_pdf_pages_and_a_paragraph_across_them(make_pdf: Callable[..., bytes]) -> None:
    first, second = wrapped(PARAGRAPH)
    parsed = parse(make_pdf([["须知", first], [second, "第二页末。"], ["第三页。"]]), "a.pdf")
    assert lines(parsed) == ["须知", PARAGRAPH, "第二页末。", "第三页。"]
    assert [parsed.page_at(parsed.text.index(mark)) for mark in (first, second, "第二页末", "第三页")] == [1, 2, 2, 3]


def test_pdf_headers_footers_and_page_numbers_are_dropped(make_pdf: Callable[..., bytes]) -> None:
    pages = [
        [
            ("某某集团内部资料", 9.0, 72.0, 810.0),
            f"这是第{n}章的正文，讲述相应的制度。",
            "正文还有一行。",
            "末行。",
            (f"- {i} -", 9.0, 290.0, 30.0),
        ]
        for i, n in enumerate("一二三四", start=1)
    ]
    parsed = parse(make_pdf(pages), "a.pdf")
    assert "内部资料" not in parsed.text
    assert not re.search(r"- \d -", parsed.text)
    assert parsed.text.count("正文还有一行。") == 4
    assert parsed.fidelity["running_lines_dropped"] == 8


def test_pdf_larger_lines_are_headings_and_the_title_is_read(make_pdf: Callable[..., bytes]) -> None:
    page = [
        ("参观指南", 20.0, 72.0, 780.0),
        *wrapped(PARAGRAPH),
        ("票价", 16.0, 72.0, 640.0),
        ("成人二十元，儿童免费，团体八折优惠。", 12.0, 72.0, 615.0),
    ]
    parsed = parse(make_pdf([page], title="参观指南"), "a.pdf")
    assert parsed.title == "参观指南"
    assert [(level, text) for _, level, text in parsed.headings] == [(1, "参观指南"), (2, "票价")]


def test_pdf_columns(make_pdf: Callable[..., bytes]) -> None:
    text = PARAGRAPH + "请妥善保管。"
    left, right = wrapped(text[:38], 19), wrapped(text[38:], 19)
    page = [
        *((text, 12.0, 60.0, 760.0 - 18 * i) for i, text in enumerate(["左栏第一段到此为止。", *left])),
        *((text, 12.0, 320.0, 760.0 - 18 * i) for i, text in enumerate([*right, "右栏末段。"])),
    ]
    assert lines(parse(make_pdf([page]), "a.pdf")) == ["左栏第一段到此为止。", text, "右栏末段。"]


def test_pdf_columns_drawn_row_by_row_under_a_title_across_them(make_pdf: Callable[..., bytes]) -> None:
    left, right = "甲" + PARAGRAPH * 2, "乙" + PARAGRAPH * 2
    page: list[Any] = [("两栏排版的文章标题横跨整页", 18.0, 150.0, 790.0)]
    for i, (a, b) in enumerate(zip(wrapped(left, 19), wrapped(right, 19), strict=True)):
        page += [(a, 12.0, 60.0, 760.0 - 18 * i), (b, 12.0, 320.0, 760.0 - 18 * i)]
    assert lines(parse(make_pdf([page]), "a.pdf")) == ["两栏排版的文章标题横跨整页", left, right]


def test_pdf_three_columns_drawn_row_by_row(make_pdf: Callable[..., bytes]) -> None:
    columns = [mark + PARAGRAPH for mark in "甲乙丙"]
    page = [
        (text, 10.0, 50.0 + 170 * j, 760.0 - 16 * i)
        for i, row in enumerate(zip(*(wrapped(text, 15) for text in columns), strict=True))
        for j, text in enumerate(row)
    ]
    assert lines(parse(make_pdf([page]), "a.pdf")) == columns


def test_pdf_rows_of_a_table_stay_apart_and_know_their_header(make_pdf: Callable[..., bytes]) -> None:
    rows = [("姓名", "年龄", "所在城市"), *((f"员工{n}", f"3{i}", "北京市朝阳区") for i, n in enumerate("甲乙丙丁"))]
    page = [
        (text, 12.0, x, 760.0 - 18 * i)
        for i, row in enumerate(rows)
        for text, x in zip(row, (60.0, 200.0, 320.0), strict=True)
    ]
    parsed = parse(make_pdf([page]), "a.pdf")
    assert lines(parsed) == [" ".join(row) for row in rows]
    assert [(block.kind, block.header) for block in parsed.blocks] == [
        ("row", ""),
        *[("row", "姓名 年龄 所在城市")] * 4,
    ]


def test_pdf_title_in_gbk_that_is_taken_for_latin1(make_pdf: Callable[..., bytes]) -> None:
    title = "年度报告".encode("gbk").decode("latin-1")
    assert parse(make_pdf([["正文一句话，到此为止。"]], title=title), "a.pdf").title == "年度报告"


def test_pdf_hyphens_at_line_ends(make_pdf: Callable[..., bytes]) -> None:
    first = "The committee decided that the docu-"
    data = make_pdf([[first, "ments shall be kept.", "Half-", "open."]])
    whole = "The committee decided that the documents shall be kept."
    assert lines(parse(data, "a.pdf")) == [whole, "Half-open."]


def test_pdf_without_text_is_said_to_be_a_scan(make_pdf: Callable[..., bytes]) -> None:
    with pytest.raises(NoText, match="OCR"):
        parse(make_pdf([[], []]), "a.pdf")


def test_pdf_pages_without_text_are_reported(make_pdf: Callable[..., bytes]) -> None:
    parsed = parse(make_pdf([["有字的一页。"], [], ["第三页的字。"]]), "a.pdf")
    assert parsed.fidelity["pages_without_text"] == [2]
    assert parsed.page_at(parsed.text.index("第三页")) == 3


def test_pdf_without_its_font_is_read_whole_where_the_machine_has_no_chinese_font_either(
    make_pdf: Callable[..., bytes],
) -> None:
    """Single characters, and equal lines near by, are what pdfium loses without any font."""
    page = [PARAGRAPH[:30], "。", "中间一行。", PARAGRAPH[:30], "末", "行。"]
    parsed = parse(make_pdf([page]), "a.pdf")
    assert "".join(lines(parsed)) == "".join(page)
    assert "pages_without_font" not in parsed.fidelity


def test_encrypted_pdf(make_pdf: Callable[..., bytes]) -> None:
    with pytest.raises(EncryptedFile, match="password"):
        parse(make_pdf([["机密。"]], encrypt="secret"), "a.pdf")


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
@pytest.mark.parametrize("data", [b"not what it says", b"%PDF-1.7\n%broken", b"PK\x03\x04 broken"])
def test_damaged_files(name: str, data: bytes) -> None:
    with pytest.raises(DamagedFile):
        parse(data, name)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.pdf", "a.docx"])
@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"\0\0\0"])
def test_empty_files(name: str, data: bytes) -> None:
    with pytest.raises(EmptyFile):
        parse(data, name)


def test_files_with_nothing_to_read(make_docx: Callable[..., bytes]) -> None:
    with pytest.raises(EmptyFile):
        parse(make_docx(lambda document: document.add_paragraph("  ")), "a.docx")
    with pytest.raises(EmptyFile):
        parse(b"<html><body><script>x</script></body></html>", "a.html")


def test_old_and_protected_office_files() -> None:
    compound = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512
    with pytest.raises(UnsupportedFormat, match="old Office"):
        parse(compound, "a.docx")
    with pytest.raises(EncryptedFile, match="password"):
        parse(compound + "EncryptedPackage".encode("utf-16-le"), "a.docx")


def test_unsupported_and_missing(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=r"\.docx"):
        parse(b"x", "a.doc")
    with pytest.raises(UnsupportedFormat, match="extension"):
        parse(b"x", "README")
    with pytest.raises(MissingSource):
        parse(tmp_path / "none.txt")


def test_truncated_docx_at_every_tenth_byte_never_raises_anything_else(make_docx: Callable[..., bytes]) -> None:
    data = make_docx(lambda document: document.add_paragraph("正文。"))
    for cut in range(4, len(data), max(1, len(data) // 10)):
        with pytest.raises(DamagedFile):
            parse(data[:cut], "a.docx")


# -- the sample files ------------------------------------------------------------------------------


def recall(truth: str, text: str) -> float:
    """Share of the true characters that are matched in order, white space removed."""
    truth, text = "".join(truth.split()), "".join(text.split())
    return sum(match.size for match in SequenceMatcher(None, truth, text, autojunk=False).get_matching_blocks()) / len(
        truth
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    "name",
    [
        "chromium.pdf",
        "rl_cid.pdf",
        "rl_wqy.pdf",
        "doc.docx",
        "page_utf8.html",
        "page_gbk.html",
        "page_gbk_nometa.html",
        "text_gbk.txt",
    ],
)
def test_no_character_is_lost(samples: Path, name: str) -> None:
    truth = (samples / "truth.txt").read_text(encoding="utf-8")
    assert recall(truth, parse(samples / name).text) == 1.0


@pytest.mark.shared
def test_each_paragraph_of_the_samples_is_one_line(samples: Path) -> None:
    truth = (samples / "truth.txt").read_text(encoding="utf-8").split("\n")
    for name in ("chromium.pdf", "doc.docx", "page_gbk_nometa.html"):
        assert set(truth) <= set(lines(parse(samples / name))), name


@pytest.mark.shared
def test_short_samples_and_long_pdf(samples: Path) -> None:
    assert parse(samples / "short_gbk.txt").text == "你好，世界"
    assert parse(samples / "text_big5.txt").text.startswith("繁體中文測試")
    long = parse(samples / "big.pdf")
    assert len(long.pages) == 43
    assert long.page_at(len(long.text) - 1) == 43
