"""Cleaning that keeps offsets: every character maps to exactly one character.

The model, the lexical index and the embedder see normalised text; answers and quotes are always
cut from the original at the same offsets, so nothing is ever rendered from a normalised form.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def traditional_to_simplified() -> dict[str, str]:
    """1:1 character map, from OpenCC's TSCharacters (Apache-2.0), first reading of each."""
    traditional, simplified = Path(__file__).with_name("t2s.txt").read_text(encoding="utf-8").split("\n")[:2]
    return dict(zip(traditional, simplified, strict=True))


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    table = {ord(t): s for t, s in traditional_to_simplified().items()}
    for full in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)):
        table[full] = chr(full - 0xFEE0)
    for code in (*range(0x20), *range(0x7F, 0xA1), 0x3000, 0xFEFF, *range(0x2000, 0x2010), 0x2028, 0x2029):
        table[code] = " "
    table[0x0A] = "\n"
    table[0x2581] = "_"  # SentencePiece's own mark for a space
    for code in range(0xD800, 0xE000):  # a lone surrogate cannot be encoded
        table[code] = "�"
    return table


def normalize(text: str) -> str:
    """Simplified Han, half-width letters and digits, plain spaces; ``len`` never changes."""
    return text.translate(_table())


def is_han(char: str) -> bool:
    """CJK unified ideographs with extensions A–G, and compatibility ideographs."""
    code = ord(char)
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x323AF
        or 0xF900 <= code <= 0xFAFF
        or code == 0x3007
    )
