"""Embedders: our own `gglm-embed-zh`, any sentence-transformers name or folder, any OpenAI-compatible server."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from rag.errors import InvalidInput
from rag.ports import Embedder

DEFAULT = "gglm-embed-zh"
OPENAI = "openai:"
_lock = threading.Lock()
_loaded: dict[str, Embedder] = {}


def load_embedder(name: str = DEFAULT) -> Embedder:
    """The embedder of that name, loaded once a process.

    ``gglm-embed-zh`` is the one that comes with ChatGGLM; ``openai:MODEL@URL`` asks a server; any
    other name is a folder, or a name that sentence-transformers knows.

    Raises:
        InvalidInput: there is no such embedder, or its files are damaged.
    """
    name = name.strip()
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load(name)
        return _loaded[name]


@lru_cache(maxsize=32)
def embedder_id(name: str = DEFAULT) -> str:
    """What vectors made by that embedder are marked with, without loading it: name and fingerprint of
    the weights, so that vectors of different weights are never compared.

    Raises:
        InvalidInput: there is no such embedder.
    """
    name = name.strip()
    folder = _folder(name)
    if folder is None:
        return name
    digest = sha256()
    for path in sorted(folder.glob("**/*.safetensors")) + sorted(folder.glob("**/*.bin")):
        digest.update(path.relative_to(folder).as_posix().encode("utf-8"))
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"{folder.name}@{digest.hexdigest()[:12]}"


def _folder(name: str) -> Path | None:
    """The folder that a name means; None: it names something elsewhere."""
    if name == DEFAULT:
        folder = Path(__file__).parent / DEFAULT
        if not (folder / "modules.json").is_file():
            raise InvalidInput(
                "The embedder gglm-embed-zh is missing from this installation; install ChatGGLM again, "
                "or name another one in CHATGGLM_EMBEDDER."
            )
        return folder
    if name.startswith(OPENAI):
        return None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InvalidInput(f"CHATGGLM_EMBEDDER={name!r}: there is no such folder.")
    return None


def _load(name: str) -> Embedder:
    from rag.embedders.bert import BertEmbedder
    from rag.embedders.sentence import SentenceEmbedder

    if name.startswith(OPENAI):
        from rag.embedders.remote import RemoteEmbedder

        return RemoteEmbedder.parse(name)
    folder = _folder(name)
    if folder is not None and not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
        raise InvalidInput(f"CHATGGLM_EMBEDDER={name!r}: the folder holds no sentence-transformers model.")
    try:
        if folder is not None and BertEmbedder.fits(folder):
            with suppress(KeyError):  # tensors of other names, as very old checkpoints have
                return BertEmbedder(folder, embedder_id(name))
        return SentenceEmbedder(str(folder or name), embedder_id(name))
    except Exception as error:  # which ones a damaged folder raises is up to four libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidInput(f"The embedder {name!r} cannot be loaded: {reason}") from error
