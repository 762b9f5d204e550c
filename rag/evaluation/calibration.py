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
from rag import asked as in_documents
from rag.evaluation.answers import Asker, Question, judge
from rag.readers.gglm import GGLMReader, source_of
from rag.types import Answer, Passage, ReaderOutput, Turn

FOREIGN = 0.25
"""Questions of other documents that are asked too, beside each of a file's own that its documents answer."""


class Recorder(GGLMReader):
    """Our reader, which answers whatever it is asked and remembers what it read for which questions."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.read_over: dict[str, tuple[g.Source, ...]] = {}
        self.settled = False
        self.verdicts = True

    def ask(self, answerer: Asker, item: Question, verdicts: bool = True) -> Answer:
        """The answer, never refused for want of certainty; with or without the reader's own yes and no."""
        self.read_over, self.settled, self.verdicts = {}, False, verdicts
        return answerer.ask(item.question, "default", item.history)

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        """As `GGLMReader.read`."""
        self.read_over[question] = tuple(source_of(p) for p in passages)
        self.settled |= in_documents.find(question, passages) is not None
        settings = self.engine.settings
        self.engine.settings = replace(settings, verdict=0.5 if self.verdicts else 1.0)
        try:
            output = super().read(question, passages, history)
        finally:
            self.engine.settings = settings
        return replace(output, answerable=bool(output.text))


def asked(
    answerer: Asker, recorder: Recorder, items: Sequence[Question], progress: Callable[[int, int], None] | None = None
) -> list[Asked]:
    """Each question with the sources that it was read over and whether its answer is right.

    Left out are small talk, questions that find nothing, those that the documents ask themselves (`rag.asked`), since
    no threshold decides them, and those that were read in several wordings or parts.
    """
    found = list[Asked]()
    for done, item in enumerate(items, start=1):
        answer = recorder.ask(answerer, item, verdicts=False)
        if len(recorder.read_over) == 1 and not recorder.settled:
            ((question, sources),) = recorder.read_over.items()
            right = item.doc is not None and judge(item, answer).right
            told = None
            if item.type == "yesno" and item.answers and not answer.generated:
                worded = recorder.ask(answerer, item)
                told = judge(item, worded).right if worded.generated else None
            found.append(Asked(question, sources, right, told))
        if progress is not None:
            progress(done, len(items))
    return found


def foreign(own: Sequence[Question], others: Sequence[Question], seed: int = 0) -> list[Question]:
    """Some questions of other documents, taken for ones that these do not answer: `FOREIGN` for each that they do."""
    plain = [item for item in others if not item.history]
    count = min(len(plain), round(FOREIGN * sum(item.doc is not None for item in own)))
    chosen = random.Random(seed).sample(plain, count)
    return [replace(item, doc=None, answers=(), evidence="") for item in chosen]
