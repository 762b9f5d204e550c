"""Word vectors that others made, as a start for the embedding tables: Word2Vec, GloVe, Hugging Face models.

A word of several tokens counts towards each of them (mean of all its words); a word of exactly two tokens is the pair's
own vector in the bigram table. A token that no word covers keeps its random start, a pair starts at zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gglm.errors import DataError
from gglm.tokenizer import Tokenizer
from gglm.training.corpus import Shards
from gglm.training.vectors import common_bigrams, token_stream

Floats = npt.NDArray[np.float32]
Words = Iterable[tuple[str, Floats]]


def read(path: Path) -> Iterator[tuple[str, Floats]]:
    """(word, vector) pairs of a file, told apart by its name.

    ``.bin`` and ``.bin.gz`` are Word2Vec's binary form (read by gensim); everything else is text, a word and its values
    a line, with Word2Vec's header line or without (GloVe).

    Raises:
        DataError: the file is missing or of no such form, or gensim is needed and not installed.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if path.name.endswith((".bin", ".bin.gz")):
        yield from _binary(path)
    elif path.suffix in (".kv", ".model", ".pkl", ".npy"):
        raise DataError(
            f"{path} is in gensim's own form, a pickle, which can run code: write it as Word2Vec first "
            "(`KeyedVectors.load(…).save_word2vec_format('vectors.bin', binary=True)`)"
        )
    else:
        yield from _text(path)


def _binary(path: Path) -> Iterator[tuple[str, Floats]]:
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise DataError("Word2Vec's binary form needs gensim: `pip install 'chatgglm[train]'`") from None
    try:
        vectors = KeyedVectors.load_word2vec_format(str(path), binary=True, unicode_errors="replace")
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a Word2Vec file ({error})") from None
    for word in vectors.index_to_key:
        yield word, vectors[word]


def _text(path: Path) -> Iterator[tuple[str, Floats]]:
    width = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            word, *values = line.rstrip().split(" ")
            if len(values) < 8 or not word:
                continue  # the header, or a broken line
            try:
                vector = np.array(values, np.float32)
            except ValueError:
                continue
            width = width or len(vector)
            if len(vector) == width:
                yield word, vector


def huggingface(folder: str, tokenizer: Tokenizer) -> Iterator[tuple[str, Floats]]:
    """Our tokens' own texts with the mean input embedding that a Transformers model gives them.

    Args:
        folder: a model folder on disk (or a name that Transformers knows).

    Raises:
        DataError: no model and tokenizer can be loaded from there.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(folder)
        table = AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach().float().numpy()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: not a Transformers model with its tokenizer ({error})") from None
    for piece in tokenizer.pieces:
        if piece.strip():
            ids = [i for i in theirs.encode(piece, add_special_tokens=False) if i != theirs.unk_token_id]
            if ids:
                yield piece, table[ids].mean(0)


def tables(
    words: Words, tokenizer: Tokenizer, vocab: int, keys: npt.NDArray[np.int64], dim: int
) -> tuple[Floats, Floats]:
    """Token vectors (vocab, dim) and bigram vectors (len(keys), dim), unit standard deviation; 0 where unknown.

    Longer vectors are projected by their first principal directions, shorter ones padded with zeros.

    Args:
        keys: sorted bigram keys ``previous * vocab + current``, −1 first (`gglm.training.vectors.common_bigrams`).

    Raises:
        DataError: there is no vector of any known token.
    """
    sums: Floats | None = None
    pairs: dict[int, Floats] = {}
    seen = np.zeros(vocab)
    known = set(keys[keys >= 0].tolist())
    for word, vector in words:
        ids = tokenizer.encode(word).astype(np.int64)
        if not len(ids):
            continue
        if sums is None:
            sums = np.zeros((vocab, len(vector)), np.float32)
        np.add.at(sums, ids, vector / len(ids))
        np.add.at(seen, ids, 1 / len(ids))
        if len(ids) == 2 and (key := int(ids[0] * vocab + ids[1])) in known:
            pairs.setdefault(key, vector)
    if sums is None or not seen.any():
        raise DataError("no word vectors found; expected lines of «word value value …»")
    tokens = sums / np.maximum(seen, 1e-6)[:, None].astype(np.float32)
    bigrams = np.zeros((len(keys), tokens.shape[1]), np.float32)
    for key, vector in pairs.items():
        bigrams[int(np.searchsorted(keys, key))] = vector
    if tokens.shape[1] > dim:
        _, _, directions = np.linalg.svd(tokens[seen > 0][:20_000], full_matrices=False)
        tokens, bigrams = tokens @ directions[:dim].T, bigrams @ directions[:dim].T
    scale = tokens[seen > 0].std() + 1e-8
    return _padded(tokens / scale, dim), _padded(bigrams / scale, dim)


def _padded(table: Floats, dim: int) -> Floats:
    return np.pad(table, ((0, 0), (0, dim - table.shape[1]))).astype(np.float32)


def start(
    words: Words, shards: Shards, tokenizer: Tokenizer, *, vocab: int, bigrams: int, dim: int, limit: int = 60_000_000
) -> dict[str, npt.NDArray]:
    """The same as `gglm.training.vectors.train` makes, from words' vectors; counts and pairs come from the shards."""
    ids = token_stream(shards, limit)
    content = np.zeros(vocab, bool)
    content[: len(tokenizer)] = tokenizer.is_content
    keys = common_bigrams(ids, content, vocab, bigrams)
    tokens, pairs = tables(words, tokenizer, vocab, keys, dim)
    return {"tokens": tokens, "bigrams": pairs, "keys": keys, "counts": np.bincount(ids, minlength=vocab)}
