"""Answers of every shape, end to end with the shipped weights, over documents of our own invention (labelled/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.evaluation import labelled
from rag.evaluation.answers import judge
from rag.types import Answer

FOLDER = Path(__file__).parent / "labelled"
LEAST_RIGHT = 0.75
"""Of the questions, whatever weights are shipped. Shapes must hold wherever an answer is given."""


@pytest.fixture(scope="module")
def asked() -> dict[str, tuple[Any, Answer]]:
    with labelled(FOLDER) as made:
        return {q.id: (q, made.service.answerer.ask(q.question, history=q.history)) for q in made.questions}


def of_type(asked: dict[str, tuple[Any, Answer]], kind: str) -> list[Answer]:
    return [answer for question, answer in asked.values() if question.type == kind and answer.answerable]


def test_most_are_right_with_a_right_citation(asked: dict[str, tuple[Any, Answer]]) -> None:
    verdicts = [judge(question, answer) for question, answer in asked.values()]
    wrong = [(v.question, v.answer, v.reason) for v in verdicts if not v.right]
    assert len(wrong) <= (1 - LEAST_RIGHT) * len(verdicts), wrong


def test_every_quote_is_the_answers_own_text(asked: dict[str, tuple[Any, Answer]]) -> None:
    for _, answer in asked.values():
        written = {i for span in answer.generated for i in range(span.start, span.end)}
        for citation in answer.citations:
            assert answer.answer[citation.answer_start : citation.answer_end] == citation.quote
            assert not written & set(range(citation.answer_start, citation.answer_end))


def test_items_of_a_list_are_cited_one_by_one(asked: dict[str, tuple[Any, Answer]]) -> None:
    lists = of_type(asked, "list")
    assert lists
    assert all(len(answer.citations) >= 3 for answer in lists)
    assert all(answer.answer.count("\n") == len(answer.citations) - 1 for answer in lists)


def test_a_cell_is_shown_with_its_row_and_header(asked: dict[str, tuple[Any, Answer]]) -> None:
    cells = of_type(asked, "table")
    assert cells
    assert all("航线" in answer.display and "票价" in answer.display for answer in cells)


def test_an_answer_may_come_from_two_documents(asked: dict[str, tuple[Any, Answer]]) -> None:
    both = [answer for answer in of_type(asked, "two") if answer.generated]
    assert both
    assert all(len({c.document_id for c in answer.citations}) == 2 for answer in both)


def test_disagreeing_documents_are_named_with_their_dates(asked: dict[str, tuple[Any, Answer]]) -> None:
    (answer,) = of_type(asked, "disagree")
    assert answer.reason == "sources_disagree"
    assert len({c.document_id for c in answer.citations}) == 2
    assert "2021年" in answer.display
    assert "2025年" in answer.display


def test_yes_and_no_are_said_where_the_sentence_says_them(asked: dict[str, tuple[Any, Answer]]) -> None:
    said = [answer.answer.split("：")[0] for answer in of_type(asked, "yesno") if answer.generated]
    assert said
    assert set(said) <= {"不可以", "不需要"}


def test_what_stands_nowhere_is_refused_with_the_nearest_passages(asked: dict[str, tuple[Any, Answer]]) -> None:
    refused = [answer for question, answer in asked.values() if question.doc is None and not answer.answerable]
    assert refused
    assert all(answer.passages and "最接近的内容" in answer.display for answer in refused)
    assert all(answer.reason in ("nothing_relevant", "not_answered") for answer in refused)
