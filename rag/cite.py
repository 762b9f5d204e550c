"""Citations that cannot be forged: each is checked against the stored text before it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rag.types import Citation, Kind, Passage, Span


@dataclass(frozen=True, slots=True)
class Evidence:
    """A claim that ``source`` (code points of ``passage.text``) stands for ``answer`` (of the answer)."""

    passage: Passage
    source: Span
    answer: Span
    score: float = 0.0


def verified(claim: Evidence, answer: str, kind: Kind, texts: Mapping[int, str]) -> str | None:
    """The quote of a claim that holds, else None.

    ``texts`` maps version ids to stored canonical texts, live versions only. The quote must be the
    stored text at the offsets, must be what the passage showed the reader, and in a copied answer
    must be the answer's own characters, all byte for byte.
    """
    passage, source = claim.passage, claim.source
    stored = texts.get(passage.version_id)
    if stored is None or source.end > len(passage.text) or claim.answer.end > len(answer):
        return None
    quote = stored[passage.char_start + source.start : passage.char_start + source.end]
    if quote != passage.text[source.start : source.end]:
        return None
    if kind == "copied" and quote != answer[claim.answer.start : claim.answer.end]:
        return None
    return quote


def cite(answer: str, kind: Kind, claims: Iterable[Evidence], texts: Mapping[int, str]) -> tuple[Citation, ...]:
    """Citations for the claims that hold, in answer order; the others are dropped.

    Markers count from 1 in order of appearance; the same source characters keep one marker.
    """
    markers: dict[tuple[int, int, int], int] = {}
    citations = []
    for claim in sorted(claims, key=lambda c: (c.answer.start, c.answer.end)):
        quote = verified(claim, answer, kind, texts)
        if not quote:
            continue
        passage = claim.passage
        start, end = passage.char_start + claim.source.start, passage.char_start + claim.source.end
        marker = markers.setdefault((passage.version_id, start, end), len(markers) + 1)
        citations.append(
            Citation(
                marker=marker,
                document_id=passage.document_id,
                version_id=passage.version_id,
                title=passage.title,
                path=passage.path,
                page=passage.page,
                char_start=start,
                char_end=end,
                quote=quote,
                answer_start=claim.answer.start,
                answer_end=claim.answer.end,
                kind=kind,
                score=claim.score,
            )
        )
    return tuple(citations)


def supported_share(answer: str, citations: Iterable[Citation]) -> float:
    """Share (0…1) of the answer's non-space characters that some citation stands for."""
    covered: set[int] = set()
    for citation in citations:
        covered.update(range(citation.answer_start, citation.answer_end))
    wanted = [i for i, char in enumerate(answer) if not char.isspace()]
    return sum(i in covered for i in wanted) / len(wanted) if wanted else 0.0
