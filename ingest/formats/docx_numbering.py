"""Automatic numbers of Word paragraphs (第一条, 1.2, （三）…), which stand nowhere in the text."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DIGITS = "零一二三四五六七八九"
_FORMAL = "零壹贰叁肆伍陆柒捌玖"


class Numbering:
    """Counts as the paragraphs pass, in document order."""

    def __init__(self, document: Any) -> None:
        self._levels: dict[str, dict[int, tuple[str, str, int]]] = {}
        self._abstract_of: dict[str, str] = {}
        self._starts: dict[tuple[str, int], int] = {}
        self._style_numbers: dict[str, tuple[str, int]] = {}
        self._counts: dict[str, dict[int, int]] = defaultdict(dict)
        try:
            root = document.part.numbering_part.element
        except (KeyError, NotImplementedError, AttributeError):
            return
        for abstract in root.iter(f"{_W}abstractNum"):
            levels = {}
            for level in abstract.iter(f"{_W}lvl"):
                index = int(level.get(f"{_W}ilvl", "0"))
                levels[index] = (
                    _value(level, "numFmt", "decimal"),
                    _value(level, "lvlText", ""),
                    int(_value(level, "start", "1")),
                )
                if style := _value(level, "pStyle", ""):
                    self._style_numbers[style] = (f"abstract:{abstract.get(f'{_W}abstractNumId')}", index)
            self._levels[abstract.get(f"{_W}abstractNumId")] = levels
        for number in root.iter(f"{_W}num"):
            key = number.get(f"{_W}numId")
            self._abstract_of[key] = _value(number, "abstractNumId", "")
            for override in number.iter(f"{_W}lvlOverride"):
                if start := _value(override, "startOverride", ""):
                    self._starts[key, int(override.get(f"{_W}ilvl", "0"))] = int(start)
        for style in document.styles.element.iter(f"{_W}style"):
            reference = style.find(f"{_W}pPr/{_W}numPr")
            if reference is not None and (key := _value(reference, "numId", "")):
                level = int(_value(reference, "ilvl", "0"))
                known = self._style_numbers.get(style.get(f"{_W}styleId"))
                self._style_numbers[style.get(f"{_W}styleId")] = (key, known[1] if known else level)

    def label(self, paragraph: Any, style: str) -> str:
        """The number in front of this paragraph, with a space behind it; empty without one."""
        reference = paragraph.find(f"{_W}pPr/{_W}numPr")
        if reference is not None:
            key, level = _value(reference, "numId", "0"), int(_value(reference, "ilvl", "0"))
        elif style in self._style_numbers:
            key, level = self._style_numbers[style]
        else:
            return ""
        abstract = key.removeprefix("abstract:") if key.startswith("abstract:") else self._abstract_of.get(key, "")
        levels = self._levels.get(abstract, {})
        if key == "0" or level not in levels:
            return ""
        counts = self._counts[abstract]
        start = self._starts.pop((key, level), None)
        counts[level] = start if start is not None else counts.get(level, levels[level][2] - 1) + 1
        for deeper in [d for d in counts if d > level]:
            del counts[deeper]
        form, pattern, _ = levels[level]
        if form in ("bullet", "none"):
            return "- " if form == "bullet" and pattern else ""
        label = re.sub(
            "%([1-9])",
            lambda m: _format(
                counts.get(int(m[1]) - 1, levels.get(int(m[1]) - 1, ("", "", 1))[2]),
                levels.get(int(m[1]) - 1, (form, "", 1))[0],
            ),
            pattern,
        ).strip()
        return label + ("" if not label or label[-1] in "、）)．：" else " ")


def _value(element: Any, name: str, default: str) -> str:
    child = element.find(f"{_W}{name}")
    return default if child is None else child.get(f"{_W}val", default)


def _format(number: int, form: str) -> str:
    if form.startswith(("chineseCounting", "ideographDigital", "taiwaneseCounting", "japaneseCounting")):
        return chinese(number)
    if form.startswith("chineseLegal"):
        return chinese(number, _FORMAL, "拾佰仟")
    if form in ("lowerLetter", "upperLetter"):
        letter = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letter.upper() if form == "upperLetter" else letter
    if form in ("lowerRoman", "upperRoman"):
        roman = _roman(number)
        return roman if form == "upperRoman" else roman.lower()
    if form.startswith("decimalEnclosedCircle") and 1 <= number <= 20:
        return chr(0x2460 + number - 1)
    return f"{number:02d}" if form == "decimalZero" else str(number)


def chinese(number: int, digits: str = _DIGITS, units: str = "十百千") -> str:
    """1…9999 in Chinese numerals: 12 → 十二, 105 → 一百零五."""
    if not 0 < number < 10_000:
        return str(number)
    text, zero = "", False
    for power in (3, 2, 1, 0):
        digit = number // 10**power % 10
        if digit:
            text += ("零" if zero and text else "") + digits[digit] + (units[power - 1] if power else "")
            zero = False
        else:
            zero = True
    return text[1:] if text.startswith("一十") else text


def _roman(number: int) -> str:
    text = ""
    for value, mark in (
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ):
        text += mark * (number // value)
        number %= value
    return text
