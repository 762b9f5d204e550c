from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import DamagedFile
from ingest.formats import parse
from ingest.highlights import align, boxes_of, ink, picture_of, stretches

LINE = "本条所称的档案是指各部门在工作中形成的"


def test_boxes_stand_where_the_words_were_drawn(make_pdf: Callable[..., bytes]) -> None:
    first = [("一级标题", 20.0, 72.0, 760.0), (LINE, 12.0, 72.0, 700.0), ("请在十五日内提交申请。", 12.0, 72.0, 680.0)]
    data = make_pdf([first, [("下一页的内容。", 12.0, 72.0, 700.0)]])
    parsed = parse(data, "a.pdf")
    start = parsed.text.index("十五日")
    parts = stretches(parsed.text, parsed.pages, start, start + 3)
    (page,) = boxes_of(data, parts)
    assert page.page == 1
    ((left, top, right, bottom),) = page.boxes
    assert left == pytest.approx(72 + 2 * 12, abs=2)
    assert right == pytest.approx(72 + 5 * 12, abs=2)
    assert top < page.height - 680 < bottom
    assert bottom - top < 20


def test_a_stretch_over_two_pages_has_boxes_on_both(make_pdf: Callable[..., bytes]) -> None:
    data = make_pdf([[LINE] * 2, [LINE[::-1]] * 2])
    parsed = parse(data, "a.pdf")
    first, second = boxes_of(data, stretches(parsed.text, parsed.pages, 0, len(parsed.text)))
    assert (first.page, second.page) == (1, 2)
    assert len(first.boxes) == len(second.boxes) == 2  # one a line


def test_columns_and_repeated_lines(make_pdf: Callable[..., bytes]) -> None:
    data = make_pdf(
        [[("右栏在后", 12.0, 330.0, 700.0), ("左栏在先", 12.0, 72.0, 700.0), ("左栏在先", 12.0, 72.0, 660.0)]]
    )
    parsed = parse(data, "a.pdf")
    start = parsed.text.rindex("左栏在先")
    (page,) = boxes_of(data, stretches(parsed.text, parsed.pages, start, start + 4))
    ((left, top, _, bottom),) = page.boxes
    assert left == pytest.approx(72, abs=2)
    assert top < page.height - 660 < bottom


def test_a_picture_of_the_page_with_the_mark(make_pdf: Callable[..., bytes]) -> None:
    from PIL import Image

    data = make_pdf([[LINE]])
    parsed = parse(data, "a.pdf")
    (part,) = stretches(parsed.text, parsed.pages, 0, 5)
    image = Image.open(io.BytesIO(picture_of(data, part, 1.0)))
    colours = {colour for _, colour in image.getcolors(1 << 20) or ()}
    assert (255, 226, 89) in colours
    assert abs(image.width / image.height - 595 / 842) < 0.3


def test_a_damaged_pdf_costs_its_request_only() -> None:
    with pytest.raises(DamagedFile, match="cannot be read"):
        boxes_of(b"%PDF-1.4 nothing", stretches("文字", (0,), 0, 2))


@given(st.text(max_size=60), st.text(max_size=60), st.permutations(range(4)))
@settings(deadline=None, max_examples=200)
def test_alignment_pairs_equal_characters_once(a: str, b: str, order: list[int]) -> None:
    text = "".join(c for c in a + b)
    quarter = max(1, len(text) // 4)
    parts = [text[i : i + quarter] for i in range(0, len(text), quarter)]
    raw = "".join(parts[i] for i in order if i < len(parts))
    places = align(text, raw)
    used = [place for place in places if place >= 0]
    assert len(used) == len(set(used))
    assert all(place < 0 or text[i] == raw[place] for i, place in enumerate(places))


@given(st.text(max_size=200))
@settings(deadline=None)
def test_the_same_text_is_found_whole(text: str) -> None:
    shown, where = ink(text)
    assert len(shown) == len(where)
    assert align(shown, shown) == list(range(len(shown))) or len(shown) < 2


def test_the_ink_of_radicals_ligatures_and_widths() -> None:
    assert ink("⼀⻚ ﬁ９\u00ad\n")[0] == "一页fi9"
