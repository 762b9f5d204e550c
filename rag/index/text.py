"""What both indexes know of a chunk."""

from __future__ import annotations


def index_text(title: str, heading: str, text: str) -> str:
    """Title, heading path and text, one under the other; empty parts are left out."""
    return "\n".join(part for part in (title, heading, text) if part)
