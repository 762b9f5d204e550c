"""Pairs to learn from, as token ids: chunks of running text (unlabelled) and questions with passages.

A chunk is stored sentence by sentence. Since punctuation always cuts (see `tokenizer`), a chunk's ids
are its sentences' ids in a row, so any pair made of parts is put together from slices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gglm.errors import DataError
from gglm.training.corpus import CAPS, read_jsonl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Ids = npt.NDArray[np.uint16]
SENTENCE = re.compile(r"[^。！？!?；;\n]+[。！？!?；;]*[”」』）)]*")
HEADING = re.compile(r"#{1,6}\s+(.*)")
TARGET = 300
"""Characters after which a chunk is closed at the next sentence end."""


class Ragged:
    """Many id sequences in one array: ``self[i]`` is ``ids[offsets[i]:offsets[i + 1]]`` (uint16)."""

    def __init__(self, ids: Ids, offsets: npt.NDArray[np.int64]) -> None:
        self.ids, self.offsets = ids, offsets

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> Ragged:
        offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
        ids = np.fromiter((i for s in sequences for i in s), np.uint16, int(offsets[-1]))
        return cls(ids, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ids:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def span(self, start: int, end: int) -> Ids:
        """Sequences ``start`` to ``end`` (not included) in a row."""
        return self.ids[self.offsets[start] : self.offsets[end]]


def chunks(title: str, text: str) -> Iterator[tuple[str, list[str]]]:
    """(title › heading, sentences) for stretches of about `TARGET` characters under one heading."""
    heading, sentences, size = "", list[str](), 0
    for line in text.split("\n"):
        match = HEADING.match(line)
        if match or size >= TARGET:
            if size >= 40:
                yield f"{title} {heading}".strip(), sentences
            sentences, size = [], 0
        if match:
            heading = match[1].strip()
            continue
        for sentence in SENTENCE.findall(line):
            if size >= TARGET:
                yield f"{title} {heading}".strip(), sentences
                sentences, size = [], 0
            sentences.append(sentence[:400])
            size += len(sentence)
    if size >= 40:
        yield f"{title} {heading}".strip(), sentences


def _pairs(ids: Ids) -> npt.NDArray[np.uint32]:
    """Each piece with the next as one number."""
    codes: npt.NDArray[np.uint32] = ids[:-1].astype(np.uint32) * np.uint32(1 << 16) + ids[1:]
    return codes


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Ids without special tokens."""
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@dataclass
class Corpus:
    """Chunks of running text. Chunk ``c`` holds sentences ``first[c]:first[c + 1]`` and heading ``head[c]``."""

    sentences: Ragged
    heads: Ragged
    first: npt.NDArray[np.int64]
    head: npt.NDArray[np.int64]
    document: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.head)

    def chunk(self, index: int) -> Ids:
        return self.sentences.span(int(self.first[index]), int(self.first[index + 1]))

    def pair(self, index: int, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """A query-like part and the chunk (or its rest, or its neighbour)."""
        start, end = int(self.first[index]), int(self.first[index + 1])
        kind = rng.random()
        if kind < 0.4 and len(self.heads[int(self.head[index])]) >= 2:
            return self.heads[int(self.head[index])], self.chunk(index)
        if kind > 0.8:
            if (cloze := self.recurring(index, rng)) is not None:
                return cloze
            if index + 1 < len(self) and self.document[index] == self.document[index + 1]:
                return self.chunk(index), self.chunk(index + 1)
        if end - start < 2:
            ids = self.chunk(index)
            half = len(ids) // 2
            return ids[:half], ids[half:]
        sentence = int(rng.integers(start, end))
        query = self.sentences[sentence]
        if len(query) > 12 and rng.random() < 0.5:  # short as questions are
            size = int(rng.integers(6, 13))
            at = int(rng.integers(0, len(query) - size + 1))
            query = query[at : at + size]
        if rng.random() < 0.1:  # now and then the very words are there to be found
            return query, self.chunk(index)
        before, after = self.sentences.span(start, sentence), self.sentences.span(sentence + 1, end)
        return query, np.concatenate([before, after])

    def recurring(self, index: int, rng: np.random.Generator, reach: int = 6) -> tuple[Ids, Ids] | None:
        """A window around the rarest two pieces that recur in another chunk of the document, and that chunk.

        Recurring spans as Spider (Ram et al. 2022) pairs them; None: nothing rare enough recurs.
        """
        near = np.arange(max(0, index - reach), min(len(self), index + reach + 1))
        near = near[(self.document[near] == self.document[index]) & (near != index)]
        ids = self.chunk(index)
        if not len(near) or len(ids) < 2:
            return None
        other = self.chunk(int(rng.choice(near)))
        pairs = _pairs(ids)
        shared = np.flatnonzero(np.isin(pairs, _pairs(other)))
        if not len(shared):
            return None
        counts = self.counts
        often = np.maximum(counts[ids[shared]], counts[ids[shared + 1]])
        if often.min() > 2e-4 * len(self.sentences.ids):
            return None
        at = int(shared[often.argmin()])
        size = int(rng.integers(6, 17))
        start = max(0, min(at - int(rng.integers(0, size - 1)), len(ids) - size))
        return ids[start : start + size], other

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """How often each piece occurs."""
        return np.bincount(self.sentences.ids, minlength=1 << 16)

    def save(self, path: Path) -> None:
        np.savez(
            path,
            sentence_ids=self.sentences.ids,
            sentence_offsets=self.sentences.offsets,
            head_ids=self.heads.ids,
            head_offsets=self.heads.offsets,
            first=self.first,
            head=self.head,
            document=self.document,
        )

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(path) as z:
            return cls(
                Ragged(z["sentence_ids"], z["sentence_offsets"]),
                Ragged(z["head_ids"], z["head_offsets"]),
                z["first"],
                z["head"],
                z["document"],
            )


def read_corpus(folder: Path, tokenizer: PreTrainedTokenizerFast, scale: float, seed: int = 0) -> Corpus:
    """Chunks of ``folder/*.jsonl.zst``, each source capped at ``scale`` × its cap of characters."""
    rng = np.random.default_rng(seed)
    sentences: list[Ids] = []
    heads: list[list[int]] = []
    first, head, document = [0], list[int](), list[int]()
    last: str | None = None
    files = sorted(folder.glob("*.jsonl.zst"))
    if not files:
        raise DataError(f"{folder}: no .jsonl.zst files with title and text")
    number = 0
    for file in files:
        rows = [(str(r.get("title") or ""), str(r.get("text") or "")) for r in read_jsonl(file)]
        rng.shuffle(rows)
        left = CAPS.get(file.name.split(".")[0], 2e6) * scale
        for title, text in rows:
            if left < 0:
                break
            text = text[:20_000]
            left -= len(text)
            found = list(chunks(title, text))
            if not found:
                continue
            number += 1
            ids = iter(tokenize(tokenizer, [s for _, part in found for s in part]))
            for label, part in found:
                kept = [np.array(i, np.uint16) for i in (next(ids) for _ in part) if i]
                if sum(map(len, kept)) < 24:
                    continue
                sentences += kept
                first.append(len(sentences))
                if label != last:
                    heads.append(tokenize(tokenizer, [label])[0][:32])
                    last = label
                head.append(len(heads) - 1)
                document.append(number)
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sentences])]).astype(np.int64)
    return Corpus(
        Ragged(np.concatenate(sentences), offsets),
        Ragged.of(heads),
        np.array(first),
        np.array(head),
        np.array(document),
    )


@dataclass
class Labelled:
    """Questions with the passage that answers them.

    ``passage[q]`` is question q's passage; ``centre[q]`` a position (ids) in it near the evidence, −1 unknown.
    """

    questions: Ragged
    passages: Ragged
    passage: npt.NDArray[np.int64]
    centre: npt.NDArray[np.int64]

    def chances(self, power: float) -> npt.NDArray[np.float64]:
        """Of being drawn, for each question: its passage's number of questions to minus this power (sum 1).

        0 draws questions alike, 1 passages alike, however many questions were written for one.
        """
        asked = np.bincount(self.passage, minlength=len(self.passages))
        weight = asked[self.passage].astype(float) ** -power
        return weight / weight.sum()

    def crop(self, question: int, size: int, rng: np.random.Generator) -> Ids:
        """A window of at most ``size`` ids of the passage that keeps the evidence."""
        ids, centre = self.passages[int(self.passage[question])], int(self.centre[question])
        if len(ids) <= size:
            return ids
        if centre < 0:
            at = int(rng.integers(0, len(ids) - size + 1))
        else:
            low, high = max(0, centre - size + 16), max(0, min(centre - 8, len(ids) - size))
            at = int(rng.integers(min(low, high), high + 1))
        return ids[at : at + size]


QA = ("cmrc2018_train", "drcd_train_subset", "authored_train", "cmrc2017_user_valid")
PAIRS = (
    ("retrieval/csl_title_abstract", "query", "positive"),
    ("summary/summ_chinaxiv_title", "summary", "text"),
    ("summary/summ_docs_title_ms", "summary", "text"),
    ("summary/summ_docs_other", "summary", "text"),
    ("summary/summ_docs_description_ms", "summary", "text"),
)


def labelled_rows(data: Path, files: Sequence[Path] = ()) -> Iterator[tuple[str, str, int, bool]]:
    """(question, passage, evidence offset or −1, is a real question) of everything that may be trained on.

    ``files`` hold further questions in the form of the ``qa`` sets. A passage that does not answer is no pair.
    """
    for file in (*(data / f"qa/{name}.jsonl.zst" for name in QA), *files):
        for row in read_jsonl(file):
            if not row.get("answerable", True):
                continue
            answers = row.get("answers") or [{}]
            start = int(answers[0].get("start", -1))
            if start < 0 and row.get("evidence"):
                start = row["context"].find(row["evidence"])
            yield row["question"], row["context"], start, True
    for row in read_jsonl(data / "chat/authored_conversations.jsonl.zst"):
        for turn in row["turns"]:
            if turn["kind"] not in ("chat", "unanswerable"):
                yield turn["rewrite"], row["context"], row["context"].find(turn["evidence"] or "\0"), True
    for name, query, passage in PAIRS:
        for row in read_jsonl(data / f"{name}.jsonl.zst"):
            yield row[query], row[passage][:1200], -1, False


@dataclass
class Texts:
    """What `Labelled` holds, as text: ``passage[q]`` is question q's, ``start[q]`` its evidence's offset or −1."""

    questions: list[str]
    passages: list[str]
    passage: list[int]
    start: list[int]


def labelled_texts(data: Path, files: Sequence[Path], real: bool) -> Texts:
    """Real questions, or titles and other short texts, each with their passages."""
    passages: dict[str, int] = {}
    found = Texts([], [], [], [])
    for question, text, start, is_real in labelled_rows(data, files):
        if is_real != real or len(question) < 3 or len(text) < 8:
            continue
        found.questions.append(question)
        found.passage.append(passages.setdefault(text, len(passages)))
        found.start.append(start)
    found.passages = list(passages)
    return found


def read_labelled(
    data: Path, tokenizer: PreTrainedTokenizerFast, files: Sequence[Path] = ()
) -> tuple[Labelled, Labelled]:
    """Real questions, and titles and other short texts, each with their passages."""
    questions, titles = (_labelled(labelled_texts(data, files, real), tokenizer) for real in (True, False))
    return questions, titles


def _labelled(texts: Texts, tokenizer: PreTrainedTokenizerFast) -> Labelled:
    begun = [texts.passages[p][: max(0, start)] for p, start in zip(texts.passage, texts.start, strict=True)]
    before = map(len, tokenize(tokenizer, begun))
    return Labelled(
        Ragged.of([i[:48] for i in tokenize(tokenizer, texts.questions)]),
        Ragged.of(tokenize(tokenizer, texts.passages)),
        np.array(texts.passage),
        np.array([n if start >= 0 else -1 for n, start in zip(before, texts.start, strict=True)]),
    )


HELD_OUT = 10
"""Every tenth row of the similarity pairs is kept for measuring."""


@dataclass
class Similar:
    """Sentences that mean the same, and for each ones that only resemble it (``negatives[i]``: rows of ``others``)."""

    first: Ragged
    second: Ragged
    others: Ragged
    negatives: list[npt.NDArray[np.int64]]


def similar_rows(data: Path, held_out: bool) -> list[tuple[str, str, list[str]]]:
    """(sentence, the same in other words, sentences that resemble it), the held-out tenth or the rest."""
    rows = read_jsonl(data / "retrieval/text2vec_bge_finetune.jsonl.zst")
    return [
        (row["query"], row["positive"], row["negatives"])
        for number, row in enumerate(rows)
        if (number % HELD_OUT == 0) == held_out
    ]


def read_similar(data: Path, tokenizer: PreTrainedTokenizerFast) -> Similar:
    rows = similar_rows(data, held_out=False)
    ends = np.cumsum([len(others) for _, _, others in rows])
    return Similar(
        Ragged.of(tokenize(tokenizer, [sentence for sentence, _, _ in rows])),
        Ragged.of(tokenize(tokenizer, [other for _, other, _ in rows])),
        Ragged.of(tokenize(tokenizer, [text for _, _, others in rows for text in others])),
        [np.arange(end - len(others), end) for (_, _, others), end in zip(rows, ends, strict=True)],
    )
