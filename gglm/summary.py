"""Extracted summaries: the sentences nearest to the whole text, each with its place in it.

Sentences are compared by the characters and character bigrams they share, weighted by how rare
they are within the text (centroid summarisation, Radev et al. 2004), and chosen for relevance and
against repetition (MMR, Carbonell & Goldstein 1998). Every character of such a summary is copied.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from gglm.text import normalize
from gglm.types import Piece, SourceSpan

_SENTENCE = re.compile(r"[^。！？!?；;\n]*(?:[。！？!?；;]+[”’」』）)》\"']*|\n+|$)")
_WORD = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]")
_NOISE = re.compile(r"^[#\s>*|\-=_\d.、）)（(]*$")


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Code points ``start:end`` of the sentences; together they are the whole text."""
    for match in _SENTENCE.finditer(text):
        if match.end() > match.start():
            yield match.start(), match.end()


def _terms(text: str) -> Counter[str]:
    words = _WORD.findall(normalize(text).lower())
    return Counter(words) + Counter(a + b for a, b in pairwise(words))


def _cosine(a: dict[str, float], b: dict[str, float]) -> float:
    if len(a) > len(b):
        a, b = b, a
    dot = sum(v * b[k] for k, v in a.items() if k in b)
    norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
    return dot / norm if norm else 0.0


def _size(text: str) -> tuple[int, float]:
    """How many sentences, and what an early place is worth: short texts open with their point."""
    if len(text) < 400:
        return 1, 1.0
    return (2, 0.5) if len(text) < 1200 else (3, 0.3)


def extract(
    text: str, max_sentences: int | None = None, max_chars: int = 220, lead: float | None = None
) -> tuple[Piece, ...]:
    """The chosen sentences in their order, each a copied piece; line breaks between them are ours.

    Against the opening sentences alone, ROUGE-L on held-out abstracts of papers is 23.4 to 19.4, and
    equal where one sentence is wanted (descriptions and titles of web pages).

    Args:
        max_sentences, lead: number of sentences and weight of standing early; by the text's length.
        max_chars: of all sentences together, the first one excepted.
    """
    count, weight = _size(text)
    max_sentences = count if max_sentences is None else max_sentences
    lead = weight if lead is None else lead
    spans = []
    for start, end in sentences(text):
        while start < end and (text[start].isspace() or text[start] in "#>*-|"):
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if end - start >= 6 and not _NOISE.match(text[start:end]):
            spans.append((start, end))
    if not spans:
        body = text.strip()
        at = text.find(body)
        return (Piece(body, SourceSpan(0, at, at + len(body))),) if body else ()
    spans = spans[:2000]
    terms = [_terms(text[a:b]) for a, b in spans]
    seen = Counter(t for bag in terms for t in bag)
    weigh = [{t: math.log1p(n) * math.log(1 + len(spans) / seen[t]) for t, n in bag.items()} for bag in terms]
    whole: Counter[str] = Counter()  # of floats, which it adds as well
    for bag in weigh:
        whole.update(bag)
    worth = [_cosine(bag, dict(whole)) + lead / (1 + i) for i, bag in enumerate(weigh)]
    chosen: list[int] = []
    length = 0
    while len(chosen) < max_sentences:
        best, value = -1, -math.inf
        for i, (a, b) in enumerate(spans):
            if i in chosen or (chosen and length + b - a > max_chars):
                continue
            repeat = max((_cosine(weigh[i], weigh[j]) for j in chosen), default=0.0)
            if worth[i] - 0.7 * repeat > value:
                best, value = i, worth[i] - 0.7 * repeat
        if best < 0:
            break
        chosen.append(best)
        length += spans[best][1] - spans[best][0]
    return tuple(_pieces(text, [spans[i] for i in sorted(chosen)]))


def _pieces(text: str, spans: list[tuple[int, int]]) -> Iterator[Piece]:
    for number, (start, end) in enumerate(spans):
        if number and text[spans[number - 1][1] - 1] not in "。！？!?；;”’」』）)》\"'":
            yield Piece("\n")
        yield Piece(text[start:end], SourceSpan(0, start, end))
