"""What is cut where when a text is translated, and how its parts come together."""

from __future__ import annotations

import pytest

from gglm import translation
from gglm.types import Generation, Piece, SourceSpan


def echo(text: str) -> Generation:
    """Copies the Latin letters and digits of a clause, writes «x» for each other character."""
    pieces = tuple(
        Piece(c, SourceSpan(0, i, i + 1)) if c.isascii() and c.isalnum() else Piece("x") for i, c in enumerate(text)
    )
    certainty = 0.9 if "稳" in text else 0.2
    return Generation("".join(p.text for p in pieces), pieces, "stop", len(text), certainty)


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("短句，不切。", 40, ["短句，不切。"]),
        ("一二三，四五六，七八九。", 8, ["一二三，四五六，", "七八九。"]),
        ("一二三，四五六，七八九。", 4, ["一二三，", "四五六，", "七八九。"]),
        ("没有逗号的长句子就整句翻译", 4, ["没有逗号的长句子就整句翻译"]),
        ("，，", 1, ["，", "，"]),
    ],
)
def test_long_sentences_are_cut_at_commas(text: str, longest: int, expected: list[str]) -> None:
    whole = "前" + text
    found = [whole[a:b] for a, b in translation.clauses(whole, 1, len(whole), longest)]
    assert found == expected
    assert "".join(found) == text


def test_what_is_copied_is_found_in_the_whole_text() -> None:
    text = "  稳的 A1。\n\n装 B2，" + "长" * 40 + "，C3。"
    made = translation.collect(translation.translate(text, echo, spaced=True))
    assert made.text == "".join(p.text for p in made.pieces)
    copied = [p for p in made.pieces if p.origin]
    assert [p.text for p in copied] == ["A1", "B2", "C3"]
    assert all(p.text == text[p.origin.start : p.origin.end] for p in copied if p.origin)
    assert made.text.startswith("xxxA1x\n\nx")
    first, second = made.sentences
    assert text[first.start : first.end] == "稳的 A1。"
    assert text[second.start : second.end].startswith("装 B2")
    assert (first.sure, second.sure) == (True, False)
    assert second.certainty == pytest.approx(0.2)
    assert second.certainty < made.certainty < first.certainty


def test_an_empty_text_and_one_of_breaks() -> None:
    nothing = translation.collect(translation.translate("", echo, spaced=True))
    assert (nothing.text, nothing.sentences, nothing.certainty, nothing.finish_reason) == ("", (), 1.0, "stop")
    assert translation.collect(translation.translate(" \n\n", echo, spaced=False)).text == "\n\n"


def test_spaces_between_sentences_are_english() -> None:
    def said(text: str) -> Generation:
        return Generation("s", (Piece("s"),), "length", 1, 0.5)

    made = translation.collect(translation.translate("一。二。三。", said, spaced=True))
    assert made.text == "s s s"
    assert made.finish_reason == "length"
    assert translation.collect(translation.translate("一。二。", said, spaced=False)).text == "ss"
