"""How sure an answer over *retrieved* passages must be: what asking makes the reader read, for `gglm.calibration`.

A threshold fitted on gold passages means something else where retrieval chose what is read: the answer may be
missing, and passages that nearly answer stand beside it. So questions are asked as users ask them, and what the
reader was given is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gglm.types as g
from gglm.calibration import Asked
from gglm.engine import Engine
from rag.evaluation.answers import Asker, Question
from rag.readers.gglm import GGLMReader, source_of
from rag.types import Passage, ReaderOutput, Turn


class Recorder(GGLMReader):
    """Our reader, which remembers the question and the sources of its first reading since `clear`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.first: tuple[str, list[g.Source]] | None = None

    def clear(self) -> None:
        self.first = None

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        """As `GGLMReader.read`."""
        if self.first is None and passages:
            self.first = question, [source_of(p) for p in passages]
        return super().read(question, passages, history)


def asked(
    answerer: Asker, recorder: Recorder, items: Sequence[Question], progress: Callable[[int, int], None] | None = None
) -> list[Asked]:
    """Each question with the sources that it was read over and whether its documents answer it.

    Small talk and questions that find nothing are left out: no threshold decides them.
    """
    found = list[Asked]()
    for done, item in enumerate(items, start=1):
        recorder.clear()
        answerer.ask(item.question, "default", item.history)
        if recorder.first is not None:
            found.append((*recorder.first, item.doc is not None))
        if progress is not None:
            progress(done, len(items))
    return found
