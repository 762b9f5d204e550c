from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from ingest.errors import DamagedFile, EmptyFile, EncryptedFile, NoText
from ingest.formats import parse
from ingest.limits import Limits, TooLarge, applied
from ingest.types import Parsed


def lines(parsed: Parsed) -> list[str]:
    return parsed.text.split("\n")


# -- spreadsheets ----------------------------------------------------------------------------------


def workbook(**sheets: list[list[Any]]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    del book["Sheet"]
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_sheets_are_sections_and_rows_name_their_columns() -> None:
    data = workbook(
        库存=[
            ["二〇二六年库存表", None, None],
            ["品名", "数量", "入库"],
            ["螺栓", 1200, datetime.datetime(2026, 5, 1)],
        ],
        联系人=[["仓库", "张三"], ["门卫", "李四"]],
    )
    parsed = parse(data, "台账.xlsx")
    assert parsed.title == "台账"
    assert lines(parsed) == [
        "库存",
        "二〇二六年库存表",
        "品名 | 数量 | 入库",
        "品名：螺栓；数量：1200；入库：2026-05-01",
        "联系人",
        "仓库：张三",
        "门卫：李四",
    ]


def test_numbers_as_excel_shows_them() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["项目", "占比", "单价"], ["甲", 0.125, 0.1 + 0.2], ["乙", 1, True]):
        sheet.append(row)
    sheet["B2"].number_format = "0.0%"
    buffer = io.BytesIO()
    book.save(buffer)
    assert lines(parse(buffer.getvalue(), "a.xlsx"))[1:] == [
        "项目：甲；占比：12.5%；单价：0.3",
        "项目：乙；占比：1；单价：是",
    ]


def saved(book: Any) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_sparse_rows_keep_their_header() -> None:
    data = workbook(
        名单=[
            ["部门", "姓名", "金额"],
            ["第一组", None, None],
            ["甲部", "张三", 120],
            [None, "乙", None],
            [None, None, 80],
        ]
    )
    assert lines(parse(data, "a.xlsx"))[1:] == ["第一组", "部门：甲部；姓名：张三；金额：120", "姓名：乙", "金额：80"]


def test_merged_cells_stand_in_each_of_their_rows() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in (["名单", None, None], [None] * 3, ["部门", "姓名", "电话"], ["甲部", "张三", "1"], [None, "李四", "2"]):
        sheet.append(row)
    sheet.append([None, "王五"])
    sheet.append(["乙部", "赵六", "4"])
    for cells in ("A1:C2", "A4:A6", "C5:C6"):
        sheet.merge_cells(cells)
    assert lines(parse(saved(book), "a.xlsx")) == [
        "名单",
        "部门 | 姓名 | 电话",
        "部门：甲部；姓名：张三；电话：1",
        "部门：甲部；姓名：李四；电话：2",
        "部门：甲部；姓名：王五；电话：2",
        "部门：乙部；姓名：赵六；电话：4",
    ]


def test_what_a_workbook_does_not_show_is_told() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in (["项目", "数量"], ["甲", 1], ["乙", 2], ["合计", "=SUM(B2:B3)"]):
        sheet.append(row)
    book.create_sheet("底稿").append(["看不见"])
    book.create_sheet("参数").append(["也看不见"])
    book["底稿"].sheet_state, book["参数"].sheet_state = "hidden", "veryHidden"
    parsed = parse(saved(book), "a.xlsx")
    assert lines(parsed) == ["项目：数量", "甲：1", "乙：2", "合计"]
    assert parsed.fidelity["formulas_without_value"] == 1
    assert parsed.fidelity["hidden_sheets_left_out"] == ["底稿", "参数"]
    assert "formulas_without_value" not in parse(workbook(甲=[["x"]]), "a.xlsx").fidelity
    with pytest.raises(NoText, match="formulas without values"):
        parse(workbook(甲=[["=1+1"]]), "a.xlsx")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
def test_csv(separator: str, encoding: str) -> None:
    rows = [["城市", "备注"], ["北京", '"总部在此，首期"'], ["上海", "二期"]]
    source = "\r\n".join(separator.join(row) for row in rows)
    parsed = parse(source.encode(encoding), "城市.csv")
    assert lines(parsed) == ["城市 | 备注", "城市：北京；备注：总部在此，首期", "城市：上海；备注：二期"]
    assert parsed.title == "城市"


# -- slides ----------------------------------------------------------------------------------------


def test_slides_are_pages() -> None:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[5])
    first.shapes.title.text = "年度计划"
    below = first.shapes.add_textbox(Inches(1), Inches(5), Inches(4), Inches(1))
    below.text_frame.text = "下面的话。"
    above = first.shapes.add_textbox(Inches(1), Inches(2), Inches(4), Inches(1))
    above.text_frame.text = "上面的话。"
    first.notes_slide.notes_text_frame.text = "讲两分钟"
    second = deck.slides.add_slide(deck.slide_layouts[5])
    second.shapes.title.text = "预算"
    table = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(6), Inches(2)).table
    for (i, j), text in {(0, 0): "科目", (0, 1): "金额", (1, 0): "差旅", (1, 1): "三万元"}.items():
        table.cell(i, j).text = text
    buffer = io.BytesIO()
    deck.save(buffer)
    parsed = parse(buffer.getvalue(), "a.pptx")
    assert parsed.title == "年度计划"
    assert lines(parsed) == [
        "年度计划",
        "上面的话。",
        "下面的话。",
        "备注：讲两分钟",
        "预算",
        "科目 | 金额",
        "科目：差旅；金额：三万元",
    ]
    assert parsed.page_at(parsed.text.index("讲两分钟")) == 1
    assert parsed.page_at(parsed.text.index("预算")) == 2


def slide(draw: Callable[[Any], object]) -> Parsed:
    from pptx import Presentation

    deck = Presentation()
    draw(deck.slides.add_slide(deck.slide_layouts[6]).shapes)
    return parse(saved(deck), "a.pptx")


def test_line_breaks_on_slides() -> None:
    def draw(shapes: Any) -> None:
        paragraph = shapes.add_textbox(0, 0, 9, 9).text_frame.paragraphs[0]
        for i, text in enumerate(("一、适用范围", "二、", "违约责任")):
            if i == 1:
                paragraph.add_line_break()
            paragraph.add_run().text = text

    assert lines(slide(draw)) == ["一、适用范围", "二、违约责任"]


def test_charts_are_tables() -> None:
    from pptx.chart.data import CategoryChartData, XyChartData
    from pptx.enum.chart import XL_CHART_TYPE

    def draw(shapes: Any) -> None:
        data = CategoryChartData()
        data.categories = ["一季度", "二季度"]
        data.add_series("销售额", (120, 135.5))
        data.add_series("成本", (80, None))
        chart = shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 9, 9, data).chart
        chart.chart_title.text_frame.text = "上半年（万元）"
        points = XyChartData()
        points.add_series("点").add_data_point(1, 2)
        shapes.add_chart(XL_CHART_TYPE.XY_SCATTER, 0, 50, 9, 9, points)

    parsed = slide(draw)
    assert lines(parsed) == [
        "上半年（万元）",
        "销售额 | 成本",
        "一季度；销售额：120；成本：80",
        "二季度；销售额：135.5",
    ]
    assert parsed.fidelity["charts_without_figures"] == 1


def test_categories_of_charts() -> None:
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    days, places = CategoryChartData(), CategoryChartData()
    days.categories = [datetime.date(2026, 1, 31)]
    places.add_category("华东").add_sub_category("上海")

    def draw(shapes: Any) -> None:
        for top, data in enumerate((days, places)):
            data.add_series("销量", (3,))
            shapes.add_chart(XL_CHART_TYPE.LINE, 0, top, 9, 9, data)

    assert lines(slide(draw)) == ["销量", "2026-01-31；销量：3", "销量", "华东 上海；销量：3"]


def test_merged_cells_on_slides() -> None:
    def draw(shapes: Any) -> None:
        table = shapes.add_table(3, 2, 0, 0, 9, 9).table
        for i, row in enumerate((["部门", "姓名"], ["甲部", "张三"], ["", "李四"])):
            for j, text in enumerate(row):
                table.cell(i, j).text = text
        table.cell(1, 0).merge(table.cell(2, 0))

    assert lines(slide(draw)) == ["部门 | 姓名", "部门：甲部；姓名：张三", "部门：甲部；姓名：李四"]


# -- books and mail --------------------------------------------------------------------------------

CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/b.opf"/></rootfiles></container>"""
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>修理手册</dc:title></metadata>
<manifest><item id="a" href="%E4%B8%80.xhtml"/><item id="b" href="b.xhtml"/></manifest>
<spine><itemref idref="b"/><itemref idref="a"/></spine></package>"""


def book(**extra: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/b.opf", PACKAGE)
        archive.writestr("OEBPS/一.xhtml", "<html><body><h1>后一章</h1><p>换灯泡。</p></body></html>")
        archive.writestr("OEBPS/b.xhtml", "<html><body><h1>前一章</h1><p>先断电。</p></body></html>")
        for name, text in extra.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_book_in_the_order_of_its_spine() -> None:
    parsed = parse(book(), "a.epub")
    assert parsed.title == "修理手册"
    assert lines(parsed) == ["前一章", "先断电。", "后一章", "换灯泡。"]


def test_protected_and_broken_books() -> None:
    with pytest.raises(EncryptedFile):
        parse(book(**{"META-INF/rights.xml": "<x/>"}), "a.epub")
    with pytest.raises(DamagedFile):
        parse(workbook(甲=[["x"]]), "a.epub")


def test_xml_entities_are_not_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("机密", encoding="utf-8")
    evil = f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>' + PACKAGE.replace("修理手册", "&e;")
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book())) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, evil if name.endswith(".opf") else old.read(name))
    parsed = parse(buffer.getvalue(), "a.epub")
    assert "机密" not in parsed.title + parsed.text


def test_mail_with_attachments() -> None:
    message = EmailMessage()
    message["Subject"] = "关于停水的通知"
    message["From"] = "物业 <wuye@example.org>"
    message["To"] = "all@example.org"
    message.set_content("明日九点至十二点停水。\n请各户储水。", charset="gb2312")
    message.add_alternative("<p>同文</p>", subtype="html")
    message.add_attachment("# 附表\n\n一号楼先停。".encode(), maintype="text", subtype="markdown", filename="附表.md")
    message.add_attachment(b"\x89PNG....", maintype="image", subtype="png", filename="图.png")
    parsed = parse(message.as_bytes(), "a.eml")
    assert parsed.title == "关于停水的通知"
    assert lines(parsed) == [
        "关于停水的通知",
        "发件人：物业 <wuye@example.org>",
        "收件人：all@example.org",
        "明日九点至十二点停水。",
        "请各户储水。",
        "附件：附表.md",
        "附表",
        "一号楼先停。",
    ]
    assert [note.split(":")[0] for note in parsed.fidelity["attachments_without_text"]] == ["图.png"]


def test_mail_with_bare_gbk_in_its_headers() -> None:
    source = (
        "Subject: 关于停水的通知\r\nFrom: 物业 <wuye@example.org>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/mixed; boundary=X\r\n\r\n--X\r\nContent-Type: text/plain; charset=gb2312\r\n\r\n"
        "明日停水。\r\n--X\r\nContent-Type: text/plain\r\n"
        'Content-Disposition: attachment;\r\n filename="附表.txt"\r\n\r\n一号楼先停。\r\n--X--\r\n'
    )
    parsed = parse(source.encode("gbk"), "a.eml")
    assert lines(parsed) == [
        "关于停水的通知",
        "发件人：物业 <wuye@example.org>",
        "明日停水。",
        "附件：附表.txt",
        "一号楼先停。",
    ]


def test_mail_within_mail() -> None:
    inner = EmailMessage()
    inner["Subject"] = "原来的信"
    inner.set_content("里面的话。")
    inner.add_attachment("深处的话。".encode(), maintype="text", subtype="plain", filename="深.TXT")
    outer = EmailMessage()
    outer["Subject"] = "转发"
    outer.set_content("<p>外面的话。</p>", subtype="html")
    outer.add_attachment(inner)
    assert lines(parse(outer.as_bytes(), "a.eml")) == [
        "转发",
        "外面的话。",
        "附件：原来的信.eml",
        "原来的信",
        "里面的话。",
        "附件：深.TXT",
        "深处的话。",
    ]


def mail(*parts: str, kind: str = "mixed") -> bytes:
    """A message of the parts (header lines, blank line, text)."""
    return (f"Subject: s\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=O\n\n" + bound(*parts)).encode()


def bound(*parts: str, by: str = "O") -> str:
    return "".join(f"--{by}\n{part}\n" for part in parts) + f"--{by}--\n"


def part(kind: str, text: str, name: str = "") -> str:
    disposition = f'Content-Disposition: attachment; filename="{name}"\n' if name else ""
    return f"Content-Type: {kind}; charset=utf-8\n{disposition}\n{text}\n"


def test_mail_whose_attachment_is_within_an_alternative() -> None:
    inner = "Content-Type: multipart/mixed; boundary=I\n\n" + bound(
        part("text/html", "<p>正文，见附件。</p>"),
        part("text/plain", "附件的话。", "附.txt"),
        part("text/calendar", "BEGIN:VCALENDAR"),
        by="I",
    )
    parsed = parse(mail(part("text/plain", "正文，见附件。"), inner, kind="alternative"), "a.eml")
    assert lines(parsed) == ["s", "正文，见附件。", "附件：附.txt", "附件的话。"]
    (left,) = parsed.fidelity["alternatives_left_out"]
    assert left.startswith("multipart/mixed: 7 characters")
    (note,) = parsed.fidelity["attachments_without_text"]
    assert note.startswith("未命名.ics: .ics files are not supported")


@pytest.mark.parametrize("plain", [" \n", "请用网页方式查看。"])
def test_mail_whose_plain_text_says_nothing(plain: str) -> None:
    page = part("text/html", "<p>违约金为合同总价的百分之五，自逾期之日起计算。</p>")
    parsed = parse(mail(part("text/plain", plain), page, kind="alternative"), "a.eml")
    assert lines(parsed) == ["s", "违约金为合同总价的百分之五，自逾期之日起计算。"]


def test_mail_of_several_texts() -> None:
    parts = part("text/plain", "其一。"), part("text/plain", "其二。"), part("text/html", "<p>其三。</p>")
    assert lines(parse(mail(*parts), "a.eml")) == ["s", "其一。", "其二。", "其三。"]


def test_mail_that_is_nothing_but_a_file() -> None:
    source = "Subject: s\n" + part("text/csv", "城市,区号\n北京,010\n上海,021", "区号.csv")
    assert lines(parse(source.encode(), "a.eml"))[:2] == ["s", "附件：区号.csv"]
    assert "城市：北京；区号：010" in parse(source.encode(), "a.eml").text


def test_mail_without_the_boundary_that_it_speaks_of() -> None:
    source = "Subject: s\nMIME-Version: 1.0\nContent-Type: multipart/mixed\n\n正文还在。\n"
    assert lines(parse(source.encode(), "a.eml")) == ["s", "正文还在。"]


@pytest.mark.parametrize("attached", ["message", "a.eml", "A.EML"])
def test_mail_within_mail_to_a_depth(attached: str) -> None:
    message = EmailMessage()
    message["Subject"] = "第9封"
    message.set_content("第9层。")
    for level in range(8, -1, -1):
        outer = EmailMessage()
        outer["Subject"] = f"第{level}封"
        outer.set_content(f"第{level}层。")
        if attached == "message":
            outer.add_attachment(message)
        else:
            outer.add_attachment(message.as_bytes(), maintype="application", subtype="x", filename=attached)
        message = outer
    parsed = parse(message.as_bytes(), "a.eml")
    assert [level for level in range(10) if f"第{level}层。" in parsed.text] == [0, 1, 2, 3]
    (note,) = parsed.fidelity["attachments_without_text"]
    assert "messages within messages are read 3 deep" in note


def packed(**files: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_zip(data: bytes) -> bytes:
    message = EmailMessage()
    message["Subject"] = "s"
    message.set_content("正文。")
    message.add_attachment(data, maintype="application", subtype="zip", filename="资料.ZIP")
    return message.as_bytes()


def test_archives_in_mail_are_opened() -> None:
    deep = mail(part("text/plain", "信里的话。"), part("application/x", "?", "x.mp4"))
    data = with_zip(packed(**{"a.txt": "甲。", "b.eml": deep, "内.zip": packed(**{"c.md": "# 丙"}), "d.mp4": "?"}))
    parsed = parse(data, "a.eml")
    assert lines(parsed) == [
        "s",
        "正文。",
        "附件：资料.ZIP!/a.txt",
        "甲。",
        "附件：资料.ZIP!/b.eml",
        "s",
        "信里的话。",
        "附件：资料.ZIP!/内.zip!/c.md",
        "丙",
    ]
    notes = [note.split(":")[0] for note in parsed.fidelity["attachments_without_text"]]
    assert notes == ["资料.ZIP!/b.eml!/x.mp4", "资料.ZIP!/d.mp4"]


def test_archives_in_mail_keep_to_the_limits() -> None:
    with applied(Limits(max_archive_files=4)):
        parsed = parse(with_zip(packed(**{f"{i}.txt": "甲。" for i in range(5)})), "a.eml")
    assert lines(parsed) == ["s", "正文。"]
    assert "CHATGGLM_MAX_ARCHIVE_FILES" in parsed.fidelity["attachments_without_text"][0]
    broken = parse(with_zip(b"PK\x03\x04 not really"), "a.eml")
    assert "damaged" in broken.fidelity["attachments_without_text"][0]


def test_many_unreadable_attachments_are_counted() -> None:
    parsed = parse(with_zip(packed(**{f"{i}.mp4": "?" for i in range(203)})), "a.eml")
    assert (len(parsed.fidelity["attachments_without_text"]), parsed.fidelity["more_without_text"]) == (200, 3)


def test_what_is_said_of_attachments() -> None:
    message = EmailMessage()
    message["Subject"] = "s"
    message.set_content("正文。")
    message.add_attachment("甲。".encode("gbk"), maintype="text", subtype="plain", filename="甲.txt")
    message.add_attachment(workbook(空=[]), maintype="application", subtype="x", filename="空.xlsx")
    parsed = parse(message.as_bytes(), "a.eml")
    assert [(one["name"], one["encoding"]) for one in parsed.fidelity["attachments"]] == [("甲.txt", "gb18030")]
    assert parsed.fidelity["attachments_without_text"] == ["空.xlsx: the file holds no text"]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xlsx", "a.pptx", "a.epub"])
@pytest.mark.parametrize("data", [b"not what it says", b"PK\x03\x04 broken"])
def test_damaged(name: str, data: bytes) -> None:
    with pytest.raises(DamagedFile):
        parse(data, name)


@pytest.mark.parametrize("name", ["a.xlsx", "a.pptx", "a.docx"])
def test_another_kind_of_archive(name: str) -> None:
    with pytest.raises(DamagedFile):
        parse(book(), name)


def test_a_zip_bomb_is_refused_before_it_expands() -> None:
    with applied(Limits(max_document_mb=1)), pytest.raises(TooLarge, match="CHATGGLM_MAX_DOCUMENT_MB"):
        parse(book(big="0" * (2 << 20)), "a.epub")


def test_nothing_to_read() -> None:
    with pytest.raises(EmptyFile):
        parse(workbook(甲=[]), "a.xlsx")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["book.epub", "slides.pptx"])
def test_no_character_is_lost(samples: Path, name: str) -> None:
    truth = (samples / "truth.txt").read_text(encoding="utf-8")
    assert set(truth.split("\n")) <= set(lines(parse(samples / name)))


@pytest.mark.shared
def test_sample_table(samples: Path) -> None:
    assert "城市：北京；人口（万）：2184" in parse(samples / "table.xlsx").text
