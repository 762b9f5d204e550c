"""A regression set made of a knowledge base's own documents.

Questions are generated from passages (`rag.evaluation.generate`) and kept where the round trip works:
the question finds its document, and the answer is right and cited into it. Later runs ask the kept
questions again. One that no longer works, although its document still says the same, is a regression:
new documents, another embedder, other weights or other settings have made answers worse.

State lies in the data folder, ``evaluation/kb-ID/``: ``set.json`` (the questions) and
``results.jsonl`` (a line for each run, with the index generation that it asked).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import InvalidInput
from rag.evaluation.answers import percentiles, right_answer
from rag.evaluation.generate import questions_of
from rag.index.files import write_json
from rag.store.base import now

if TYPE_CHECKING:
    from rag.service import Service
    from rag.types import Answer

TRIES = 4
"""Generated questions that are asked, at most, for each one wanted."""
PER_DOCUMENT = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class OwnQuestion:
    """A question that was answered rightly when it was made."""

    id: str
    question: str
    answer: str
    evidence: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class OwnReport:
    """One run over the set."""

    kb: str
    generation: int
    model: str
    embedder: str
    asked: int
    right: int
    added: int
    retired: int
    """Questions left out because their document is gone or no longer says so."""
    regressed: tuple[dict[str, str], ...]
    """Each with question, path, wanted and given answer, and the reason of a refusal."""
    latency_ms: dict[str, float | None]
    at: str

    @property
    def ok(self) -> bool:
        """Whether every question still works."""
        return not self.regressed

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "ok": self.ok}


class OwnSet:
    """The regression set of one knowledge base.

    Raises:
        NotFound: there is no such knowledge base.
    """

    def __init__(self, service: Service, kb: str = "default") -> None:
        from rag.store.kbs import get_kb

        self.service = service
        self.kb = kb
        with service.database.session() as session:
            kb_id = get_kb(session, kb).id
        self.folder = service.settings.home / "evaluation" / f"kb-{kb_id}"
        self.questions, self._tried = self._read()

    def run(self, wanted: int = 50, accept: bool = False, progress: Progress = lambda done, total: None) -> OwnReport:
        """Ask the set again, then let it grow to ``wanted`` questions with documents that are new to it.

        Args:
            accept: drop the questions that no longer work instead of reporting them.

        Raises:
            InvalidInput: no question could be made and kept.
        """
        current = self._texts({q.path for q in self.questions})
        kept = [q for q in self.questions if q.evidence in current.get(q.path, "")]
        total = max(wanted, len(kept))
        times: list[float] = []
        failed: list[tuple[OwnQuestion, Answer]] = []
        for done, question in enumerate(kept, start=1):
            answer = self._ask(question.question, times)
            if not _works(answer, question):
                failed.append((question, answer))
            progress(done, total)
        retired = len(self.questions) - len(kept)
        asked = len(kept)
        if accept:
            gone = {q.id for q, _ in failed}
            kept, failed = [q for q in kept if q.id not in gone], []
        added = self._grow(kept, wanted, times, progress)
        self.questions = kept + added
        if not self.questions:
            raise InvalidInput(
                f"No question could be made of the documents in {self.kb}: it needs text with statements "
                "(figures, dates, «name: value» lines, definitions) that the reader can answer."
            )
        report = OwnReport(
            kb=self.kb,
            generation=self.service.retriever.generation(self.kb),
            model=self.service.reader.id,
            embedder=self.service.embedder.id,
            asked=asked + len(added),
            right=asked - len(failed) + len(added),
            added=len(added),
            retired=retired,
            regressed=tuple(_difference(q, a) for q, a in failed),
            latency_ms=percentiles(times),
            at=now().isoformat(timespec="seconds") + "Z",
        )
        self._write(report)
        return report

    def forget(self) -> None:
        """Begin a new set with the next run; the results so far stay."""
        self.questions, self._tried = [], set()

    def results(self) -> list[dict[str, Any]]:
        """All runs so far, oldest first."""
        file = self.folder / "results.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]  # the last may be torn by a crash

    def _ask(self, question: str, times: list[float]) -> Answer:
        answer = self.service.answerer.ask(question, self.kb)
        times.append(answer.timings_ms.get("total", 0.0))
        return answer

    def _grow(
        self, kept: Sequence[OwnQuestion], wanted: int, times: list[float], progress: Progress
    ) -> list[OwnQuestion]:
        """New questions that work, spread over the documents."""
        added: list[OwnQuestion] = []
        per_document = Counter(q.path for q in kept)
        known = {q.id for q in kept}
        tries = TRIES * (wanted - len(kept))
        for question in self._generated(2 * wanted):
            if len(kept) + len(added) >= wanted or tries <= 0:
                break
            if question.id in known or per_document[question.path] >= PER_DOCUMENT:
                continue
            tries -= 1
            self._tried.add(question.id)
            if _works(self._ask(question.question, times), question):
                added.append(question)
                known.add(question.id)
                per_document[question.path] += 1
                progress(len(kept) + len(added), max(wanted, len(kept)))
        return added

    def _generated(self, documents: int) -> Iterator[OwnQuestion]:
        """Untried questions: the first of every document, then the second of each, and so on."""
        queues = [q for q in (self._of_document(path, version) for path, version in self._sample(documents)) if q]
        for turn in range(max(map(len, queues), default=0)):
            yield from (queue[turn] for queue in queues if turn < len(queue))

    def _of_document(self, path: str, version_id: int) -> list[OwnQuestion]:
        from sqlalchemy import select

        from rag.store.models import Chunk, DocumentVersion

        with self.service.database.session() as session:
            version = session.get(DocumentVersion, version_id)
            if version is None:
                return []
            title, text = version.document.title, version.text
            chunks = session.execute(
                select(Chunk.char_start, Chunk.char_end, Chunk.heading)
                .where(Chunk.version_id == version_id)
                .order_by(Chunk.ordinal)
            ).all()
        chunks = chunks[:: 1 + len(chunks) // 200]  # a book's are too many to make questions of all
        made = [
            OwnQuestion(_id(path, g.question, g.answer), g.question, g.answer, g.evidence, path, g.kind)
            for chunk in chunks
            for g in questions_of(title, chunk.heading, text[chunk.char_start : chunk.char_end])
        ]
        fresh = [q for q in made if q.id not in self._tried]
        return sorted(fresh, key=lambda q: q.id)[: PER_DOCUMENT * TRIES]  # by hash: from all over the document

    def _sample(self, count: int) -> list[tuple[str, int]]:
        """(path, live version) of at most ``count`` documents, the same ones every time."""
        from sqlalchemy import select

        from rag.store.kbs import get_kb
        from rag.store.models import Document, DocumentVersion

        with self.service.database.session() as session:
            rows = session.execute(
                select(Document.path, DocumentVersion.id)
                .join(DocumentVersion, DocumentVersion.document_id == Document.id)
                .where(
                    Document.kb_id == get_kb(session, self.kb).id,
                    Document.deleted_at.is_(None),
                    DocumentVersion.deleted_at.is_(None),
                )
            ).all()
        return sorted(((row.path, row.id) for row in rows), key=lambda row: _id(row[0]))[:count]

    def _texts(self, paths: set[str]) -> dict[str, str]:
        """The live texts of those documents by path; what is gone is missing."""
        from rag.store.documents import live_version
        from rag.store.kbs import get_kb

        with self.service.database.session() as session:
            base = get_kb(session, self.kb)
            versions = {path: live_version(session, base, path) for path in paths}
            return {path: version.text for path, version in versions.items() if version is not None}

    def _read(self) -> tuple[list[OwnQuestion], set[str]]:
        file = self.folder / "set.json"
        if not file.is_file():
            return [], set()
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            return [OwnQuestion(**q) for q in stored["questions"]], set(stored["tried"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{file} is damaged ({error}); delete it, and a new set will be made.") from error

    def _write(self, report: OwnReport) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "set.json"
        temporary = file.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        write_json(temporary, {"questions": [asdict(q) for q in self.questions], "tried": sorted(self._tried)})
        os.replace(temporary, file)
        with (self.folder / "results.jsonl").open("a", encoding="utf-8") as results:
            results.write(json.dumps(report.to_dict(), ensure_ascii=False) + "\n")


def _works(answer: Answer, question: OwnQuestion) -> bool:
    return (
        answer.answerable
        and any(c.path == question.path for c in answer.citations)
        and right_answer(answer.answer, [question.answer])
    )


def _difference(question: OwnQuestion, answer: Answer) -> dict[str, str]:
    given = answer.answer if answer.answerable else ""
    return {
        "question": question.question,
        "path": question.path,
        "wanted": question.answer,
        "given": given,
        "reason": answer.reason,
    }


def _id(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
