from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.summary import extract, sentences

POINT = "净水器的滤芯每六个月要更换一次，更换滤芯时先关闭进水阀。"
FILLER = ["天气很好，大家都出去散步了。", "他买了两本书和一支钢笔。", "山上的花开得很早。", "昨天晚上下了一点小雨。"]
TALK = [
    "更换滤芯前请准备好新的滤芯。", "关闭进水阀可以防止漏水。", "滤芯不更换会影响净水器的水质。",
    "新的滤芯要每六个月检查一次。", "进水阀在净水器的左侧。",
]  # fmt: skip


@given(st.text("甲乙丙，。！？；\n ”」a1", max_size=80))
def test_sentences_are_the_whole_text(text: str) -> None:
    assert "".join(text[a:b] for a, b in sentences(text)) == text


@given(st.text("甲乙丙丁戊己庚辛。！\n# |，", max_size=300), st.integers(1, 4))
def test_every_sentence_is_quoted_from_the_text(text: str, count: int) -> None:
    made = extract(text, count)
    copied = [p for p in made if p.origin is not None]
    assert len(copied) <= count
    assert [p.text for p in made if p.origin is None] == ["\n"] * (len(made) - len(copied))
    for piece in copied:
        assert piece.origin is not None
        assert text[piece.origin.start : piece.origin.end] == piece.text
        assert piece.text == piece.text.strip()
    ends = [(p.origin.start, p.origin.end) for p in copied if p.origin]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))
    assert bool(copied) == bool(text.strip())


def test_the_central_sentence_is_found_wherever_it_stands() -> None:
    for text in ([*FILLER[:2], POINT, *TALK, *FILLER[2:]], TALK + FILLER + [POINT]):
        (piece,) = extract("".join(text), 1, lead=0.0)
        assert piece.text == POINT


def test_a_repeated_sentence_is_taken_once() -> None:
    made = extract((POINT + "\n") * 5 + "\n".join(TALK), 2, lead=0.0)
    assert [p.text for p in made if p.origin].count(POINT) == 1


def test_length_limits_hold() -> None:
    text = "".join(TALK * 40)
    assert len("".join(p.text for p in extract(text, 10, max_chars=60))) <= 60
    assert len([p for p in extract(text) if p.origin]) <= 3


@pytest.mark.parametrize("text", ["", "   ", "\n\n", "短", "# 标题", "1. 2. 3."])
def test_texts_without_sentences(text: str) -> None:
    assert "".join(p.text for p in extract(text)) == text.strip()
