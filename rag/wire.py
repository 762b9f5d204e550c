"""The JSON documents of answers and passages, the same for the CLI and the API."""

from __future__ import annotations

from typing import Any

from rag.types import Answer, Citation, Passage


def passage_to_dict(passage: Passage) -> dict[str, Any]:
    """One search result."""
    scores = passage.scores
    return {
        "chunk_id": passage.chunk_id,
        "document_id": passage.document_id,
        "title": passage.title,
        "path": passage.path,
        "page": passage.page,
        "heading": passage.heading,
        "char_start": passage.char_start,
        "char_end": passage.char_end,
        "text": passage.text,
        "score": _rounded(passage.score),
        "scores": {
            "lexical": _rounded(scores.lexical),
            "dense": _rounded(scores.dense),
            "fused": _rounded(scores.fused),
            "relevance": _rounded(scores.relevance),
        },
    }


def citation_to_dict(citation: Citation) -> dict[str, Any]:
    """One citation; offsets are code points, half open, into the stored text and into ``answer``."""
    return {
        "marker": citation.marker,
        "document_id": citation.document_id,
        "version_id": citation.version_id,
        "title": citation.title,
        "path": citation.path,
        "page": citation.page,
        "char_start": citation.char_start,
        "char_end": citation.char_end,
        "quote": citation.quote,
        "answer_start": citation.answer_start,
        "answer_end": citation.answer_end,
        "kind": citation.kind,
        "score": _rounded(citation.score),
    }


def answer_to_dict(answer: Answer) -> dict[str, Any]:
    """The document of `chatgglm ask --json` and `POST /v1/ask`."""
    return {
        "question": answer.question,
        "standalone_question": answer.standalone_question,
        "answer": answer.answer,
        "display": answer.display,
        "answerable": answer.answerable,
        "p_answerable": _rounded(answer.p_answerable),
        "reason": answer.reason,
        "citations": [citation_to_dict(c) for c in answer.citations],
        "generated": [{"start": span.start, "end": span.end} for span in answer.generated],
        "passages": [passage_to_dict(p) for p in answer.passages],
        "model": answer.model,
        "generation": answer.generation,
        "run_id": answer.run_id,
        "timings_ms": {name: round(ms, 2) for name, ms in answer.timings_ms.items()},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
