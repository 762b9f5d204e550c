"""Any model that sentence-transformers can load, by name or folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rag.embedders.checks import checked
from rag.ports import FloatMatrix


class SentenceEmbedder:
    """The `Embedder` port over `sentence_transformers.SentenceTransformer`, on the CPU."""

    def __init__(self, name: str, ident: str) -> None:
        from sentence_transformers import SentenceTransformer

        load: Any = SentenceTransformer
        self._model = load(name, device="cpu").float()  # some are stored in half precision, which a CPU emulates
        known = self._model.prompts or {}
        self._query = known.get("query") or ""
        self._passage = known.get("passage") or known.get("document") or ""
        self._id = ident
        self._dim = int(self._model.get_embedding_dimension())

    @property
    def id(self) -> str:
        """Name, and fingerprint of the weights where they lie in a folder."""
        return self._id

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of questions, with the model's query prompt."""
        return self._encode(texts, self._query)

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of passages, with the model's passage prompt."""
        return self._encode(texts, self._passage)

    def _encode(self, texts: Sequence[str], prompt: str) -> FloatMatrix:
        if not len(texts):
            return np.zeros((0, self._dim), dtype=np.float32)
        vectors = self._model.encode(  # sorts by length itself
            list(texts), prompt=prompt, normalize_embeddings=True, show_progress_bar=False
        )
        return checked(np.asarray(vectors, dtype=np.float32), self._id)
