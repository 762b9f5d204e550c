"""Examples to tensors, and the losses over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gglm.model import NEGATIVE, ChatGGLM, Memory
from gglm.tokenizer import BOS, FIRST_TASK, PAD
from gglm.training.spans import Example


@dataclass
class TrainBatch:
    """B rows of L tokens with M slots each.

    tokens, segments, matches int64 (B, L); allowed bool (B, L); slots int64 (B, M), asked bool
    (B, M); starts, ends bool (B, M, L): right positions; masked int64 (N, 2) row and position, labels
    int64 (N,); relevant, verdict float32 (B,), −1 = not asked; targets int64 (B, T) [BOS] … [EOS] or (B, 0);
    copyable bool (B, L); group int64 (B,): rows of one number are passages of one question.
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
    verdict: Tensor
    targets: Tensor
    copyable: Tensor
    group: Tensor

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
        torch.tensor([e.relevant for e in examples], dtype=torch.float32),
        torch.tensor([e.verdict for e in examples], dtype=torch.float32), t(targets), t(copyable),
        t(np.cumsum([not e.same_question for e in examples]) - 1),
    )  # fmt: skip


def losses(
    model: ChatGGLM, batch: TrainBatch, teacher_forcing_ratio: float = 1.0, hidden: Tensor | None = None
) -> dict[str, Tensor]:
    """Sums and counts of each loss that the batch asks for: ``{name: (sum, count) as a tensor (2,)}``.

    ``hidden`` (B, L, D): encoder states, where they are there already.

    span: −log of the probability mass on right starts and ends (halved sum); masked: cross-entropy of
    masked tokens; relevance, verdict: binary cross-entropy; write: cross-entropy of the decoder's tokens.
    ``hit`` counts slots (questions) whose best start and end are both right.
    """
    if hidden is None:
        hidden = model.encode(batch.tokens, batch.segments, batch.matches)
    out: dict[str, Tensor] = {}
    relevance = model.relevance_logits(hidden)
    judged = batch.relevant >= 0
    spans = []
    alone = judged & batch.asked[:, 0] & ~batch.asked[:, 1:].any(-1)
    if (slots := batch.asked & ~alone[:, None]).any():
        start, end = model.span_head(hidden, batch.slots, batch.allowed)
        spans.append(_slot_loss(start[slots], end[slots], batch.starts[slots], batch.ends[slots]))
    if alone.any():
        start, end = model.span_head(hidden[alone], batch.slots[alone, :1], batch.allowed[alone])
        group = torch.unique_consecutive(batch.group[alone], return_inverse=True)[1]
        right = batch.starts[alone, 0], batch.ends[alone, 0]
        spans.append(_shared_norm_loss(start[:, 0], end[:, 0], *right, relevance[alone], group))
    if spans:
        loss, hit, count = (torch.stack(parts).sum(0) for parts in zip(*spans, strict=True))
        out["span"], out["hit"] = torch.stack([loss / 2, count]), torch.stack([hit, count])
    if len(batch.labels):
        logits = model.masked_logits(hidden[batch.masked[:, 0], batch.masked[:, 1]])
        loss = F.cross_entropy(logits, batch.labels, reduction="sum")
        out["masked"] = torch.stack([loss, loss.new_tensor(float(len(batch.labels)))])
    if judged.any():
        loss = F.binary_cross_entropy_with_logits(relevance[judged], batch.relevant[judged], reduction="sum")
        out["relevance"] = torch.stack([loss, judged.sum().float()])
    if (asked := batch.verdict >= 0).any():
        logits = model.verdict_logits(hidden[asked])
        loss = F.binary_cross_entropy_with_logits(logits, batch.verdict[asked], reduction="sum")
        out["verdict"] = torch.stack([loss, asked.sum().float()])
    if batch.targets.shape[1]:
        out["write"] = _write_loss(model, batch, hidden, teacher_forcing_ratio)
    return out


def _slot_loss(start: Tensor, end: Tensor, right_start: Tensor, right_end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, hits and count of slots (N, L), each normalised over its own row."""
    loss = _mass(start, right_start) + _mass(end, right_end)
    hit = _hit(start, right_start) & _hit(end, right_end)
    return loss.sum(), hit.sum().float(), loss.new_tensor(float(len(loss)))


def _mass(logits: Tensor, right: Tensor) -> Tensor:
    return -logits.log_softmax(-1).masked_fill(~right, NEGATIVE).logsumexp(-1)


def _hit(logits: Tensor, right: Tensor) -> Tensor:
    return right.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)


def _shared_norm_loss(
    start: Tensor, end: Tensor, right_start: Tensor, right_end: Tensor, relevance: Tensor, group: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for questions over several passages and one null together (Clark & Gardner 2018).

    start, end (N, L) with the row's own null at 0; relevance (N,); group (N,) sorted, from 0. Scores are
    joined as `gglm.reading.merge` joins them: over the row's null, the relevance added to the starts.
    """
    by_start = start - start[:, :1] + relevance[:, None]
    by_end = end - end[:, :1]
    loss, hit = start.new_zeros(()), torch.ones(int(group[-1]) + 1, dtype=torch.bool, device=start.device)
    for score, right in ((by_start, right_start), (by_end, right_end)):
        right = right.clone()
        right[:, 0] = False
        score = torch.cat([torch.full_like(score[:, :1], NEGATIVE), score[:, 1:]], 1)
        found = score.masked_fill(~right, NEGATIVE)
        every, best = _by_group(score.logsumexp(-1), group), _by_group(score.amax(-1), group)
        good, best_good = _by_group(found.logsumexp(-1), group), _by_group(found.amax(-1), group)
        answered = _by_group(right.any(-1).float(), group).amax(-1) > 0
        null = torch.where(answered, NEGATIVE, 0.0)[:, None]
        all_mass = torch.cat([every, torch.zeros_like(null)], 1).logsumexp(-1)
        loss = loss + (all_mass - torch.cat([good, null], 1).logsumexp(-1)).sum()
        top = best.amax(-1).clamp_min(0)
        hit &= torch.where(answered, best_good.amax(-1) >= top, best.amax(-1) <= 0)
    return loss, hit.sum().float(), loss.new_tensor(float(len(hit)))


def _by_group(values: Tensor, group: Tensor) -> Tensor:
    """Row values (N,) to (groups, most rows of a group), filled up with `NEGATIVE`."""
    rank = _rank(group)
    out = values.new_full((int(group[-1]) + 1, int(rank.max()) + 1), NEGATIVE)
    return out.index_put((group, rank), values)


def _rank(group: Tensor) -> Tensor:
    """Number of each row within its group; groups are consecutive."""
    position = torch.arange(len(group), device=group.device)
    _, inverse, counts = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    return position - (counts.cumsum(0) - counts)[inverse]


def _write_loss(model: ChatGGLM, batch: TrainBatch, hidden: Tensor, ratio: float) -> Tensor:
    """Each target is written from all passages of its question (Fusion-in-Decoder)."""
    asked = batch.targets[:, 0].eq(BOS).nonzero().squeeze(1)
    memory = _fused(model, batch, hidden, batch.group[asked])
    targets = batch.targets[asked]
    inputs, wanted = model.scheduled_inputs(targets[:, :-1], memory, ratio), targets[:, 1:]
    asked_for = wanted.ne(PAD)
    loss = -(model.target_log_probs(inputs, wanted, memory) * asked_for).sum()
    return torch.stack([loss, asked_for.sum().float()])


def _fused(model: ChatGGLM, batch: TrainBatch, hidden: Tensor, groups: Tensor) -> Memory:
    """What the decoder reads for the questions ``groups``: the rows of each end to end."""
    start, _ = model.span_logits(hidden, batch.segments.eq(2))
    member = batch.group[None].eq(groups[:, None])  # (questions, rows)
    order = member.int().argsort(dim=1, descending=True, stable=True)[:, : int(member.sum(1).max())]
    present = member.gather(1, order)

    def join(x: Tensor) -> Tensor:
        return x[order].flatten(1, 2)

    readable = join(batch.tokens.ne(PAD)) & present.repeat_interleave(batch.tokens.shape[1], 1)
    start = join(start).masked_fill(~readable, NEGATIVE)
    answering = batch.tokens[order[:, 0], 0].eq(FIRST_TASK)[:, None]  # only 问答 has a span head's say
    first = start.log_softmax(-1).detach() * answering
    return Memory(join(hidden), join(batch.tokens), readable, join(batch.copyable) & readable, first)
