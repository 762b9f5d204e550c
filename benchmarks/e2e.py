"""End to end over a folder: ingest its documents, ask its questions, print what was right.

    python benchmarks/e2e.py FOLDER [--out report.json]

FOLDER holds ``docs/`` and ``questions.jsonl`` (see `rag.evaluation.answers`, which also says what
counts as right). State lives in a temporary directory; nothing of the user's is touched.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rag.cli import headline
from rag.evaluation.answers import evaluate, questions
from rag.evaluation.rows import read_rows


def run(folder: Path, home: Path) -> dict[str, Any]:
    """Ingest and ask; the answer report with the ingestion's figures added."""
    from ingest.pipeline import ingest
    from rag.service import get_service
    from rag.settings import Settings

    service = get_service(Settings(home=home))
    start = time.perf_counter()
    job = ingest(service, [folder / "docs"], kb="default")
    ingest_s = time.perf_counter() - start
    items = questions(read_rows(folder / "questions.jsonl"))
    start = time.perf_counter()
    service.answerer.ask(items[0].question)  # loads the reader
    first_s = time.perf_counter() - start
    report = evaluate(service.answerer, items)
    return {
        "documents": [{"path": d.path, "status": d.status, "chunks": d.chunks} for d in job.documents],
        "ingest_s": round(ingest_s, 2),
        "first_answer_s": round(first_s, 2),
        "model": service.reader.id,
        "embedder": service.embedder.id,
        **report,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="write the whole report as JSON")
    arguments = parser.parse_args()
    if not (arguments.folder / "questions.jsonl").is_file():
        parser.error(f"{arguments.folder} holds no questions.jsonl")
    with tempfile.TemporaryDirectory() as home:
        report = run(arguments.folder, Path(home))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, ensure_ascii=False, indent=2), encoding="utf-8")
    for verdict in report["questions"]:
        mark = "right" if verdict["right"] else "wrong"
        given = verdict["answer"] if verdict["answerable"] else "(refused)"
        print(f"{mark}  {verdict['p_answerable']:.2f}  {verdict['question']}  →  {given}  {list(verdict['golds'])}")
    print()
    for name, value in headline(report):
        print(f"{name}: {value}")
    print(f"ingest: {report['ingest_s']} s, first answer: {report['first_answer_s']} s, model: {report['model']}")


if __name__ == "__main__":
    main()
