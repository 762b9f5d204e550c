"""A throw-away knowledge base from labelled data, so that the whole way from file to answer is measured.

Two forms are understood:

- a *folder* with ``questions.jsonl`` (or ``.jsonl.zst``, see `rag.evaluation.answers.questions`) and its
  documents, in ``docs/`` or beside it; a question's ``doc`` names its document;
- a *file* whose rows bring their ``context``, as CMRC 2018 does: every distinct context becomes a
  document, and a question may be answered by any of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.report import JobReport, ProgressCallback
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from rag.evaluation.answers import Question
    from rag.ports import Reader
    from rag.service import Service
    from rag.settings import Settings

QUESTIONS = ("questions.jsonl", "questions.jsonl.zst")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An installation that holds the documents and nothing else, and the questions about them."""

    service: Service
    questions: list[Question]
    job: JobReport


def questions_file(folder: Path) -> Path:
    """The file of questions in a folder.

    Raises:
        InvalidInput: there is none.
    """
    for name in QUESTIONS:
        if (folder / name).is_file():
            return folder / name
    raise InvalidInput(
        f'{folder} holds no questions.jsonl. Each line needs "question", "doc" (the document\'s file name; '
        'null: answered nowhere) and "answers".'
    )


def brings_documents(path: Path) -> bool:
    """Whether the data hold what is to be asked: a folder, or a file whose first row has a context.

    Raises:
        InvalidInput: the file cannot be read.
    """
    from rag.evaluation.rows import read_rows

    return path.is_dir() or "context" in next(read_rows(path), {})


@contextmanager
def labelled(
    path: Path,
    settings: Settings | None = None,
    progress: ProgressCallback | None = None,
    reader: Reader | None = None,
) -> Iterator[Labelled]:
    """Ingest labelled data into a temporary installation, gone when the block ends.

    Args:
        path: folder or file as above.
        settings: whose embedder, reader and retrieval options are used; the process's own without.
        reader: another one than the settings'.

    Raises:
        InvalidInput: no questions, a question that cannot be asked, or no document that can be read.
    """
    from ingest.pipeline import ingest
    from rag.evaluation.answers import questions
    from rag.evaluation.rows import read_rows
    from rag.service import Service
    from rag.settings import get_settings

    with tempfile.TemporaryDirectory(prefix="chatgglm-eval-") as temporary:
        home = Path(temporary)
        if path.is_dir():
            rows = list(read_rows(questions_file(path)))
            documents = path / "docs" if (path / "docs").is_dir() else path
        else:
            documents = home / "contexts"
            rows = _store_contexts(read_rows(path), documents)
        items = questions(rows)
        if not items:
            raise InvalidInput(f"{path} holds no questions.")
        changed = {"home": home / "data", "database_url": ""}
        service = Service((settings or get_settings()).model_copy(update=changed), reader=reader)
        service.database.migrate()
        try:
            job = ingest(service, [documents], "default", exclude=QUESTIONS, progress=progress)
            if not any(d.status == "indexed" for d in job.documents):
                raise InvalidInput(f"{documents} holds no document that can be read.")
            yield Labelled(service, items, job)
        finally:
            service.database.engine.dispose()


def _store_contexts(rows: Iterator[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Write each distinct context as a text file; the rows with ``doc`` set to its name.

    Titles are left out: of an encyclopedia's paragraphs they would give the answer away.
    """
    folder.mkdir()
    names: dict[str, str] = {}
    named = []
    for number, row in enumerate(rows, start=1):
        context = row.get("context")
        if not isinstance(context, str) or not context.strip():
            raise InvalidInput(f'Row {number}: "context" is needed.')
        if context not in names:
            names[context] = f"{len(names) + 1:05}.txt"
            (folder / names[context]).write_text(context, encoding="utf-8")
        unanswerable = row.get("type") == "unanswerable" or not row.get("answers")
        named.append({**row, "doc": None if unanswerable else names[context]})
    return named
