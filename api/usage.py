"""Token counts for OpenAI's `usage`: in our vocabulary a Han character or digit is one token."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")


def count_tokens(text: str) -> int:
    """About how many of our tokens a text is: each Han character, digit and sign, and each Latin word."""
    return len(_TOKEN.findall(text))


def usage(prompt: list[str], completion: str) -> dict[str, int]:
    """OpenAI's usage object."""
    given = sum(count_tokens(text) for text in prompt)
    made = count_tokens(completion)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
