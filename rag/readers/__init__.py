"""Readers: what turns a question and its passages into an answer."""

from __future__ import annotations

from rag.errors import InvalidInput
from rag.ports import Reader
from rag.settings import Settings


def load_reader(settings: Settings) -> Reader:
    """The reader that ``settings.reader`` names.

    ``gglm`` is our own generator, ``openai:MODEL@URL`` a server that speaks OpenAI's chat API
    (key in ``CHATGGLM_READER_API_KEY``), ``hf:NAME`` a transformers model or folder.

    Raises:
        InvalidInput: the setting names no reader.
        WeightsError: the weights cannot be loaded.
    """
    name = settings.reader.strip()
    if name == "gglm":
        from rag.readers.gglm import GGLMReader

        return GGLMReader.load(settings.reader_weights, settings.threads)
    if name.startswith("openai:"):
        from rag.readers.openai import OpenAIReader

        model, at, url = name.removeprefix("openai:").rpartition("@")
        if not at or not model or not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"CHATGGLM_READER={name!r}: write openai:MODEL@URL, e.g. openai:qwen3@http://localhost:8080/v1."
            )
        return OpenAIReader(model, url)
    if name.startswith("hf:") and len(name) > 3:
        from rag.readers.hf import load_hf_reader

        return load_hf_reader(name.removeprefix("hf:"), settings.threads)
    raise InvalidInput(f"CHATGGLM_READER={name!r} names no reader: use gglm, openai:MODEL@URL or hf:NAME.")
