"""How often the decoder's own reply to small talk can be shown; a fixed one stands in for the others.

    python benchmarks/smalltalk.py [FILE.jsonl] [--weights FOLDER] [--show] [--json]

FILE holds conversations as `data/smalltalk/dev.jsonl` does, whose messages occur in no training file. Counted are the
replies that are certain enough and pass `rag.smalltalk.fitting`, by topic; whether they are good is for a person to
see (``--show``).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rag.evaluation.rows import read_rows
from rag.readers.gglm import GGLMReader
from rag.smalltalk import classify, closing, fitting
from rag.types import Turn

DEV = Path(__file__).resolve().parent.parent / "data" / "smalltalk" / "dev.jsonl"


def measure(file: Path, weights: Path | None, show: bool = False) -> dict[str, Any]:
    """By topic and over all: messages, and how many get a reply of the decoder's own."""
    reader = GGLMReader.load(weights)
    asked, fit = Counter[str](), Counter[str]()
    for row in read_rows(file):
        *history, message, _ = (Turn(t["role"], t["content"]) for t in row["turns"])
        topic = classify(message.content) or (closing(message.content) if history else None)
        if topic is None:
            continue
        reply = reader.chat(message.content, history).strip()
        asked[topic] += 1
        fit[topic] += (good := fitting(topic, reply, message.content))
        if show:
            print("  " if good else "✗ ", f"{topic:9} {message.content} → {reply}")
    return {
        "model": reader.id,
        "count": asked.total(),
        "fitting": fit.total(),
        "by_topic": {topic: {"count": n, "fitting": fit[topic]} for topic, n in sorted(asked.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DEV)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--show", action="store_true", help="print every message with its reply")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report = measure(arguments.file, arguments.weights, arguments.show)
    print(json.dumps(report, ensure_ascii=False, indent=None if arguments.json else 1))


if __name__ == "__main__":
    main()
