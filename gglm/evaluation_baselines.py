"""What a model has to beat: the nearest sentence, the opening sentences, a word-by-word gloss."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gglm.errors import DataError
from gglm.summary import sentences

_REMARK = re.compile(r"\([^()]*\)|（[^（）]*）|\[[^\[\]]*\]")
_FULL_WIDTH = str.maketrans({"，": ", ", "。": ". ", "！": "! ", "？": "? ", "；": "; ", "：": ": ", "、": ", "})


def similarity(queries: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Cosine of TF-IDF over characters and character pairs, float32 (queries, texts); idf from ``texts``."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # no characters at all
        return np.zeros((len(queries), len(texts)), np.float32)
    dense: npt.NDArray[np.float32] = (vectorizer.transform(queries) @ matrix.T).toarray()
    return dense


def stripped_sentences(text: str) -> list[tuple[int, int]]:
    """Code points of the sentences that hold more than white space, without the space around them."""
    spans = []
    for start, end in sentences(text):
        body = text[start:end].strip()
        if body:
            start = text.index(body, start)
            spans.append((start, start + len(body)))
    return spans


def nearest_sentence(question: str, context: str) -> str:
    """The context's sentence most like the question (TF-IDF); empty for an empty context."""
    parts = [context[a:b] for a, b in stripped_sentences(context)]
    if not parts:
        return ""
    return parts[int(similarity([question], parts)[0].argmax())]


def lead(text: str, length: int = 0) -> str:
    """The first sentence, and those after it that still fit into ``length`` characters."""
    out = ""
    for start, end in stripped_sentences(text):
        sentence = text[start:end]
        if out and len(out) + len(sentence) > length:
            break
        out += sentence
    return out


class Glossary:
    """Chinese words with English glosses: translation word by word, always the longest word that fits.

    Args:
        file: JSON lines (``.zst`` too) of ``{"zh": word, "en": "gloss; gloss; …"}``, for instance CC-CEDICT.

    Raises:
        DataError: the file is missing or holds no such rows.
    """

    def __init__(self, file: Path) -> None:
        from gglm.evaluation import open_lines

        if not file.is_file():
            raise DataError(f"{file} does not exist")
        self.words: dict[str, str] = {}
        for line in open_lines(file):
            try:
                row = json.loads(line)
                word, gloss = str(row["zh"]), first_gloss(str(row["en"]))
            except (ValueError, KeyError, TypeError):
                continue
            if word and gloss:
                self.words.setdefault(word, gloss)
        if not self.words:
            raise DataError(f'{file} holds no glosses; rows look like {{"zh": "苹果", "en": "apple"}}')
        self.longest = max(map(len, self.words))

    def translate(self, text: str) -> str:
        """English words in Chinese order; what no word covers stays as it is."""
        out: list[str] = []
        at = 0
        while at < len(text):
            for size in range(min(self.longest, len(text) - at), 0, -1):
                if gloss := self.words.get(text[at : at + size]):
                    out.append(f" {gloss} ")
                    break
            else:
                size = 1
                out.append(text[at].translate(_FULL_WIDTH))
            at += size
        return re.sub(r" +([,.!?;:)])", r"\1", " ".join("".join(out).split()))


def first_gloss(gloss: str) -> str:
    """The first of several glosses, without remarks in brackets: «(bird) owl; fool» → «owl»."""
    for part in re.split(r"[;/]", _REMARK.sub(" ", gloss)):
        if words := " ".join(part.split()):
            return words
    return ""
