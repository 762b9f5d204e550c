"""Plain text in any common Chinese encoding."""

from __future__ import annotations

from ingest.canonical import Draft
from ingest.formats.encoding import decode


def parse(data: bytes, name: str) -> Draft:
    """Lines become blocks; form feeds become pages."""
    found = decode(data)
    draft = Draft("text/plain", fidelity=found.fidelity())
    draft.text(found.text)
    return draft
