"""No citation survives unless it is the stored text, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.cite import Evidence, cite, supported_share, verified
from rag.types import Kind, Passage, Span

CANONICAL = "第一条 质保期为十八个月，自验收之日起算。\n第二条 𠮷日付款，逾期每日按0.5‰计。😀完。"


def passage(text: str = CANONICAL, start: int = 0, end: int | None = None, version: int = 1) -> Passage:
    end = len(text) if end is None else end
    return Passage(
        chunk_id=7,
        document_id="d",
        version_id=version,
        title="合同",
        path="合同.md",
        page=None,
        heading="",
        char_start=start,
        char_end=end,
        text=text[start:end],
    )


def test_a_copied_span_is_cited_at_its_stored_offsets() -> None:
    shown = passage(start=4, end=30)
    at = shown.text.index("十八个月")
    claim = Evidence(shown, Span(at, at + 4), Span(0, 4), 0.9)
    (citation,) = cite("十八个月", "copied", [claim], {1: CANONICAL})
    assert citation.quote == "十八个月" == CANONICAL[citation.char_start : citation.char_end]
    assert (citation.marker, citation.answer_start, citation.answer_end) == (1, 0, 4)
    assert citation.kind == "copied"


def test_a_deleted_version_cannot_be_cited() -> None:
    assert cite("质保", "copied", [Evidence(passage(), Span(4, 6), Span(0, 2))], {}) == ()


def test_a_changed_stored_text_drops_the_citation() -> None:
    claim = Evidence(passage(), Span(4, 6), Span(0, 2))
    assert len(cite("质保", "copied", [claim], {1: CANONICAL})) == 1
    assert cite("质保", "copied", [claim], {1: CANONICAL.replace("质保", "保质")}) == ()


def test_markers_follow_the_answer_and_repeat_for_the_same_source() -> None:
    shown = passage()
    answer = "质保/付款/质保"
    first, second = CANONICAL.index("质保"), CANONICAL.index("付款")
    claims = [
        Evidence(shown, Span(second, second + 2), Span(3, 5)),
        Evidence(shown, Span(first, first + 2), Span(6, 8)),
        Evidence(shown, Span(first, first + 2), Span(0, 2)),
    ]
    citations = cite(answer, "copied", claims, {1: CANONICAL})
    assert [(c.marker, c.answer_start) for c in citations] == [(1, 0), (2, 3), (1, 6)]


texts = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=60)


@st.composite
def claims(draw: st.DrawFn) -> tuple[str, list[Evidence], dict[int, str]]:
    """Arbitrary claims, most of them false: offsets, texts and versions need not fit together."""
    stored = draw(st.dictionaries(st.integers(1, 3), texts, min_size=1))
    answer = draw(texts)
    made = []
    for _ in range(draw(st.integers(0, 6))):
        version = draw(st.integers(1, 4))
        source = draw(st.sampled_from(sorted(stored)))
        text = stored[source] if draw(st.booleans()) else draw(texts)
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        shift = draw(st.integers(0, 3))
        shown = Passage(1, "d", version, "t", "p", None, "", start + shift, end + shift, text[start:end])
        length = draw(st.integers(1, end - start + 2))
        left = draw(st.integers(0, end - start))
        to = draw(st.integers(0, len(answer) - 1))
        made.append(Evidence(shown, Span(left, left + length), Span(to, to + length)))
    if made and draw(st.booleans()):  # make one of them true
        claim = made[0]
        if claim.passage.version_id in stored:
            whole = stored[claim.passage.version_id]
            shown = Passage(1, "d", claim.passage.version_id, "t", "p", None, "", 0, len(whole), whole)
            answer = whole
            made[0] = Evidence(shown, Span(0, len(whole)), Span(0, len(whole)))
    return answer, made, stored


@given(case=claims(), kind=st.sampled_from(["copied", "supported"]))
def test_every_citation_is_the_stored_text(case: tuple[str, list[Evidence], dict[int, str]], kind: Kind) -> None:
    answer, made, stored = case
    citations = cite(answer, kind, made, stored)
    for citation in citations:
        source = stored[citation.version_id][citation.char_start : citation.char_end]
        assert citation.quote.encode("utf-8") == source.encode("utf-8")
        assert 0 <= citation.answer_start < citation.answer_end <= len(answer)
        if kind == "copied":
            assert answer[citation.answer_start : citation.answer_end] == citation.quote
    holds = [c for c in made if verified(c, answer, kind, stored)]
    assert len(citations) == len(holds)
    assert len({c.marker for c in citations}) == max((c.marker for c in citations), default=0)


@given(answer=texts, data=st.data())
def test_supported_share_is_the_share_of_characters(answer: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(answer) - 1))
    end = data.draw(st.integers(start + 1, len(answer)))
    shown = Passage(1, "d", 1, "t", "p", None, "", 0, len(answer), answer)
    citations = cite(answer, "copied", [Evidence(shown, Span(start, end), Span(start, end))], {1: answer})
    wanted = [i for i, c in enumerate(answer) if not c.isspace()]
    expected = sum(start <= i < end for i in wanted) / len(wanted) if wanted else 0.0
    assert supported_share(answer, citations) == pytest.approx(expected)
