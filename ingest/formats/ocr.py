"""Text of pictures, by RapidOCR on the processor (extra ``ocr``; its models come in the wheel).

A page on its side or upside down is turned, a skewed one straightened, and a long screenshot read
piece by piece, because the recogniser shrinks what it gets to 2,000 pixels.
"""

from __future__ import annotations

import importlib.util
import math
import re
import statistics
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ingest import limits
from ingest.formats.layout import Line, rows

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

LONGEST = 2000
"""Pixels of the longer side that the recogniser works on."""
SECONDS_A_PAGE = 60.0
_OPENING = re.compile(r"(?<=[\u4e00-\u9fff])\(|\((?=[\u4e00-\u9fff])")
_CLOSING = re.compile(r"(?<=[\u4e00-\u9fff])\)|\)(?=[\u4e00-\u9fff])")
INSTALL = "install the OCR extra to read it: pip install 'chatgglm[ocr]'"


@dataclass(frozen=True, slots=True)
class Page:
    """Lines from top to bottom, in pixels from the lower left, and how sure the recogniser is of them (0…1)."""

    lines: list[Line]
    confidence: float = 0.0


def available() -> bool:
    """Whether pictures can be read here: the extra is installed and ``CHATGGLM_OCR`` is not off."""
    return limits.current().ocr and all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime", "PIL"))


def why_not() -> str:
    """What to do about it where it is not `available`."""
    return INSTALL if limits.current().ocr else "reading pictures is switched off (CHATGGLM_OCR)"


def read(picture: Image) -> Page:
    """The text of a picture of any size, upright or not. Raises ImportError without the extra."""
    import numpy as np

    pixels = np.asarray(picture.convert("RGB"))[:, :, ::-1]  # blue first, as OpenCV has it
    height = pixels.shape[0]
    found: list[Line] = []
    scores: list[float] = []
    for top, strip in _strips(pixels):
        limits.more_time(SECONDS_A_PAGE)
        parts, own = _parts(strip)
        scores += own
        bottom = height - top - strip.shape[0]
        found += rows([replace(part, bottom=part.bottom + bottom, top=part.top + bottom) for part in parts])
    return Page(found, round(statistics.fmean(scores), 3) if scores else 0.0)


def _strips(pixels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(first row, pixels) of pieces that are not much higher than wide, cut where a row is blank."""
    height, width = pixels.shape[:2]
    tallest = max(int(2.2 * width), LONGEST)
    pieces: list[tuple[int, np.ndarray]] = []
    top = 0
    while height - top > tallest:
        low = top + int(0.7 * tallest)
        unrest = pixels[low : top + tallest].std(axis=1).sum(axis=1)
        cut = top + tallest - 1 - int(unrest[::-1].argmin())  # the lowest of the calmest rows
        pieces.append((top, pixels[top:cut]))
        top = cut
    return [*pieces, (top, pixels[top:])]


def _parts(pixels: np.ndarray, turned: bool = False) -> tuple[list[Line], list[float]]:
    """Stretches of text as the recogniser finds them, as lines of an upright page."""
    import numpy as np

    engine = _engine()
    result = engine(np.ascontiguousarray(pixels))
    if result.boxes is None or not getattr(result, "txts", None):
        return [], []
    boxes = np.asarray(result.boxes, dtype=float)  # (n, 4 corners, x and y from the upper left)
    across = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1)
    down = np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1)
    if not turned and (down > 2 * across).mean() > 0.6:  # on its side
        return _parts(np.rot90(pixels), turned=True)
    height, width = pixels.shape[:2]
    if engine.upside_down:
        boxes = np.array([width, height]) - boxes[:, [2, 3, 0, 1]]
    boxes = _straightened(boxes, across)
    lines = [
        Line(
            _full_width(text),
            box[:, 0].min(),
            box[:, 0].max(),
            height - box[:, 1].max(),
            height - box[:, 1].min(),
            rough=True,
        )
        for box, text in zip(boxes, result.txts, strict=True)
    ]
    return lines, [float(score) for score in result.scores]


def _full_width(text: str) -> str:
    """Brackets beside Chinese characters as they are printed; the recogniser often narrows them."""
    return _CLOSING.sub("）", _OPENING.sub("（", text))


def _straightened(boxes: np.ndarray, across: np.ndarray) -> np.ndarray:
    """The boxes turned by the slope that most long ones share, each made upright."""
    import numpy as np

    run = boxes[:, 1] - boxes[:, 0]
    long = across >= np.median(across)
    slope = float(np.median(np.arctan2(run[long, 1], run[long, 0])))
    if abs(slope) > math.radians(0.3):
        cos, sin = math.cos(slope), math.sin(slope)
        boxes = boxes @ np.array([[cos, -sin], [sin, cos]])
    return boxes


@lru_cache(maxsize=1)
def _engine() -> Any:
    """One recogniser a process, on one thread: documents are what runs side by side."""
    import cv2
    from rapidocr import RapidOCR

    class Recogniser(RapidOCR):
        """Remembers which way up the lines were."""

        upside_down = False

        def cls_and_rotate(self, img: Any) -> Any:
            images, found = super().cls_and_rotate(img)
            labels = [label == "180" and score > 0.9 for label, score in found.cls_res or ()]
            self.upside_down = sum(labels) * 2 > len(labels)
            return images, found

    cv2.setNumThreads(1)
    return Recogniser(
        params={
            "Global.log_level": "error",
            "Global.max_side_len": LONGEST,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
