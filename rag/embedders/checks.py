"""What every embedder owes: float32, unit length, the right prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rag.ports import FloatMatrix


def checked(vectors: FloatMatrix, name: str) -> FloatMatrix:
    """The vectors, if they are float32 (n, dim) of unit length.

    Raises:
        ValueError: they are not.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise ValueError(f"{name} gave {vectors.dtype} {vectors.shape}, not float32 (n, dim)")
    if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3):
        raise ValueError(f"{name} gave vectors that are not of unit length")
    return vectors


def prompts(folder: Path) -> tuple[str, str]:
    """What a folder's configuration puts before a query and before a passage."""
    path = folder / "config_sentence_transformers.json"
    known = (json.loads(path.read_text(encoding="utf-8")).get("prompts") or {}) if path.is_file() else {}
    return known.get("query", ""), known.get("passage") or known.get("document", "")
