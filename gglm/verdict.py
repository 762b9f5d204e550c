"""What the answer to a yes/no question begins with: yes or no."""

from __future__ import annotations

_YES = frozenset("是可能需会會有对對要行必应應得算属都也允")
_NO = frozenset("不没沒无無否未别")


def said(answer: str) -> bool | None:
    """True for «可以，…», False for «不需要，…», None for anything else."""
    first = answer.lstrip()[:1]
    if first in _NO:
        return False
    return True if first in _YES else None
