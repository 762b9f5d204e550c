"""Examples to tensors, and the losses over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gglm.model import NEGATIVE, Batch, ChatGGLM
from gglm.tokenizer import BOS, PAD
from gglm.training.spans import Example


@dataclass
class TrainBatch:
    """B rows of L tokens with M slots each.

    tokens, segments, matches int64 (B, L); allowed bool (B, L); slots int64 (B, M), asked bool
    (B, M); starts, ends bool (B, M, L): right positions; masked int64 (N, 2) row and position, labels
    int64 (N,); relevant float32 (B,), −1 = not asked; targets int64 (B, T) [BOS] … [EOS] or (B, 0);
    copyable bool (B, L).
    """

    tokens: Tensor
    segments: Tensor
    matches: Tensor
    allowed: Tensor
    slots: Tensor
    asked: Tensor
    starts: Tensor
    ends: Tensor
    masked: Tensor
    labels: Tensor
    relevant: Tensor
    targets: Tensor
    copyable: Tensor

    def to(self, device: str | torch.device) -> TrainBatch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


def collate(examples: Sequence[Example]) -> TrainBatch:
    """Pad examples to their longest."""
    rows, length = len(examples), max(len(e.tokens) for e in examples)
    slots = max(1, *(len(e.slots) for e in examples)) if rows > 1 else max(1, len(examples[0].slots))
    width = max(len(e.target) for e in examples)
    tokens, segments, matches = (np.zeros((rows, length), np.int64) for _ in range(3))
    allowed, copyable = np.zeros((rows, length), bool), np.zeros((rows, length), bool)
    slot, asked = np.zeros((rows, slots), np.int64), np.zeros((rows, slots), bool)
    starts, ends = np.zeros((rows, slots, length), bool), np.zeros((rows, slots, length), bool)
    targets = np.full((rows, width + 1 if width else 0), PAD, np.int64)
    for r, e in enumerate(examples):
        n = len(e.tokens)
        tokens[r, :n], segments[r, :n], matches[r, :n], allowed[r, :n] = e.tokens, e.segments, e.matches, e.allowed
        copyable[r, :n] = e.copyable if e.copyable is not None else e.segments == 2
        for m, (position, spans) in enumerate(e.slots):
            slot[r, m], asked[r, m] = position, True
            for first, last in spans:
                starts[r, m, first], ends[r, m, last] = True, True
        if width and len(e.target):
            targets[r, 0] = BOS
            targets[r, 1 : len(e.target) + 1] = e.target
    masked = np.concatenate([np.stack([np.full(len(e.masked), r), e.masked], 1) for r, e in enumerate(examples)])
    t = torch.from_numpy
    return TrainBatch(
        t(tokens), t(segments), t(matches), t(allowed), t(slot), t(asked), t(starts), t(ends), t(masked),
        t(np.concatenate([e.labels for e in examples])),
        torch.tensor([e.relevant for e in examples], dtype=torch.float32), t(targets), t(copyable),
    )  # fmt: skip


def losses(model: ChatGGLM, batch: TrainBatch, teacher_forcing_ratio: float = 1.0) -> dict[str, Tensor]:
    """Sums and counts of each loss that the batch asks for: ``{name: (sum, count) as a tensor (2,)}``.

    span: −log of the probability mass on right starts and ends (halved sum); masked: cross-entropy of
    masked tokens; relevance: binary cross-entropy; write: cross-entropy of the decoder's tokens.
    ``hit`` counts slots whose best start and end are both right.
    """
    hidden = model.encode(batch.tokens, batch.segments, batch.matches)
    out: dict[str, Tensor] = {}
    if batch.asked.any():
        start, end = model.span_head(hidden, batch.slots, batch.allowed)
        start, end = start[batch.asked], end[batch.asked]
        right_start, right_end = batch.starts[batch.asked], batch.ends[batch.asked]
        loss = _mass(start, right_start) + _mass(end, right_end)
        hit = _hit(start, right_start) & _hit(end, right_end)
        count = loss.new_tensor(float(len(loss)))
        out["span"] = torch.stack([loss.sum() / 2, count])
        out["hit"] = torch.stack([hit.sum().float(), count])
    if len(batch.labels):
        logits = model.masked_logits(hidden[batch.masked[:, 0], batch.masked[:, 1]])
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        out["masked"] = torch.stack([loss, loss.new_tensor(float(len(batch.labels)))])
    asked = batch.relevant >= 0
    if asked.any():
        logits = model.relevance_logits(hidden)[asked]
        loss = F.binary_cross_entropy_with_logits(logits, batch.relevant[asked], reduction="sum")
        out["relevance"] = torch.stack([loss, loss.new_tensor(float(len(logits)))])
    if batch.targets.shape[1]:
        out["write"] = _write_loss(model, batch, hidden, teacher_forcing_ratio)
    return out


def _write_loss(model: ChatGGLM, batch: TrainBatch, hidden: Tensor, ratio: float) -> Tensor:
    source = Batch(batch.tokens, batch.segments, batch.matches, batch.segments.eq(2), {"copyable": batch.copyable})
    memory = model.memory(source, hidden)
    inputs, wanted = batch.targets[:, :-1], batch.targets[:, 1:]
    if ratio < 1:
        with torch.no_grad():
            guess = model.decode(inputs, memory).log_probs.argmax(-1)
        guess = torch.cat([inputs[:, :1], guess[:, :-1]], 1)
        keep = torch.rand(inputs.shape, device=inputs.device) < ratio
        inputs = torch.where(keep | inputs.eq(PAD), inputs, guess)
    log_probs = model.decode(inputs, memory).log_probs
    loss = F.nll_loss(log_probs.flatten(0, 1), wanted.flatten(), ignore_index=PAD, reduction="sum")
    return torch.stack([loss, wanted.ne(PAD).sum().float()])


def _mass(logits: Tensor, right: Tensor) -> Tensor:
    return -logits.log_softmax(-1).masked_fill(~right, NEGATIVE).logsumexp(-1)


def _hit(logits: Tensor, right: Tensor) -> Tensor:
    return right.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)
