"""Bytes to text: strict decoding in every likely encoding, the most Chinese-looking result wins.

Statistical detectors take short GBK strings for Korean; a buffer that is cut before decoding is
worse. So: the whole file is decoded strictly as UTF-8, and where that fails as GB18030, Big5 and
UTF-16, each result scored by how common its Han characters are (table `han_frequency.txt`: the
4,000 commonest, simplified, in order, counted over open corpora).
"""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gglm.text import is_han, normalize
from ingest.errors import DamagedFile

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_LETTERS = bytes([0x20, *range(0x41, 0x5B), *range(0x61, 0x7B)])
_SAMPLE = 20_000
_CONTROLS = re.compile("[\x01-\x08\x0e-\x19\x1b-\x1f]")
_META = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_\-]{2,20})|<\?xml[^>]{0,100}encoding\s*=\s*["']([A-Za-z0-9_\-]{2,20})""",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """``replaced`` counts the undecodable places, each U+FFFD in ``text``."""

    text: str
    encoding: str
    confidence: float
    replaced: int = 0

    def fidelity(self) -> dict[str, object]:
        found: dict[str, object] = {
            "encoding": self.encoding,
            "encoding_confidence": round(self.confidence, 3),
        }
        return found | ({"undecodable": self.replaced} if self.replaced else {})


def decode(data: bytes, declared: str | None = None) -> Decoded:
    """The text of ``data``. ``declared`` (an HTML charset, say) is believed if it decodes strictly.

    Raises:
        DamagedFile: binary data, or no encoding fits.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            marked = data.decode(name, errors="replace").removeprefix("\ufeff")
            return _checked(Decoded(marked, name.removesuffix("-sig"), 1.0, marked.count("\ufffd")))
    if declared and (named := _declared(data, declared)):
        return named
    wide = data.count(0) * 20 > len(data) > 1
    if not wide and (text := _strict(data, "utf-8")) is not None:
        return _checked(Decoded(text, "utf-8", 1.0))
    names = [] if wide else ["gb18030", "big5hkscs"]
    letters = len(data) - len(data.translate(None, _LETTERS))
    if wide or letters < 0.75 * len(data):  # pairs of Latin letters would pass for rare Han
        names += ["utf-16-le", "utf-16-be"]
    scored = sorted(
        ((_score(text), name, text) for name in names if (text := _strict(data, name)) is not None),
        key=lambda found: found[0][0],
        reverse=True,
    )
    if scored and scored[0][0][0] > _RARE:
        (best, weight), name, text = scored[0]
        margin = (best - scored[1][0][0]) * weight if len(scored) > 1 else 30.0
        return _checked(Decoded(text, name, 1 / (1 + math.exp(-min(margin, 30.0)))))
    return _checked(_lenient(data))


def declared_charset(data: bytes) -> str | None:
    """The charset that an HTML or XML file names for itself."""
    found = _META.search(data, 0, 8192)
    return (found[1] or found[2]).decode("ascii").lower() if found else None


def _declared(data: bytes, name: str) -> Decoded | None:
    name = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "iso-8859-1": "cp1252"}.get(name, name)
    try:
        text = _strict(data, codecs.lookup(name).name)
    except LookupError:
        return None
    if text is None or name.startswith("utf-16") or (name == "cp1252" and _strict(data, "utf-8") is not None):
        return None
    return Decoded(text, name, 1.0)


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, ValueError):
        return None


def _lenient(data: bytes) -> Decoded:
    """A few damaged bytes must not cost the document; more of them and it is refused."""
    best: Decoded | None = None
    for name in ("utf-8", "gb18030", "big5hkscs"):
        patched = data.decode(name, errors="replace")
        found = Decoded(patched, name, 0.5, patched.count("\ufffd"))
        if best is None or found.replaced < best.replaced:
            best = found
    assert best is not None
    if _score(best.text)[0] <= _RARE and _high(data) < 0.15 and (text := _strict(data, "cp1252")) is not None:
        return Decoded(text, "cp1252", 0.3)
    foreign = len(re.findall(r"[^\x00-\x7f]", best.text))
    if best.replaced * 20 <= foreign or (best.replaced <= 3 and len(best.text) >= 100):
        return best
    raise DamagedFile("the text's encoding cannot be recognised; save the file as UTF-8 and try again")


def _high(data: bytes) -> float:
    """Share of bytes beyond ASCII."""
    return len(data.translate(None, bytes(range(0x80)))) / len(data) if data else 0.0


def _checked(found: Decoded) -> Decoded:
    controls = len(_CONTROLS.findall(found.text)) + found.text.count("\0")
    if controls * 10 > len(found.text):
        raise DamagedFile("this is binary data, not text")
    return found


_RARE = -math.log(30_000)
"""Mean log-likelihood at which text is no Chinese."""


@lru_cache(maxsize=1)
def _ranks() -> dict[str, float]:
    table = Path(__file__).with_name("han_frequency.txt").read_text(encoding="utf-8").strip()
    return {char: -math.log(rank + 8) for rank, char in enumerate(table)}


def _score(text: str) -> tuple[float, int]:
    """(mean log-likelihood of the characters beyond ASCII, how many were looked at)."""
    ranks = _ranks()
    sample = re.findall(r"[^\x00-\x7f]", text)
    step = max(1, len(sample) // _SAMPLE)
    sample = sample[::step]
    total = 0.0
    for char in normalize("".join(sample)):
        code = ord(char)
        if char in ranks:
            total += ranks[char]
        elif is_han(char):
            total += -math.log(40_000)
        elif 0x3000 <= code <= 0x303F or 0xFF00 <= code <= 0xFF65 or char in "“”‘’…—·　" or code < 0x80:
            total += -math.log(40)
        elif 0xE000 <= code <= 0xF8FF or code == 0xFFFD or 0x80 <= code < 0xA0:
            total += -math.log(10_000_000)
        else:
            total += -math.log(200_000)
    return (total / len(sample) if sample else -math.log(40), len(sample))
