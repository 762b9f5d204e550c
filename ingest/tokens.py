"""How long a text is for the generator: its own tokens, one a Han character, fewer a Latin word."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gglm.tokenizer import Tokenizer

Counts = npt.NDArray[np.int64]


def token_starts(text: str) -> Counts:
    """Code points at which the tokens of ``text`` begin, ascending, int64 (tokens,).

    ``np.searchsorted(starts, offset)`` tokens begin before an offset. A character that is none of the
    vocabulary's own counts as its UTF-8 bytes.
    """
    tokenizer = _tokenizer()
    if tokenizer is None:
        return np.arange(len(text))
    starts: Counts = tokenizer.encode_with_offsets(text)[1].astype(np.int64)
    return starts


def count(text: str) -> int:
    """Tokens of a text on its own."""
    return len(token_starts(text))


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer | None:
    """The shipped one, without the weights beside it: importing torch would take seconds a process."""
    from gglm import tokenizer

    models = sorted((Path(tokenizer.__file__).parent / "weights").glob("*/tokenizer.model"))
    return tokenizer.Tokenizer(models[0]) if models else None
