"""Which questions meet in a batch: in-batch negatives made hard by what is put together.

A batch is a few seeds and, for each, questions whose passages are lexically near (BM25) to the seed's
question but are not its passage: BM25 hard negatives at no extra encoding, since each passage of the
batch is a negative for all the other questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag.embedders.training.pairs import Ids, Labelled, Ragged


def bm25_neighbours(
    queries: Ragged, passages: Ragged, vocab_size: int, top: int = 16, k1: float = 1.2, b: float = 0.75
) -> npt.NDArray[np.int32]:
    """(queries, top) indices of the best passages by BM25 over pieces."""
    from scipy.sparse import csr_matrix

    def counts(rows: Ragged) -> csr_matrix:
        matrix = csr_matrix(
            (np.ones(len(rows.ids), np.float32), rows.ids.astype(np.int32), rows.offsets),
            shape=(len(rows), vocab_size),
        )
        matrix.sum_duplicates()
        return matrix

    weight = counts(passages)
    length = np.diff(passages.offsets)
    df = np.bincount(weight.indices, minlength=vocab_size)
    idf = np.log(1 + (len(passages) - df + 0.5) / (df + 0.5)).astype(np.float32)
    row = np.repeat(np.arange(len(passages)), np.diff(weight.indptr))
    norm = k1 * (1 - b + b * length[row] / length.mean())
    weight.data = weight.data * (k1 + 1) / (weight.data + norm) * idf[weight.indices]
    asked, by_piece = counts(queries), weight.T.tocsr()
    asked.data[:] = 1
    out = np.empty((len(queries), top), np.int32)
    for start in range(0, len(queries), 512):
        scores = (asked[start : start + 512] @ by_piece).toarray()
        best = np.argpartition(-scores, top, axis=1)[:, :top]
        order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1)
        out[start : start + 512] = np.take_along_axis(best, order, 1)
    return out


@dataclass
class Batch:
    """Query i belongs to passage i; ``extra`` passages belong to none. Passages of one key are the same."""

    queries: list[Ids]
    passages: list[Ids]
    keys: list[int]
    extra: list[Ids]

    def add(self, query: Ids, passage: Ids, key: int) -> None:
        if len(query) and len(passage):
            self.queries.append(query)
            self.passages.append(passage)
            self.keys.append(key)


class Packer:
    """Batches of questions in which neighbours meet; every passage at most once in a batch."""

    def __init__(self, rows: Labelled, neighbours: npt.NDArray[np.int32], rng: np.random.Generator) -> None:
        self.rows, self.neighbours, self.rng = rows, neighbours, rng
        self.asked: dict[int, list[int]] = {}
        for question, passage in enumerate(rows.passage):
            self.asked.setdefault(int(passage), []).append(question)
        self.queue: list[int] = []

    def batch(self, size: int, near: int = 4) -> list[int]:
        """``size`` questions: seeds from a shuffled pass over all, each with up to ``near`` neighbours."""
        chosen, taken = list[int](), set[int]()
        while len(chosen) < size:
            if not self.queue:
                self.queue = self.rng.permutation(len(self.rows.questions)).tolist()
            seed = self.queue.pop()
            passage = int(self.rows.passage[seed])
            if passage in taken:
                continue
            group = [seed]
            taken.add(passage)
            for other in self.neighbours[seed]:
                if len(group) > near:
                    break
                if int(other) not in taken:
                    taken.add(int(other))
                    group.append(int(self.rng.choice(self.asked[int(other)])))
            chosen += group
        return chosen[:size]
