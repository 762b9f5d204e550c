"""Text to search terms, without a dictionary: Han characters and bigrams, words, codes, numbers.

A term is a 64-bit key. A Han character is its own code point, a bigram both code points side by
side, so these never collide; a word is a hash with the top bit set (at a million words, two share
a key with probability 5e-8).

Both sides of a search are normalised alike: full/half width and compatibility forms (NFKC),
traditional to simplified, lower case. Beyond that,

- a code is found whole and by parts: SN-2024-A gives sn2024a, sn, 2024, a;
- numbers are found in any writing: 二〇二四年 and 2024年 both give 2024 and 2024年 (and the
  characters 二〇二四 nothing by themselves), 三万五千 and 3.5万 and 35,000 all give 35000,
  2024-01-02 gives 1月 and 2日 too, 百分之五 gives 5%.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from gglm.text import normalize

Keys = npt.NDArray[np.uint64]

WORD_BIT: Final = 1 << 63
BIGRAM_SHIFT: Final = 21
"""Code points need 21 bits."""
_SPACELESS: Final = (  # scripts written without spaces: each character counts, and each pair
    (0x3005, 0x3007),
    (0x3041, 0x3096),
    (0x30A1, 0x30FA),
    (0x30FC, 0x30FC),
    (0x3105, 0x312F),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_WORD = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<percent>%?)(?![-_./:@&'’]?[^\W_])(?![+#])"
    r"|[^\W_]+(?:[-_./:@&'’][^\W_]+)*[+#]{0,2}"
)
_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_MEASURE = re.compile(r"(\d+\.\d+)([^\W\d_]+)")
_PARTS = re.compile(r"\d+|[^\W\d_]+")
_DIGITS: Final = {c: i for row in ("零一二三四五六七八九", "〇壹贰叁肆伍陆柒捌玖") for i, c in enumerate(row)}
_DIGITS["两"] = 2
_UNITS: Final = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_MYRIADS: Final = {"万": 10**4, "亿": 10**8}
_NUMBER_CHARS: Final = "".join((*_DIGITS, *_UNITS, *_MYRIADS))
_COUNTED: Final = "年月日号时周岁条款项章节编篇页卷期级届次个名人位家台件份套批元角万亿倍米克吨升度层楼室"
_NUMERAL = re.compile(  # a lone one only where it clearly counts something
    f"[{_NUMBER_CHARS}]{{2,}}|(?<=第)[{_NUMBER_CHARS}]|(?<=百分之)[{_NUMBER_CHARS}]|[{_NUMBER_CHARS}](?=[{_COUNTED}])"
)


def _table() -> npt.NDArray[np.bool_]:
    table = np.zeros(0x323B1, dtype=bool)  # the last entry stands for all beyond
    for first, last in _SPACELESS:
        table[first : last + 1] = True
    return table


_IS_SPACELESS: Final = _table()


def normal_form(text: str) -> str:
    """The form in which texts are compared."""
    return normalize(unicodedata.normalize("NFKC", text)).lower()


def term_keys(text: str) -> Keys:
    """The keys of all terms of a text, repeated as often as they occur, in no particular order."""
    return term_places(normal_form(text))[0]


def term_places(text: str) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The keys of all terms of a text in normal form, and the offset where each begins."""
    points, han, rest = _points(text)
    found = numerals(text)
    worded = list(_words(text, rest, found))
    words = np.fromiter((word_key(word) for _, word in worded), dtype=np.uint64, count=len(worded))
    for start, end, _ in found:  # else 二〇二三年 would look more like 二〇二四年 than 2024年 does
        han[start:end] = False
    wide = points.astype(np.uint64)
    pairs = han[:-1] & han[1:]
    bigrams = (wide[:-1][pairs] << np.uint64(BIGRAM_SHIFT)) | wide[1:][pairs]
    starts = np.fromiter((start for start, _ in worded), dtype=np.int64, count=len(worded))
    return np.concatenate([wide[han], bigrams, words]), np.concatenate(
        [np.flatnonzero(han), np.flatnonzero(pairs), starts]
    )


def _points(text: str) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_], str]:
    """Code points, which of them need no spaces, and the text with spaces for those."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    han = _IS_SPACELESS[np.minimum(points, len(_IS_SPACELESS) - 1)]
    return points, han, np.where(han, np.uint32(0x20), points).tobytes().decode("utf-32-le")


@lru_cache(maxsize=1 << 17)
def word_key(word: str) -> int:
    """The key of a word, code or number in normal form."""
    return int.from_bytes(blake2b(word.encode("utf-8"), digest_size=8).digest(), "little") | WORD_BIT


def words(text: str) -> list[str]:
    """The terms of a text that are not Han characters or bigrams: words, codes, numbers."""
    text = normal_form(text)
    return [word for _, word in _words(text, _points(text)[2], numerals(text))]


def numerals(text: str) -> list[tuple[int, int, str]]:
    """Start, end and value of the Chinese numerals in a text in normal form."""
    values = ((m.start(), m.end(), numeral_value(m[0])) for m in _NUMERAL.finditer(text))
    return [(start, end, value) for start, end, value in values if value is not None]


def _words(text: str, rest: str, found: list[tuple[int, int, str]]) -> Iterator[tuple[int, str]]:
    """Words and where they begin; ``rest`` is ``text`` with a space for each Han character, ``found`` its numerals."""
    for match in _WORD.finditer(rest):
        after = text[match.end() : match.end() + 1]
        if match["number"]:
            parts = _number(match["number"].replace(",", ""), match["percent"], after)
        else:
            parts = _code(match[0])
        yield from ((match.start(), part) for part in parts)
    for start, end, value in found:
        yield from ((start, part) for part in _numeral(text, start, end, value))


def _number(number: str, percent: str, after: str) -> Iterator[str]:
    yield number
    if percent:
        yield number + "%"
    if after in _MYRIADS and after:
        yield str(_whole(Decimal(number) * _MYRIADS[after]))
    if after and _is_han(after):
        yield number.lstrip("0").zfill(1) + after


def _code(code: str) -> Iterator[str]:
    if measure := _MEASURE.fullmatch(code):  # 2.4ghz
        yield from (code, *measure.groups())
        return
    parts = _PARTS.findall(code)
    if len(parts) > 1:
        yield from parts
        yield ("" if any(part.isalpha() for part in parts) else "-").join(parts)
    elif parts:
        yield parts[0]
    if code[-1] in "+#":
        yield code
    if date := _DATE.fullmatch(code):
        for part, unit in zip(date.groups(), "年月日", strict=True):
            yield part.lstrip("0").zfill(1) + unit


def _numeral(text: str, start: int, end: int, value: str) -> Iterator[str]:
    """Chinese numerals in Arabic digits."""
    yield value
    if text.endswith("百分之", 0, start):
        yield value + "%"
    after = text[end : end + 1]
    if after and _is_han(after):
        yield value + after


def numeral_value(numeral: str) -> str | None:
    """Chinese numerals as Arabic digits: 二〇二四 → 2024, 一百零五 → 105; None where it is no number."""
    if all(char in _DIGITS for char in numeral):
        return "".join(str(_DIGITS[char]) for char in numeral)
    total = section = digit = 0
    pending = False  # a digit that waits for its unit
    last_unit = 10**9
    for char in numeral:
        if char in _DIGITS:
            if pending and digit:
                return None  # two digits in a row, as in 一二百
            digit, pending = _DIGITS[char], True
        elif char in _UNITS:
            unit = _UNITS[char]
            if unit >= last_unit:
                return None
            section += (digit if pending and digit else 1) * unit
            digit, pending, last_unit = 0, False, unit
        else:
            unit = _MYRIADS[char]
            section += digit
            if section == 0 and total == 0:
                return None  # 万 alone, as in 万一
            total = (total + section) * unit if unit == 10**8 else total + section * unit
            section, digit, pending, last_unit = 0, 0, False, 10**9
    return str(total + section + digit)


def _whole(number: Decimal) -> Decimal | int:
    return int(number) if number == int(number) else number.normalize()


def _is_han(char: str) -> bool:
    return bool(_IS_SPACELESS[min(ord(char), len(_IS_SPACELESS) - 1)])
