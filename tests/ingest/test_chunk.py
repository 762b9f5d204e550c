from __future__ import annotations

import time
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.canonical import Draft, canonicalise, clean
from ingest.chunk import MAXIMUM, TARGET, Sizes, chunk
from ingest.errors import EmptyFile, SourceError
from ingest.formats import parse
from ingest.sentences import sentences
from ingest.tokens import count
from ingest.types import ChunkSpan, Parsed

SENTENCE = "本条所称的档案，是指各部门在工作中形成的、对单位有保存价值的文字、图表和声像记录。"


def document(source: str, name: str = "a.md") -> tuple[Parsed, list[ChunkSpan], list[str]]:
    parsed = parse(source.encode(), name)
    spans = chunk(parsed)
    return parsed, spans, [parsed.text[span.char_start : span.char_end] for span in spans]


def check(parsed: Parsed, spans: list[ChunkSpan], maximum: int = MAXIMUM) -> None:
    """What holds for every document: in order, apart, within the size, and nothing left out."""
    position = 0
    size = Sizes(parsed.text)
    for span in spans:
        assert position <= span.char_start < span.char_end <= len(parsed.text)
        assert size.of(span.char_start, span.char_end) <= maximum
        assert not parsed.text[position : span.char_start].strip()
        text = parsed.text[span.char_start : span.char_end]
        assert text == text.strip()
        assert len(span.heading) <= 500
        assert span.page == parsed.page_at(span.char_start)
        position = span.char_end
    assert not parsed.text[position:].strip()


# -- properties ------------------------------------------------------------------------------------

NASTY = st.sampled_from(
    [
        *'。！？；，：“”「」（）《》".!|',
        *("3.14", "第三条 ", "一、", "（二）", "# ", "问：", "答：", "- ", "1. ", "```", "<b>", "……", "| 甲 | 乙 |"),
        *("\n", "\r\n", "\r", "\n\n", "\f", "\0", "\x07", "\t", "\u3000", "\u00a0", "\ufeff", "\u200d"),
        *("\ud800", "\udfff", "𠮷", "é", "e\u0301", "👨\u200d👩\u200d👧", "⼀", "⻚"),
        *("字" * 300, "word " * 40, "a" * 600),
    ]
)


@given(st.lists(NASTY | st.text(max_size=40), max_size=60).map("".join), st.sampled_from(["a.txt", "a.md"]))
@settings(max_examples=300, deadline=None)
def test_chunks_cover_every_character_in_order(source: str, name: str) -> None:
    try:
        parsed = parse(source.encode("utf-8", "surrogatepass"), name)
    except SourceError:
        return
    check(parsed, chunk(parsed))


@given(st.lists(NASTY | st.text(max_size=40), max_size=60).map("".join), st.integers(20, 200), st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_any_sizes(source: str, target: int, more: int) -> None:
    draft = Draft("text/plain")
    draft.text(source)
    try:
        parsed = canonicalise(draft, "a")
    except EmptyFile:
        assert not clean(source).replace("\f", "").strip()
        return
    check(parsed, chunk(parsed, target, target + more), target + more)


@given(st.lists(NASTY | st.text(max_size=40), max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_canonical_text(source: str) -> None:
    draft = Draft("text/plain", title=source)
    draft.text(source)
    try:
        parsed = canonicalise(draft, "a")
    except EmptyFile:
        return
    text = parsed.text
    text.encode("utf-8")
    assert "\0" not in text
    assert "\r" not in text
    assert "\f" not in text
    assert text == unicodedata.normalize("NFC", text) or any("\u2e80" <= c <= "\u2fd5" for c in source)
    assert not any(unicodedata.category(char) in ("Cs", "Cc") and char != "\n" for char in text)
    assert not any("\u2f00" <= char <= "\u2fd5" for char in text)
    assert len(parsed.title) <= 200
    assert "\n" not in parsed.title
    for before, block in zip(parsed.blocks, parsed.blocks[1:], strict=False):
        assert before.end <= block.start


@given(st.text(alphabet="甲乙。！？；，“”「」（）\n .!?a1", max_size=300))
@settings(deadline=None)
def test_sentences_tile_the_text(text: str) -> None:
    position = 0
    for start, end in sentences(text, 0, len(text)):
        assert not text[position:start].strip()
        assert start < end
        position = end
    assert not text[position:].strip()


@given(st.lists(NASTY | st.text(max_size=40), max_size=60).map("".join), st.integers(40, 200), st.data())
@settings(max_examples=150, deadline=None)
def test_overlap_repeats_whole_ends_and_no_more(source: str, target: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(1, target // 2))
    try:
        parsed = parse(source.encode("utf-8", "surrogatepass"), "a.md")
    except SourceError:
        return
    plain = chunk(parsed, target - overlap, target + 50 - overlap)
    spans = chunk(parsed, target, target + 50, overlap)
    size = Sizes(parsed.text)
    assert [span.char_end for span in spans] == [span.char_end for span in plain]
    for before, span, alone in zip([None, *spans], spans, plain, strict=False):
        assert span.char_start <= alone.char_start
        assert size.of(span.char_start, alone.char_start) <= overlap
        assert size.of(span.char_start, span.char_end) <= target + 50
        assert before is None or before.char_start <= span.char_start


def test_overlap_stays_in_its_section() -> None:
    parsed = parse(f"# 制度\n\n## 甲\n\n{SENTENCE * 20}\n\n## 乙\n\n{SENTENCE * 20}".encode(), "a.md")
    spans = chunk(parsed, overlap=100)
    texts = [parsed.text[span.char_start : span.char_end] for span in spans]
    repeated = [parsed.text[b.char_start : a.char_end] for a, b in pairwise(spans)]
    assert sum(text.startswith("乙") for text in texts) == 1
    assert sorted({len(text) // len(SENTENCE) for text in repeated}) == [0, 2]
    assert all(text == SENTENCE * 2 for text in repeated if text)


def test_sizes_are_those_of_the_generators_tokens() -> None:
    _, _, texts = document("The committee shall review the annual report before the end of March. " * 60, "a.txt")
    assert all(len(text) > 2 * MAXIMUM for text in texts[:-1])
    assert all(count(text) <= MAXIMUM + 1 for text in texts)  # a token at the edge may fall apart
    _, _, texts = document("𠮷" * 2000, "a.txt")
    assert all(count(text) <= MAXIMUM for text in texts)


def test_sizes_that_make_no_sense() -> None:
    parsed, _, _ = document("正文。")
    with pytest.raises(ValueError, match="target"):
        chunk(parsed, 500, 400)
    with pytest.raises(ValueError, match="overlap"):
        chunk(parsed, 300, 400, 200)


# -- sentences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天下雨。明天呢？不知道！", ["今天下雨。", "明天呢？", "不知道！"]),
        ("他说：“先走了。晚点回来。”说完出门。再没回来。", ["他说：“先走了。晚点回来。”", "说完出门。", "再没回来。"]),
        ("他说“先走了。晚点再来”，说完出门。", ["他说“先走了。晚点再来”，说完出门。"]),
        ("（注：本表不含税。含税价另计。）以此为准。", ["（注：本表不含税。含税价另计。）", "以此为准。"]),
        ("「到此為止。」他說。", ["「到此為止。」", "他說。"]),
        (
            "版本 3.14 已发布。See Fig. 3 for details. It works.",
            ["版本 3.14 已发布。", "See Fig. 3 for details.", "It works."],
        ),
        ("真的吗？！是的。", ["真的吗？！", "是的。"]),
        ("“没有右引号的一句。后面还有一句。", ["“没有右引号的一句。", "后面还有一句。"]),
        ("访问 http://a.cn/x?y=1&z=2 查看。", ["访问 http://a.cn/x?y=1&z=2 查看。"]),
    ],
)
def test_sentence_ends(text: str, expected: list[str]) -> None:
    found = [text[start:end] for start, end in sentences(text, 0, len(text))]
    assert found == expected


# -- structure -------------------------------------------------------------------------------------


def test_a_short_document_is_one_chunk() -> None:
    _, spans, texts = document("# 通知\n\n" + SENTENCE)
    assert texts == ["通知\n" + SENTENCE]
    assert spans[0].heading == ""


def test_no_sentence_is_cut() -> None:
    parsed, _, texts = document(SENTENCE * 40)
    whole = {parsed.text[start:end] for start, end in sentences(parsed.text, 0, len(parsed.text))}
    assert len(texts) > 3
    assert all({text[start:end] for start, end in sentences(text, 0, len(text))} <= whole for text in texts)
    assert all(len(text) >= TARGET * 0.6 for text in texts[:-1])


def test_long_sections_stand_apart_with_their_heading_path() -> None:
    body = SENTENCE * 7
    parsed, spans, texts = document(
        f"# 制度\n\n## 第一部分\n\n### 范围\n\n{body}\n\n### 职责\n\n{body}\n\n## 第二部分\n\n{body}{body}"
    )
    assert parsed.title == "制度"
    assert [span.heading for span in spans] == ["第一部分 › 范围", "第一部分 › 职责", "第二部分", "第二部分"]
    assert texts[1].startswith("职责\n")


def test_small_sections_share_a_chunk_under_what_they_have_in_common() -> None:
    source = "# 制度\n\n" + "\n\n".join(f"## 第{n}节\n\n{SENTENCE}" for n in "一二三四五六七八九十")
    _, spans, texts = document(source)
    assert 1 < len(texts) < 6
    assert all(span.heading == "" for span in spans)
    assert all("\n第" in text or text.startswith(("第", "制度")) for text in texts)
    assert all(not text.rstrip().endswith("节") for text in texts)  # no heading is left behind


def test_articles_are_kept_whole_and_long_ones_carry_their_number() -> None:
    articles = [f"第{n}条 {SENTENCE * 2}" for n in "一二三四五六"]
    articles[3] = "第四条 " + SENTENCE * 15
    _, spans, texts = document("\n".join(articles), "法规.txt")
    starts = [text.split(" ")[0] for text in texts]
    assert "第四条" in starts
    rest = [span for span, text in zip(spans, texts, strict=True) if not text.startswith("第")]
    assert rest
    assert all(span.heading == "第四条" for span in rest)
    for article in (articles[0], articles[1], articles[5]):
        assert any(article in text for text in texts)


def test_questions_stay_with_their_answers() -> None:
    source = "\n".join(f"问：第{i}项业务怎样办理？\n答：{SENTENCE * 2}" for i in range(12))
    _, _, texts = document(source, "问答.txt")
    assert len(texts) > 2
    assert all(text.startswith("问：") for text in texts)


def test_table_rows_name_their_columns_wherever_they_are_cut() -> None:
    rows = "\n".join(f"| 设备{i} | 第{i}车间 | 每{i}个月由维修班检查一次并登记 |" for i in range(2, 40))
    _, _, texts = document(f"# 台账\n\n| 名称 | 地点 | 保养周期 |\n|---|---|---|\n{rows}")
    assert len(texts) > 3
    for text in texts:
        for line in text.split("\n"):
            assert line in ("台账", "名称 | 地点 | 保养周期") or line.startswith("名称：设备")


def test_literal_tables_carry_their_header() -> None:
    rows = "\n".join(f"| 设备{i} | 第{i}车间 | 每{i}个月由维修班检查一次并登记 |" for i in range(2, 60))
    _, spans, texts = document(f"台账说明如下。\n| 名称 | 地点 | 保养周期 |\n{rows}", "台账.txt")
    assert len(texts) > 3
    assert "| 名称 | 地点 | 保养周期 |\n| 设备2" in texts[0]
    assert all(span.heading == "| 名称 | 地点 | 保养周期 |" for span in spans[1:])


def test_code_is_cut_between_lines() -> None:
    code = "\n".join(f"    value_{i} = compute(value_{i - 1}, option={i})" for i in range(1, 99))
    parsed, spans, texts = document(f"# 用法\n\n```python\n{code}\n```\n")
    assert len(texts) > 3
    check(parsed, spans)
    assert all(line.strip().endswith(")") for text in texts for line in text.split("\n") if line != "用法")


def test_a_sentence_longer_than_the_window_is_cut_at_its_clauses() -> None:
    clause = "凡是列入年度计划并且经过批准的项目"
    parsed, spans, texts = document("，".join([clause] * 80) + "。")
    check(parsed, spans)
    assert all(text.endswith(("，", "。")) for text in texts)


def test_words_and_composed_characters_are_not_parted() -> None:
    _, _, texts = document("supercalifragilistic" * 3 + " " + "internationalization " * 80, "a.txt")
    assert all(word in ("internationalization", "supercalifragilistic" * 3) for text in texts for word in text.split())
    family = "👨\u200d👩\u200d👧"
    parsed, spans, texts = document(family * 300, "a.txt")
    check(parsed, spans)
    assert all(text.count("\u200d") * 5 == len(text) * 2 for text in texts)


def test_pages_of_chunks() -> None:
    _, spans, _ = document("\f".join(SENTENCE * 9 for _ in range(3)), "a.txt")
    assert [span.page for span in spans] == [1, 2, 3]


@pytest.mark.parametrize("unit", ["长", "这是一句完整的话。", "word ", "“", "（", "| a ", "。"])
def test_a_line_of_three_megabytes(unit: str) -> None:
    bounded(unit * (3_000_000 // len(unit.encode())))


@pytest.mark.parametrize("unit", ["a\n", "# a\n", "|a|\n", "第一条\n", "问：a\n"])
def test_a_hundred_thousand_tiny_lines(unit: str) -> None:
    bounded(unit * 100_000)


def bounded(source: str) -> None:
    began = time.process_time()  # other programs must not fail it
    parsed = parse(source.encode(), "a.txt")
    spans = chunk(parsed)
    assert time.process_time() - began < 20
    check(parsed, spans)


@pytest.mark.shared
def test_example_documents(example_documents: object) -> None:
    from pathlib import Path

    assert isinstance(example_documents, Path)
    for path in sorted(example_documents.iterdir()):
        parsed = parse(path)
        spans = chunk(parsed)
        check(parsed, spans)
        assert 1 <= len(spans) <= 3
        assert parsed.title.replace(" ", "").replace("›", "_")[:4] == path.stem.replace(" ", "")[:4]
