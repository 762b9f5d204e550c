"""Text to search terms: what must find what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gglm.text import traditional_to_simplified
from rag.index.terms import BIGRAM_SHIFT, WORD_BIT, normal_form, numeral_value, numerals, term_keys, word_key, words

HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), max_size=30)
MIXED = st.text(st.sampled_from("中国人民銀行二〇四十万年第条%．，。 \n\tabcXYZ０１29-_./:@+#é🙂𠀀한カ"), max_size=40)


def shared(a: str, b: str) -> set[int]:
    return set(term_keys(a).tolist()) & set(term_keys(b).tolist())


def reference(text: str) -> list[int]:
    """The definition, one character at a time."""
    text = whole = normal_form(text)

    def spaceless(char: str) -> bool:
        code = ord(char)
        ranges = [(0x3005, 0x3007), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x30FC, 0x30FC), (0x3105, 0x312F)]
        ranges += [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0x20000, 0x323AF)]
        return any(first <= code <= last for first, last in ranges)

    for start, end, _ in numerals(text):
        text = text[:start] + " " * (end - start) + text[end:]
    keys = [ord(char) for char in text if spaceless(char)]
    pairs = itertools.pairwise(text)
    keys += [ord(a) << BIGRAM_SHIFT | ord(b) for a, b in pairs if spaceless(a) and spaceless(b)]
    return sorted(keys + [word_key(word) for word in words(whole)])


@given(st.one_of(HAN, MIXED, st.text(max_size=30)))
def test_the_fast_path_gives_the_defined_terms(text: str) -> None:
    assert sorted(term_keys(text).tolist()) == reference(text)


@given(st.text(max_size=60))
def test_any_text_has_terms_and_normalising_again_changes_nothing(text: str) -> None:
    keys = term_keys(text)
    assert keys.dtype == np.uint64
    if normal_form(normal_form(text)) == normal_form(text):  # not so for a few letters, İ for one
        assert np.array_equal(np.sort(term_keys(normal_form(text))), np.sort(keys))


@given(HAN, st.text(st.characters(categories=["Ll", "Nd"], max_codepoint=0x24F), min_size=1))
def test_han_terms_and_words_cannot_collide(han: str, word: str) -> None:
    assert all(key < WORD_BIT for key in reference(han) if key not in {word_key(w) for w in words(han)})
    assert word_key(word) >= WORD_BIT


@given(st.lists(st.sampled_from(sorted(traditional_to_simplified().items())), min_size=1, max_size=20))
def test_traditional_finds_simplified(pairs: list[tuple[str, str]]) -> None:
    traditional = "".join(t for t, _ in pairs)
    simplified = "".join(s for _, s in pairs)
    assert np.array_equal(np.sort(term_keys(traditional)), np.sort(term_keys(simplified)))


@given(st.text(st.sampled_from("abcXYZ0129-_./:@+#% "), max_size=30))
def test_full_width_finds_half_width(text: str) -> None:
    wide = "".join(chr(ord(c) + 0xFEE0) if c != " " else "\u3000" for c in text)
    assert np.array_equal(np.sort(term_keys(wide)), np.sort(term_keys(text)))


@given(st.text(st.characters(max_codepoint=0x24F), max_size=30))
def test_case_does_not_matter(text: str) -> None:
    if text.upper().lower() == text.lower():
        assert np.array_equal(np.sort(term_keys(text.upper())), np.sort(term_keys(text.lower())))


@given(st.integers(0, 10**12 - 1))
def test_every_number_is_read_back_from_chinese_numerals(number: int) -> None:
    assert numeral_value(chinese(number)) == str(number)


@given(st.integers(1000, 2999))
def test_years_are_found_in_either_writing(year: int) -> None:
    digits = "".join("〇一二三四五六七八九"[int(d)] for d in str(year))
    assert {word_key(str(year)), word_key(f"{year}年")} <= shared(f"{digits}年", f"{year}年")


def chinese(number: int) -> str:
    """A number below 10^12 in Chinese numerals, as people write it."""
    digits = "零一二三四五六七八九"
    if number == 0:
        return "零"

    def group(value: int) -> str:
        out, skipped = "", False
        for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
            digit = value // unit % 10
            if digit:
                out += ("零" if skipped and out else "") + digits[digit] + name
                skipped = False
            else:
                skipped = True
        return out

    parts = []
    for unit, name in ((10**8, "亿"), (10**4, "万"), (1, "")):
        value, number = divmod(number, unit)
        if value:
            parts.append(("零" if parts and value < 1000 else "") + group(value) + name)
    return "".join(parts)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SN-2024-A", "型号 SN-2024-A 的保修"),
        ("sn2024a", "型号 SN-2024-A 的保修"),
        ("SN 2024 A", "sn-2024-a"),
        ("第12条", "第十二条　甲方应当"),
        ("第三条", "第3条"),
        ("3.5万元", "35000元"),
        ("三万五千元", "35,000 元"),
        ("5%", "百分之五"),
        ("１２％", "12%"),
        ("2024年1月2日", "2024-01-02"),
        ("伍佰元", "500元"),
        ("gb/t 19001", "GB/T 19001-2016"),
        ("2.4GHz", "2.4 ghz"),
        ("C++", "c++语言"),
        ("iPhone 15", "iPhone15"),
        ("⽣产", "生产"),  # a Kangxi radical, as PDFs have it
    ],
)
def test_is_found_by(query: str, text: str) -> None:
    found = shared(query, text)
    specific = {key for key in found if key >= WORD_BIT or key >= 1 << BIGRAM_SHIFT}
    assert specific or found >= set(term_keys(normal_form(query)).tolist()), words(query)


@pytest.mark.parametrize(("text", "expected"), [
    ("SN-2024-A", {"sn", "2024", "a", "sn2024a"}),
    ("1,234,567.8", {"1234567.8"}),
    ("C#", {"c", "c#"}),
    ("user_name@example.com", {"user", "name", "example", "com", "usernameexamplecom"}),
    ("统一思想，万一十分三思", set()),
    ("两亿三千万", {"230000000"}),
    ("二〇二四年", {"2024", "2024年"}),
    ("", set()),
    ("，。！？…—", set()),
])  # fmt: skip
def test_words(text: str, expected: set[str]) -> None:
    assert set(words(text)) == expected


def test_bigrams_do_not_cross_gaps() -> None:
    pair = ord("中") << BIGRAM_SHIFT | ord("国")
    assert pair in term_keys("中国")
    for gap in (" ", "\n", "，", "a", "1"):
        assert pair not in term_keys(f"中{gap}国")


@pytest.mark.parametrize("numeral", ["万", "一二百", "百千", "亿万"])
def test_what_is_no_number_is_none(numeral: str) -> None:
    assert numeral_value(numeral) is None
