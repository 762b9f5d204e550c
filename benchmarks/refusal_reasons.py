"""Why a question is refused: «nothing relevant» or «relevant, but not answered», on questions of both kinds.

    python benchmarks/refusal_reasons.py FOLDER FOREIGN.jsonl[.zst] [--count 200] [--json]

FOLDER is labelled data as for `chatgglm eval answers`; FOREIGN holds questions that have nothing to do with its
documents (another set's, say). Counted are the refusals, and how many of them are told that nothing is relevant at the
limit `rag.readers.gglm.RELEVANT` and at others: foreign questions should be, those of FOLDER should not.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from ingest.evaluation import labelled
from rag.evaluation.rows import read_rows
from rag.readers.gglm import RELEVANT

LIMITS = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def measure(folder: Path, foreign: Path, count: int) -> dict[str, Any]:
    """By kind of question how many, how many refused, and by limit how many of those are told «nothing relevant»."""
    asked = [str(row["question"]) for row in read_rows(foreign)]
    report: dict[str, Any] = {"limit_now": RELEVANT}
    with labelled(folder) as made:
        kinds = {
            "foreign": random.Random(0).sample(asked, min(count, len(asked))),
            "answered in the documents": [q.question for q in made.questions if q.doc is not None],
            "near misses": [q.question for q in made.questions if q.doc is None],
        }
        for kind, questions in kinds.items():
            answers = [made.service.answerer.ask(question) for question in questions]
            refused = [a for a in answers if not a.answerable]
            best = [max((p.scores.relevance or 0.0 for p in a.passages), default=0.0) for a in refused]
            report[kind] = {
                "count": len(questions),
                "refused": len(refused),
                "nothing_relevant": {limit: sum(value < limit for value in best) for limit in LIMITS},
            }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("foreign", type=Path)
    parser.add_argument("--count", type=int, default=200, help="foreign questions, at most")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = measure(arguments.folder, arguments.foreign, arguments.count)
    print(json.dumps(report, ensure_ascii=False, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
