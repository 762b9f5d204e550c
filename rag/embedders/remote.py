"""Any server that speaks OpenAI's ``/v1/embeddings``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rag.embedders.checks import checked
from rag.errors import IndexUnavailable, InvalidInput
from rag.ports import FloatMatrix

BATCH = 64
KEY = "CHATGGLM_EMBEDDER_API_KEY"


class RemoteEmbedder:
    """The `Embedder` port over HTTP; vectors are scaled to unit length here."""

    def __init__(self, model: str, url: str, timeout: float = 60) -> None:
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if (key := os.environ.get(KEY)) else {}
        self._model = model
        self._url = url.rstrip("/")
        self._client = httpx.Client(base_url=self._url, headers=headers, timeout=timeout)

    @classmethod
    def parse(cls, name: str) -> RemoteEmbedder:
        """From ``openai:MODEL@URL``.

        Raises:
            InvalidInput: it is not written so.
        """
        model, at, url = name.removeprefix("openai:").rpartition("@")
        if not at or not model or not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"CHATGGLM_EMBEDDER={name!r}: write openai:MODEL@URL, e.g. openai:bge-m3@http://localhost:8080/v1."
            )
        return cls(model, url)

    @property
    def id(self) -> str:
        """``openai:MODEL@URL``."""
        return f"openai:{self._model}@{self._url}"

    @cached_property
    def dim(self) -> int:
        """Length of a vector, asked once.

        Raises:
            IndexUnavailable: the server does not answer as it should.
        """
        return int(self._encode(["维度"]).shape[1])

    def encode_queries(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of questions."""
        return self._encode(texts)

    def encode_passages(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit-length vectors float32 (n, dim) of passages."""
        return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> FloatMatrix:
        import httpx

        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        rows: list[list[float]] = []
        try:
            for at in range(0, len(texts), BATCH):
                some = list(texts[at : at + BATCH])
                response = self._client.post("/embeddings", json={"model": self._model, "input": some})
                response.raise_for_status()
                data = sorted(response.json()["data"], key=lambda entry: entry["index"])
                if len(data) != len(some):
                    raise ValueError(f"{len(data)} vectors for {len(some)} texts")
                rows += [entry["embedding"] for entry in data]
            vectors = np.asarray(rows, dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            return checked(vectors, self.id)
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise IndexUnavailable(
                f"The embedding server {self._url} does not answer as it should ({error}). Check that it "
                f"runs, CHATGGLM_EMBEDDER, and {KEY}."
            ) from error
