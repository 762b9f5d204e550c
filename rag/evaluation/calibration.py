"""How sure an answer over *retrieved* passages must be: what asking makes the reader read, for `gglm.calibration`.

A threshold fitted on gold passages means something else where retrieval chose what is read: the answer may be
missing, passages that nearly answer stand beside it, and the question may have nothing to do with the documents. So
questions are asked as users ask them, those of other documents too, and what the reader was given is kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import gglm.types as g
from gglm.calibration import Asked
from gglm.engine import Engine
from gglm.verdict import said
from rag.evaluation.answers import Asker, Question, judge
from rag.readers.gglm import GGLMReader, source_of
from rag.types import Answer, Passage, ReaderOutput, Turn

FOREIGN = 0.25
"""Questions of other documents that are asked too, beside each of a file's own that its documents answer."""


class Recorder(GGLMReader):
    """Our reader, which answers whatever it is asked and remembers what it read first."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.first: tuple[str, tuple[g.Source, ...]] | None = None
        self.p = 0.0
        self.verdicts = True

    def ask(self, answerer: Asker, item: Question, verdicts: bool = True) -> Answer:
        """The answer, never refused for want of certainty; with or without the reader's own yes and no."""
        self.first, self.verdicts = None, verdicts
        return answerer.ask(item.question, "default", item.history)

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        """As `GGLMReader.read`."""
        if self.first is None and passages:
            self.first = question, tuple(source_of(p) for p in passages)
        settings = self.engine.settings
        self.engine.settings = replace(settings, verdict=0.5 if self.verdicts else 1.0)
        try:
            output = super().read(question, passages, history)
        finally:
            self.engine.settings = settings
        self.p = output.p_answerable
        return replace(output, answerable=bool(output.text))


def asked(
    answerer: Asker, recorder: Recorder, items: Sequence[Question], progress: Callable[[int, int], None] | None = None
) -> list[Asked]:
    """Each question with the sources that it was read over and whether its answer is right.

    Left out are small talk, questions that find nothing, and those that a heading of the documents asks itself
    (`rag.asked`): no threshold decides them.
    """
    found = list[Asked]()
    for done, item in enumerate(items, start=1):
        answer = recorder.ask(answerer, item)
        if recorder.first is not None and answer.p_answerable <= recorder.p:
            question, sources = recorder.first
            right = item.doc is not None and judge(item, answer).right
            found.append(Asked(question, sources, right, _told(answerer, recorder, item, answer)))
        if progress is not None:
            progress(done, len(items))
    return found


def _told(answerer: Asker, recorder: Recorder, item: Question, answer: Answer) -> bool | None:
    """Whether the reader's own yes or no is right; None where it gave none, or the sentence says it literally."""
    if item.type != "yesno" or not item.answers or not answer.generated:
        return None
    plain = recorder.ask(answerer, item, verdicts=False)
    return None if plain.generated else said(answer.answer) == said(item.answers[0])


def foreign(own: Sequence[Question], others: Sequence[Question], seed: int = 0) -> list[Question]:
    """Some of the other documents' questions, as ones that these do not answer: `FOREIGN` for each answered own one."""
    count = min(len(others), round(FOREIGN * sum(item.doc is not None for item in own)))
    chosen = random.Random(seed).sample(list(others), count)
    return [replace(item, doc=None, answers=(), evidence="", history=()) for item in chosen if not item.history]
