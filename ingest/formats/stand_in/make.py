"""Makes stand_in.ttf, a font of one box for every character of East Asian writing (needs fonttools).

python ingest/formats/stand_in/make.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib.tables._c_m_a_p import CmapSubtable

RANGES = (
    (0x2000, 0x206F), (0x2100, 0x27BF), (0x2E80, 0x2FDF), (0x3000, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xFAFF), (0xFE30, 0xFE4F), (0xFF00, 0xFFEF), (0x20000, 0x323AF),
)  # fmt: skip
CODE_PAGES = 1 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21
"""Latin, Japanese, simplified Chinese, Korean (two), traditional Chinese: pdfium chooses by these."""


def _box() -> Any:
    pen = TTGlyphPen(None)
    pen.moveTo((50, -80))
    for corner in ((950, -80), (950, 820), (50, 820)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


def main() -> None:
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "box"])
    font.setupGlyf({".notdef": _box(), "box": _box()})
    font.setupHorizontalMetrics({".notdef": (1000, 50), "box": (1000, 50)})
    font.setupHorizontalHeader(ascent=880, descent=-120)
    font.setupCharacterMap({})
    font.setupNameTable({"familyName": "ChatGGLM Stand-in", "styleName": "Regular"})
    font.setupOS2(
        sTypoAscender=880, sTypoDescender=-120, usWinAscent=880, usWinDescent=120, ulCodePageRange1=CODE_PAGES
    )
    font.setupPost()
    table = CmapSubtable.newSubtable(13)  # many characters, one glyph
    table.platformID, table.platEncID, table.language = 0, 6, 0
    table.format, table.reserved, table.length, table.nGroups = 13, 0, 0, 0
    table.cmap = {code: "box" for first, last in RANGES for code in range(first, last + 1)}
    font.font["cmap"].tables = [table]
    font.font["head"].created = font.font["head"].modified = 0
    font.font.recalcTimestamp = False
    font.font.save(Path(__file__).with_name("stand_in.ttf"))


if __name__ == "__main__":
    main()
