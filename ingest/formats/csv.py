"""CSV and TSV in any common encoding: each row names its columns."""

from __future__ import annotations

import csv
import io

from ingest.canonical import Draft
from ingest.formats.encoding import decode


def parse(data: bytes, name: str) -> Draft:
    """The separator is the one of , ; tab and | that cuts the first lines most evenly."""
    found = decode(data)
    draft = Draft("text/csv", fidelity=found.fidelity())
    text = found.text.replace("\0", "")
    rows = list(csv.reader(io.StringIO(text), delimiter=_separator(text)))
    draft.table(rows, has_header=_has_header(rows) or None)
    return draft


def _separator(text: str) -> str:
    lines = [line for line in text.splitlines()[:50] if line.strip()]

    def evenness(separator: str) -> tuple[float, int]:
        counts = [line.count(separator) for line in lines]
        usual = max(set(counts), key=counts.count, default=0)
        return (counts.count(usual) / len(counts) if usual else 0.0, usual)

    return max(",\t;|", key=evenness) if lines else ","


def _has_header(rows: list[list[str]]) -> bool:
    """Names over data: all filled, all different, none a number."""
    first = [cell.strip() for cell in rows[0]] if rows else []
    return (
        len(rows) > 1
        and len(first) > 1
        and all(first)
        and len(set(first)) == len(first)
        and not any(cell.replace(".", "").replace(",", "").lstrip("-").isdigit() for cell in first)
    )
