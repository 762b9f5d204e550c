"""Decoding with a key/value cache: greedy, beam search, sampling, token by token, with provenance.

Knows token ids and memory positions only; `gglm.render` turns them into text. A token counts as
copied where the pointer gave it more probability than the vocabulary did (See et al. 2017); its
origin is then a memory position that holds the same token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gglm.model import ChatGGLM, DecoderOutput, Memory
from gglm.tokenizer import BOS, EOS, SPECIAL
from gglm.types import SamplingOptions

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Step:
    """One generated token; ``origin`` is the memory position it was copied from, None: written."""

    token: int
    log_prob: float
    origin: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decoder may not do, whatever the options say.

    forbidden: ids that never come out, bool (V,). copy_only: ids that count only as far as they are
    copied, bool (V,) or None («every figure and every Latin word is traceable»).
    """

    forbidden: Tensor
    copy_only: Tensor | None = None

    @classmethod
    def standard(cls, pieces: int, vocab_size: int, copy_only: Tensor | None = None) -> Rules:
        """Special tokens are forbidden, except the end; so is the table's padding beyond ``pieces``."""
        forbidden = torch.zeros(vocab_size, dtype=torch.bool)
        forbidden[: len(SPECIAL)] = True
        forbidden[pieces:] = True
        if copy_only is not None:
            copy_only = torch.nn.functional.pad(copy_only, (0, vocab_size - len(copy_only)))
        forbidden[EOS] = False
        return cls(forbidden, copy_only)


def step_scores(out: DecoderOutput, memory: Memory, rules: Rules) -> Tensor:
    """Log-probabilities (B, V) of the last step under the rules."""
    scores = out.log_probs[:, -1]
    if rules.copy_only is not None:
        copied = torch.zeros_like(scores).scatter_add_(1, memory.tokens, out.copy[:, -1])
        scores = torch.where(rules.copy_only, copied.log(), scores)
    return scores.masked_fill(rules.forbidden, NEVER)


def _constrain(scores: Tensor, history: Tensor, step: int, options: SamplingOptions) -> Tensor:
    """Repetition penalty and minimum length; scores (B, V), history int64 (B, T).

    A token's probability is divided by the penalty once for each time it came before.
    """
    if options.repetition_penalty != 1.0 and history.shape[1]:
        cost = torch.full(history.shape, -math.log(options.repetition_penalty))
        scores = scores.scatter_add(1, history, cost)
    if step < options.min_tokens:
        scores = scores.clone()
        scores[:, EOS] = NEVER
    return scores


def choose(scores: Tensor, options: SamplingOptions, generator: torch.Generator | None = None) -> int:
    """One token id from log-probabilities (V,): greedy at temperature 0, else top-k, top-p, sample."""
    if options.temperature == 0:
        return int(scores.argmax())
    scores = scores / options.temperature
    order = scores.argsort(descending=True, stable=True)
    ranked = scores[order].softmax(-1)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if options.top_k:
        keep[options.top_k :] = False
    if options.top_p < 1:
        ranked = ranked * keep
        ranked = ranked / ranked.sum()
        keep &= ranked.cumsum(-1) - ranked < options.top_p  # the token that crosses top_p stays
    ranked = ranked * keep
    return int(order[torch.multinomial(ranked, 1, generator=generator)])


def origin_of(token: int, row: int, out: DecoderOutput, memory: Memory, previous: int | None) -> int | None:
    """Memory position that ``token`` of batch row ``row`` was copied from at the last step, or None.

    Where several positions hold the token, the one after ``previous`` wins if the pointer gives it
    at least a tenth of the best: a copied stretch stays one stretch.
    """
    share = out.copy[row, -1] * memory.tokens[row].eq(token)
    copied = float(share.sum())
    if copied <= math.exp(float(out.log_probs[row, -1, token])) / 2:
        return None
    best = int(share.argmax())
    if previous is not None and previous + 1 < len(share) and share[previous + 1] >= share[best] / 10:
        return previous + 1
    return best


@torch.inference_mode()
def stream(model: ChatGGLM, memory: Memory, options: SamplingOptions, rules: Rules) -> Iterator[Step]:
    """Tokens as they are chosen (greedy or sampling), [EOS] included if it comes before the limit.

    Args:
        memory: of one question (B = 1).

    Raises:
        ValueError: beams were asked for, which cannot stream, or the memory holds several rows.
    """
    if options.beams > 1:
        raise ValueError("beam search cannot stream: use beams=1 or `generate`")
    if len(memory.tokens) != 1:
        raise ValueError("one question at a time can be streamed")
    generator = torch.Generator().manual_seed(options.seed) if options.seed is not None else None
    cache = model.decoder.new_cache()
    token, origin = BOS, None
    history: list[int] = []
    for step in range(options.max_tokens):
        out = model.decode(torch.tensor([[token]]), memory, cache)
        scores = step_scores(out, memory, rules)
        scores = _constrain(scores, torch.tensor([history], dtype=torch.int64), step, options)[0]
        token = choose(scores, options, generator)
        origin = None if token == EOS else origin_of(token, 0, out, memory, origin)
        yield Step(token, float(scores[token]), origin)
        if token == EOS:
            return
        history.append(token)


@dataclass(frozen=True, slots=True)
class _Beam:
    steps: tuple[Step, ...]
    total: float

    @property
    def score(self) -> float:
        """Mean log-probability: no bias towards short answers."""
        return self.total / max(1, len(self.steps))


@torch.inference_mode()
def beam_search(model: ChatGGLM, memory: Memory, options: SamplingOptions, rules: Rules) -> list[Step]:
    """Best sequence by mean log-probability, [EOS] included if it ends before the limit."""
    width = options.beams
    memory = memory.repeat(width)
    cache = model.decoder.new_cache()
    alive = [_Beam((), 0.0)]
    done: list[_Beam] = []
    tokens = torch.full((width, 1), BOS)
    for step in range(options.max_tokens):
        out = model.decode(tokens, memory, cache)
        scores = step_scores(out, memory, rules)
        history = torch.tensor(
            [[s.token for s in b.steps] for b in alive] + [[EOS] * step] * (width - len(alive)),
            dtype=torch.int64,
        ).view(width, step)
        scores = _constrain(scores, history, step, options)
        totals = scores[: len(alive)] + torch.tensor([[b.total] for b in alive])
        value, index = totals.flatten().topk(min(2 * width, totals.numel()))
        grown: list[_Beam] = []
        rows: list[int] = []
        for total, flat in zip(value.tolist(), index.tolist(), strict=True):
            row, token = divmod(flat, scores.shape[1])
            if total == NEVER:
                continue
            previous = alive[row].steps[-1].origin if alive[row].steps else None
            origin = None if token == EOS else origin_of(token, row, out, memory, previous)
            beam = _Beam((*alive[row].steps, Step(token, float(scores[row, token]), origin)), total)
            if token == EOS:
                done.append(beam)
            elif len(grown) < width:
                grown.append(beam)
                rows.append(row)
        if not grown:
            break
        best_done = max((b.score for b in done), default=NEVER)
        if len(done) >= width and best_done >= max(b.score for b in grown):
            break
        alive = grown
        rows += [rows[0]] * (width - len(rows))  # the cache keeps its width; spare rows are ignored
        tokens = torch.tensor([[b.steps[-1].token] for b in alive] + [[EOS]] * (width - len(alive)))
        cache.reorder(torch.tensor(rows))
    pool = done or alive
    return list(max(pool, key=lambda b: b.score).steps)


def generate(model: ChatGGLM, memory: Memory, options: SamplingOptions, rules: Rules) -> list[Step]:
    """All tokens at once, by whatever method the options name."""
    if options.beams > 1:
        return beam_search(model, memory, options, rules)
    return list(stream(model, memory, options, rules))


@torch.inference_mode()
def score(model: ChatGGLM, memory: Memory, tokens: list[int]) -> float:
    """Mean log-probability of ``tokens`` (with [EOS] at the end if wanted) in one pass: verifies a draft."""
    targets = torch.tensor([[BOS, *tokens[:-1]]])
    out = model.decode(targets, memory)
    wanted = torch.tensor(tokens)
    return float(out.log_probs[0].gather(1, wanted[:, None]).mean())
