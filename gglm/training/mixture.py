"""What pretraining reads: the forms of recurring-span selection by their shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gglm.tokenizer import Tokenizer
from gglm.training.claims import ClaimWords, claim_row
from gglm.training.cloze import PairIndex, QuestionWords, question_rows
from gglm.training.corpus import Shards
from gglm.training.spans import Example, Lexicon, question_example, slots_example, window


@dataclass(frozen=True)
class Forms:
    """Shares of the forms of `gglm.training.spans` and of questions made by `gglm.training.cloze` and `.claims`.

    null: share of cloze and clause rows whose passage is another document's.
    """

    slots: float = 0.35
    cloze: float = 0.15
    clause: float = 0.2
    questions: float = 0.3
    claims: float = 0.0
    null: float = 0.15


class PretrainingSampler:
    """Rows made of plain text; the same generator state gives the same rows.

    Args:
        tokens: how much of the shards is searched for other passages of a made question.
    """

    def __init__(self, shards: Shards, tokenizer: Tokenizer, forms: Forms | None = None, tokens: int = 12_000_000):
        self.shards, self.forms = shards, forms or Forms()
        self.lexicon = Lexicon.build(tokenizer, shards)
        self.words, self.claim_words = QuestionWords.of(tokenizer), ClaimWords.of(tokenizer)
        self.index = PairIndex.build(shards, self.lexicon, tokens) if self.forms.questions else None

    def rows(self, rng: np.random.Generator, size: int) -> list[Example]:
        """One example, or the rows of one question over several passages; ``size`` tokens a row at most."""
        forms = self.forms
        shares = np.cumsum([forms.slots, forms.cloze, forms.clause, forms.questions, forms.claims])
        while True:
            form = int(np.searchsorted(shares, rng.random() * shares[-1], "right"))
            x, at = window(self.shards, rng, size - 8)
            if form == 3 and self.index is not None:
                rows = question_rows(x, at, self.shards, self.index, self.lexicon, self.words, rng, size)
                if rows:
                    return rows
                continue
            if form == 4:
                if rows := claim_row(x, self.lexicon, self.claim_words, rng, size):
                    return rows
                continue
            if form == 0:
                example = slots_example(x, self.lexicon, rng)
            else:
                other = window(self.shards, rng, size - 80)[0] if rng.random() < forms.null else None
                example = question_example(x, other, self.lexicon, rng, clause=form == 2)
            if example is not None:
                return [example]
