"""End to end over labelled data: ingest its documents, ask its questions, print what was right.

    python benchmarks/e2e.py FOLDER|FILE [--out report.json]

`chatgglm eval answers` with the times of ingestion and of the first answer, and a line a question.
`ingest.evaluation` says what the data look like, `rag.evaluation.answers` what counts as right.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ingest.evaluation import labelled
from rag.evaluation.answers import evaluate, headline


def run(data: Path) -> dict[str, Any]:
    """Ingest and ask; the answer report with the ingestion's figures added."""
    start = time.perf_counter()
    with labelled(data) as made:
        ingest_s = time.perf_counter() - start
        start = time.perf_counter()
        made.service.answerer.ask(made.questions[0].question)  # loads the reader
        first_s = time.perf_counter() - start
        return {
            "documents": [{"path": d.path, "status": d.status, "chunks": d.chunks} for d in made.job.documents],
            "ingest_s": round(ingest_s, 2),
            "first_answer_s": round(first_s, 2),
            "model": made.service.reader.id,
            "embedder": made.service.embedder.id,
            **evaluate(made.service.answerer, made.questions),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="write the whole report as JSON")
    arguments = parser.parse_args()
    report = run(arguments.data)
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
