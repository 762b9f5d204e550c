"""Pictures and scanned pages, read by the real recogniser."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rapidocr", reason="needs the extra ocr")

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ingest import highlights, limits
from ingest.errors import DamagedFile, EmptyFile, NoText
from ingest.formats import ocr, parse
from ingest.highlights import boxes_of, stretches
from ingest.limits import Limits, applied
from ingest.runners import Task
from ingest.runners.local import LocalRunner
from ingest.sources import expand

SENTENCES = ["Meeting room 305 opens at nine", "Bring your badge and a pen", "Lunch is served at noon"]


def picture(*sentences: str, turn: int = 0) -> Image.Image:
    """A white page of large lines, turned by so many degrees."""
    page = Image.new("RGB", (900, 90 * len(sentences) + 60), "white")
    draw = ImageDraw.Draw(page)
    for i, sentence in enumerate(sentences):
        draw.text((40, 40 + 90 * i), sentence, "black", ImageFont.load_default(size=44))
    return page.rotate(turn, expand=True, fillcolor="white")


def saved(page: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    page.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("turn", [90, 180, 3])
def test_a_picture_however_it_lies(turn: int) -> None:
    parsed = parse(saved(picture(*SENTENCES, turn=turn), "PNG"), "notice.png")
    assert plain(parsed.text) == plain("".join(SENTENCES))
    assert parsed.media_type == "image/png"
    assert parsed.fidelity["ocr_pages"] == [1]
    assert parsed.fidelity["ocr_confidence"] > 0.8


def test_frames_of_a_tiff_are_pages() -> None:
    frames = [picture(sentence) for sentence in SENTENCES[:2]]
    parsed = parse(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]), "fax.tif")
    assert [parsed.page_at(parsed.text.index(word)) for word in ("Meeting", "badge")] == [1, 2]


def test_pages_of_a_pdf_that_are_pictures(make_pdf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdfium2

    monkeypatch.setattr(highlights, "TIMEOUT_S", 600.0)  # the machine may be busy
    document = pypdfium2.PdfDocument(make_pdf([["有字的一页。"]]))
    page = document.new_page(450, 180)
    image = pypdfium2.PdfImage.new(document)
    image.load_jpeg(io.BytesIO(saved(picture(SENTENCES[0]), "JPEG")), inline=True)
    image.set_matrix(pypdfium2.PdfMatrix().scale(450, 75).translate(0, 60))
    page.insert_obj(image)
    page.gen_content()
    buffer = io.BytesIO()
    document.save(buffer)
    parsed = parse(buffer.getvalue(), "a.pdf")
    assert parsed.fidelity["ocr_pages"] == [2]
    assert "pages_without_text" not in parsed.fidelity
    assert plain(parsed.text) == "有字的一页。" + plain(SENTENCES[0])
    start = parsed.text.index("Meeting")
    assert parsed.page_at(start) == 2
    (found,) = boxes_of(buffer.getvalue(), stretches(parsed.text, parsed.pages, start, start + len("Meeting")))
    ((left, top, right, bottom),) = found.boxes
    assert found.page == 2
    assert left == pytest.approx(20, abs=10)  # half a point a pixel, from the picture's upper left corner at (0, 45)
    assert right == pytest.approx(110, abs=25)
    assert 45 < top < 75 < bottom < 105


def test_a_parsing_process_reads_pictures_within_its_limits(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(saved(picture(SENTENCES[0]), "WEBP", lossless=True))
    (outcome,) = LocalRunner(1, Limits(parse_timeout_s=3600)).run([Task(0, str(tmp_path / "a.webp"), "a.webp")])
    assert outcome.error == ""
    assert outcome.parsed is not None
    assert plain(outcome.parsed.text) == plain(SENTENCES[0])


def test_time_for_each_page_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(limits, "_grant", asked.append)
    ocr.read(picture(SENTENCES[0]))
    assert asked == [ocr.SECONDS_A_PAGE]


def test_pictures_without_text_and_damaged_ones() -> None:
    with pytest.raises(EmptyFile, match="no text"):
        parse(saved(Image.new("RGB", (400, 400), "white"), "PNG"), "a.png")
    with pytest.raises(DamagedFile):
        parse(saved(picture("x"), "PNG")[:200], "a.png")
    with pytest.raises(DamagedFile):
        parse(saved(picture("x"), "GIF"), "a.png")


def test_where_ocr_is_off_the_reason_says_what_to_do(
    tmp_path: Path, make_pdf: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(picture("x"), "JPEG"))
    found = expand([tmp_path], limits=Limits(ocr=False))
    assert found.files == []
    assert [(p.status, "CHATGGLM_OCR" in p.error) for p in found.problems] == [("skipped", True)]
    assert [p.status for p in expand([tmp_path / "a.jpg"], limits=Limits(ocr=False)).problems] == ["failed"]
    with applied(Limits(ocr=False)), pytest.raises(NoText, match=r"scan.*CHATGGLM_OCR"):
        parse(make_pdf([[], []]), "a.pdf")
    monkeypatch.setattr(ocr.importlib.util, "find_spec", lambda name: None)  # as without the extra
    with pytest.raises(NoText, match=r"pip install 'chatgglm\[ocr\]'"):
        parse(make_pdf([[], []]), "a.pdf")
    with pytest.raises(NoText, match="pip install"):
        parse((tmp_path / "a.jpg").read_bytes(), "a.jpg")


def test_a_long_screenshot_is_cut_between_its_lines() -> None:
    rows = np.zeros(9000, dtype=np.uint8)
    rows[np.arange(9000) % 50 < 30] = 200  # 30 rows of text, 20 blank ones
    noise = np.random.default_rng(1).integers(0, 2, (9000, 600, 3), dtype=np.uint8)
    pixels = noise * rows[:, None, None]
    pieces = ocr._strips(pixels)
    assert len(pieces) > 2
    assert all(strip.shape[0] <= ocr.LONGEST for _, strip in pieces)
    assert np.array_equal(np.concatenate([strip for _, strip in pieces]), pixels)
    assert all(rows[top] == 0 for top, _ in pieces[1:])
