"""The network: an encoder–decoder Transformer that reads passages side by side and copies.

Shapes: B sequences, L source tokens, T target tokens, S memory tokens (all passages of a question
end to end), M question slots, D = d_model, V = vocabulary.

What is in it and where it comes from: pre-norm RMSNorm, RoPE (Su et al. 2021), QK-norm (Henry et
al. 2020), grouped-query attention in the decoder (Ainslie et al. 2023), Fusion-in-Decoder (Izacard
& Grave 2021), pointer-generator (See et al. 2017), bilinear span selection from a question slot
(Ram et al. 2021), match features (Chen et al. 2017), zero-initialised output projections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from gglm.config import GGLMConfig
from gglm.tokenizer import FIRST_TASK, PAD

MATCH_CODES = 8
SEGMENTS = 3
NEGATIVE = -1e4
"""Logit of what is not allowed; finite, so that a row with nothing allowed gives no NaN."""
OUTSIDE = -8.0
"""Start log-probability of copyable positions that the span head does not judge (question, history)."""


class Linear(nn.Linear):
    """No bias; float32 weights that follow the input's dtype (so no autocast is needed)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain (Zhang & Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype))


def unit_rms(x: Tensor) -> Tensor:
    """RMS norm without a gain."""
    return F.rms_norm(x, (x.shape[-1],))


def vocabulary_logits(x: Tensor, embedding: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """x (…, D) against the tied table (V, D): float32 (…, V), in as few passes over V as the number format lets."""
    scaled, table = x * gain.to(x.dtype), embedding.to(x.dtype)
    if x.dtype == torch.float32:
        return F.linear(scaled, table, bias)
    return F.linear(scaled, table).float() + bias  # a bias of −10 and a logit's decimals do not fit into bfloat16


def rope_table(positions: int, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 (positions, width / 2) each."""
    frequency = base ** (-torch.arange(0, width, 2).float() / width)
    angle = torch.arange(positions).float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x (…, positions, width)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q kᵀ / √width + mask) v for q (B, heads, L, width) and k, v (B, kv_heads, S, width).

    The fused kernel's backward pass is slow on CPUs (training 1.2–1.5 × slower, measured), so there
    the plain formula trains; everywhere else PyTorch's fused one runs.
    """
    groups = q.shape[1] // k.shape[1]
    if q.device.type == "cpu" and torch.is_grad_enabled():
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        score = (q * q.shape[-1] ** -0.5) @ k.mT
        if mask is not None:
            score = score + mask
        if causal:
            after = torch.ones(score.shape[-2:], dtype=torch.bool).triu(1)
            score = score.masked_fill(after, NEGATIVE)
        return score.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=groups > 1)


class DepthwiseConv(nn.Module):
    """x plus a depthwise convolution over positions, as shifted multiply-adds; starts as identity."""

    def __init__(self, width: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, d_model))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        half, length = len(weight) // 2, x.shape[1]
        padded = F.pad(x, (0, 0, half, half))
        for i, tap in enumerate(weight):
            x = x + padded[:, i : i + length] * tap
        return x


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020) or ReLU² (So et al. 2021) at equal parameters."""

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.gated = config.feed_forward == "gated"
        hidden = config.d_ff if self.gated else config.d_ff * 3 // 2
        self.up = Linear(config.d_model, 2 * hidden if self.gated else hidden)
        self.down = Linear(hidden, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, -1)
            return self.down(F.silu(gate) * x)
        return self.down(F.relu(x).square())


@dataclass
class LayerCache:
    """Keys and values that one decoder layer has seen: (B, heads, positions, width)."""

    key: Tensor | None = None
    value: Tensor | None = None
    memory_key: Tensor | None = None
    memory_value: Tensor | None = None


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √width) V with separate projections, RoPE and QK-norm."""

    def __init__(self, config: GGLMConfig, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = config.num_heads, kv_heads, config.head_dim
        self.qkv = Linear(config.d_model, (self.heads + 2 * kv_heads) * self.width)
        self.out = Linear(config.d_model, config.d_model)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """x (B, L, D); ``mask`` is added to the scores; ``cos``/``sin`` belong to x's positions."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, -1, self.width).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(unit_rms(q), cos, sin), rotate(unit_rms(k), cos, sin)
        if cache is not None:
            if cache.key is not None and cache.value is not None:
                k, v = torch.cat([cache.key, k], 2), torch.cat([cache.value, v], 2)
            cache.key, cache.value = k, v
        y = attention(q, k, v, mask, causal and length > 1)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class CrossAttention(nn.Module):
    """Attention from the decoder to the memory of all passages; keys and values are cached once."""

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width = config.num_heads, config.kv_heads, config.head_dim
        self.query = Linear(config.d_model, config.d_model)
        self.key_value = Linear(config.d_model, 2 * self.kv_heads * self.width)
        self.out = Linear(config.d_model, config.d_model)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, S, D) to keys and values (B, kv_heads, S, width)."""
        kv = self.key_value(memory).view(*memory.shape[:2], -1, self.width).transpose(1, 2)
        k, v = kv.split(self.kv_heads, dim=1)
        return unit_rms(k), v

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, cache: LayerCache | None = None) -> Tensor:
        batch, length, _ = x.shape
        q = unit_rms(self.query(x).view(batch, length, self.heads, self.width).transpose(1, 2))
        if cache is not None and cache.memory_key is not None and cache.memory_value is not None:
            k, v = cache.memory_key, cache.memory_value
        else:
            k, v = self.project(memory)
            if cache is not None:
                cache.memory_key, cache.memory_value = k, v
        y = attention(q, k, v, mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class EncoderLayer(nn.Module):
    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model)
        self.conv = DepthwiseConv(config.conv_width, config.d_model) if config.conv_width else nn.Identity()
        self.attention = SelfAttention(config, config.num_heads)
        self.feed_forward_norm = RMSNorm(config.d_model)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, keep: Tensor | None) -> Tensor:
        """``keep`` (B, L, 1) zeroes padding ahead of the convolution, which would see it otherwise."""
        z = self.attention_norm(x)
        x = x + self.attention(self.conv(z if keep is None else z * keep), cos, sin, mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Embedding(nn.Module):
    """Token, bigram, segment and match embeddings, summed.

    The bigram table holds the commonest token pairs; ``bigram_keys`` (sorted, int64) maps
    ``previous * vocab_size + current`` to its row, row 0 standing for every other pair.
    """

    bigram_keys: Tensor

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.token = nn.Embedding(config.vocab_size, config.d_model)
        self.segment = nn.Embedding(SEGMENTS, config.d_model)
        self.match = nn.Embedding(MATCH_CODES, config.d_model)
        if config.bigrams:
            self.bigram = nn.Embedding(config.bigrams, config.d_model)
            self.register_buffer("bigram_keys", torch.full((config.bigrams,), -1, dtype=torch.int64))

    def bigram_rows(self, tokens: Tensor) -> Tensor:
        """Row of the pair (previous, current) at each position, int64 (B, L)."""
        key = F.pad(tokens, (1, 0))[:, :-1] * self.vocab_size + tokens
        row = torch.searchsorted(self.bigram_keys, key).clamp_(max=len(self.bigram_keys) - 1)
        return row.masked_fill_(self.bigram_keys[row].ne(key), 0)

    def forward(self, tokens: Tensor, segments: Tensor, matches: Tensor) -> Tensor:
        x = self.token(tokens) + self.segment(segments) + self.match(matches)
        if hasattr(self, "bigram"):
            left = self.bigram_rows(tokens)
            right = F.pad(left, (0, 1))[:, 1:]
            x = x + self.bigram(left) + self.bigram(right)
        return x


class Encoder(nn.Module):
    """Reads question and passage together, each passage for itself."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.embedding = Embedding(config)
        self.dropout = config.dropout
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        cos, sin = rope_table(config.max_positions, config.head_dim, config.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, segments: Tensor, matches: Tensor, dtype: torch.dtype) -> Tensor:
        """int64 (B, L) each to hidden states (B, L, D) of ``dtype``; [PAD] is masked."""
        x = self.embedding(tokens, segments, matches)
        x = unit_rms(F.dropout(x, self.dropout, self.training).to(dtype))
        pad = tokens.eq(PAD)
        mask = keep = None
        if torch.compiler.is_exporting() or bool(pad.any()):  # an exported graph cannot look at its values
            keep = (~pad)[..., None].to(dtype)
            mask = torch.zeros(pad.shape, dtype=dtype, device=x.device).masked_fill_(pad, NEGATIVE)
            mask = mask[:, None, None, :]
        cos, sin = self.cos[: x.shape[1]].to(dtype), self.sin[: x.shape[1]].to(dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask, keep)
        return unit_rms(x)


class SpanHead(nn.Module):
    """Start and end of the answer by bilinear match of a question slot with every position."""

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        d = config.d_model
        self.start_query, self.start_key = Linear(d, d), Linear(d, d)
        self.end_query, self.end_key = Linear(d, d), Linear(d, d)
        self.scale = 4 / math.sqrt(d)

    def forward(self, hidden: Tensor, slots: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (B, L, D), slots int64 (B, M), allowed bool (B, L) → float32 (B, M, L) twice."""
        query = hidden.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))
        no = ~allowed[:, None]

        def match(q: Tensor, k: Tensor) -> Tensor:
            return (q @ k.mT).float().mul(self.scale).masked_fill(no, NEGATIVE)

        return (
            match(self.start_query(query), self.start_key(hidden)),
            match(self.end_query(query), self.end_key(hidden)),
        )


class DecoderLayer(nn.Module):
    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model)
        self.attention = SelfAttention(config, config.kv_heads)
        self.cross_norm = RMSNorm(config.d_model)
        self.cross = CrossAttention(config)
        self.feed_forward_norm = RMSNorm(config.d_model)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, memory: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, causal=True, cache=cache)
        x = x + self.cross(self.cross_norm(x), memory, mask, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


@dataclass
class DecoderCache:
    """What incremental decoding keeps: one `LayerCache` a layer, the pointer's keys, the last two tokens."""

    layers: list[LayerCache]
    pointer_key: Tensor | None = None
    tokens: Tensor | None = None
    length: int = 0

    def reorder(self, rows: Tensor) -> None:
        """Keep ``rows`` of the batch (beam search)."""

        def pick(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.index_select(0, rows)

        for layer in self.layers:
            layer.key, layer.value = pick(layer.key), pick(layer.value)
            layer.memory_key, layer.memory_value = pick(layer.memory_key), pick(layer.memory_value)
        self.pointer_key, self.tokens = pick(self.pointer_key), pick(self.tokens)


@dataclass
class Memory:
    """Encoded sources of a batch of questions, passages end to end.

    hidden (B, S, D); tokens int64 (B, S); readable bool (B, S): may be attended to; copyable bool
    (B, S): may be copied from; first float32 (B, S) or None: log-probability that the answer
    starts there (from the span head), which steers the first copy.
    """

    hidden: Tensor
    tokens: Tensor
    readable: Tensor
    copyable: Tensor
    first: Tensor | None = None

    def repeat(self, times: int) -> Memory:
        """Each row ``times`` times in a row (beams)."""
        first = None if self.first is None else self.first.repeat_interleave(times, 0)
        return Memory(
            self.hidden.repeat_interleave(times, 0),
            self.tokens.repeat_interleave(times, 0),
            self.readable.repeat_interleave(times, 0),
            self.copyable.repeat_interleave(times, 0),
            first,
        )


@dataclass
class DecoderOutput:
    """Distributions over the next token.

    log_probs float32 (B, T, V), both parts together; copy float32 (B, T, S): the pointer's share of
    each source position, summing with ``generate`` (B, T) to 1.
    """

    log_probs: Tensor
    copy: Tensor
    generate: Tensor


class Pointer(nn.Module):
    """Copy distribution over source tokens.

    Beside the learnt match it knows exactly where the last one and two target tokens stand in the
    source, so that «go on copying» need not be learnt; at the first step the span head's start
    distribution is added.
    """

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.query, self.key = Linear(config.d_model, config.d_model), Linear(config.d_model, config.d_model)
        self.scale = 4 / math.sqrt(config.d_model)
        self.follow = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.first = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, key: Tensor, memory: Memory, previous: Tensor, start: int) -> Tensor:
        """x (B, T, D), key (B, S, D), previous int64 (B, T, 2) → log-probabilities float32 (B, T, S)."""
        score = (self.query(x) @ key.mT).float() * self.scale
        last = F.pad(memory.tokens, (1, 0))[:, None, :-1].eq(previous[..., 1:])
        both = last & F.pad(memory.tokens, (2, 0))[:, None, :-2].eq(previous[..., :1])
        score = score + self.follow[0] * last + self.follow[1] * both
        if memory.first is not None and start == 0:
            # Outside the passage the span head says nothing: neither favoured nor pushed below what is masked.
            first = memory.first.masked_fill(memory.first < NEGATIVE / 2, OUTSIDE)
            score = torch.cat([score[:, :1] + self.first * first[:, None], score[:, 1:]], 1)
        return score.masked_fill(~memory.copyable[:, None], NEGATIVE).log_softmax(-1)


class Decoder(nn.Module):
    """Writes the answer: masked self-attention, cross-attention to all passages, pointer and vocabulary."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.pointer = Pointer(config)
        self.gate = nn.Linear(config.d_model, 1)
        self.project = Linear(config.d_model, config.d_model)
        cos, sin = rope_table(config.max_positions, config.head_dim, config.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def new_cache(self) -> DecoderCache:
        return DecoderCache([LayerCache() for _ in self.layers])

    def forward(
        self,
        targets: Tensor,
        embedding: Tensor,
        bias: Tensor,
        gain: Tensor,
        memory: Memory,
        cache: DecoderCache | None = None,
    ) -> DecoderOutput:
        """targets int64 (B, T), [BOS] first (or the new ones, with a cache); embedding (V, D) is tied."""
        logits, copy, gate = self._scores(targets, embedding, bias, gain, memory, cache)
        write = logits.log_softmax(-1) + F.logsigmoid(gate)[..., None]
        copy = (copy + F.logsigmoid(-gate)[..., None]).exp()
        spread = torch.zeros_like(write).scatter_add_(-1, memory.tokens[:, None].expand(-1, targets.shape[1], -1), copy)
        return DecoderOutput((write.exp() + spread).clamp_min(1e-12).log(), copy, gate.sigmoid())

    def target_log_probs(
        self, inputs: Tensor, wanted: Tensor, embedding: Tensor, bias: Tensor, gain: Tensor, memory: Memory
    ) -> Tensor:
        """Log-probability of each of ``wanted`` (B, T) after ``inputs`` (B, T), float32 (B, T).

        What `forward` gives for these tokens, without spreading the pointer over the whole vocabulary:
        training needs no more, and most of the decoder's time and memory went there.
        """
        logits, copy, gate = self._scores(inputs, embedding, bias, gain, memory, None)
        # Fused: gathering from the logits and their logsumexp takes half as long again.
        surprise = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        write = F.logsigmoid(gate) - surprise.view_as(wanted)
        there = memory.tokens[:, None].eq(wanted[..., None])
        copied = copy.masked_fill(~there, NEGATIVE).logsumexp(-1) + F.logsigmoid(-gate)
        return torch.logaddexp(write, copied)

    def _scores(
        self,
        targets: Tensor,
        embedding: Tensor,
        bias: Tensor,
        gain: Tensor,
        memory: Memory,
        cache: DecoderCache | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vocabulary logits (B, T, V), log-probabilities of the pointer (B, T, S), logits of the gate (B, T)."""
        dtype, start = memory.hidden.dtype, cache.length if cache else 0
        x = unit_rms(F.embedding(targets, embedding).to(dtype))
        span = slice(start, start + targets.shape[1])
        cos, sin = self.cos[span].to(dtype), self.sin[span].to(dtype)
        mask = None
        if torch.compiler.is_exporting() or not bool(memory.readable.all()):
            mask = torch.zeros(memory.readable.shape, dtype=dtype, device=x.device)
            mask = mask.masked_fill_(~memory.readable, NEGATIVE)[:, None, None, :]
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, memory.hidden, mask, cache.layers[i] if cache else None)
        x = unit_rms(x)

        before = cache.tokens if cache and cache.tokens is not None else targets.new_full((len(targets), 1), PAD)
        history = torch.cat([before, targets], 1)
        if cache is None or cache.tokens is None:
            previous = torch.stack([history[:, :-1], history[:, 1:]], -1)
        else:
            previous = torch.stack([history[:, -targets.shape[1] - 1 : -1], history[:, -targets.shape[1] :]], -1)
        key = cache.pointer_key if cache and cache.pointer_key is not None else self.pointer.key(memory.hidden)
        if cache is not None:
            cache.pointer_key, cache.tokens = key, history[:, -1:]
            cache.length = start + targets.shape[1]

        copy = self.pointer(x, key, memory, previous, start)
        gate = F.linear(x, self.gate.weight.to(dtype), self.gate.bias.to(dtype)).float().squeeze(-1)
        nothing = ~memory.copyable.any(-1, keepdim=True)
        gate = gate.masked_fill(nothing, -NEGATIVE)
        return vocabulary_logits(unit_rms(self.project(x)), embedding, gain, bias), copy, gate


@dataclass
class Batch:
    """Encoder input: int64 (B, L) each; passage bool (B, L) marks what may be quoted."""

    tokens: Tensor
    segments: Tensor
    matches: Tensor
    passage: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


def _without_verdict(model: ChatGGLM, state: dict[str, Tensor], *_: object) -> None:
    """Weights from before the verdict head: one that knows nothing."""
    state.setdefault("verdict_head.weight", torch.zeros(1, model.config.d_model))
    state.setdefault("verdict_head.bias", torch.zeros(1))


class ChatGGLM(nn.Module):
    """Encoder, decoder and heads.

    ``compute_dtype`` is what activations are computed in (weights stay float32).
    """

    def __init__(self, config: GGLMConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.span_head = SpanHead(config)
        self.relevance_head = nn.Linear(config.d_model, 1)
        self.verdict_head = nn.Linear(config.d_model, 1)
        self.register_load_state_dict_pre_hook(_without_verdict)
        self.masked_head = Linear(config.d_model, config.d_model)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        """Starts at the unigram log-probabilities."""
        self.output_gain = nn.Parameter(torch.tensor(0.3))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and "conv" not in name:
                std = 0.3 if "embedding" in name else 0.6 * parameter.shape[1] ** -0.5
                parameter.normal_(std=std)
        for module in self.modules():
            if isinstance(module, (SelfAttention, CrossAttention)):
                module.out.weight.zero_()
            elif isinstance(module, FeedForward):
                module.down.weight.zero_()
        self.encoder.embedding.segment.weight.mul_(0.3)
        self.encoder.embedding.match.weight.mul_(0.3)
        for head in (self.relevance_head, self.verdict_head):
            head.weight.zero_()
            head.bias.zero_()
        self.decoder.gate.weight.zero_()
        self.decoder.gate.bias.zero_()

    @property
    def embedding(self) -> Tensor:
        """The tied token table (V, D)."""
        return self.encoder.embedding.token.weight

    def encode(self, tokens: Tensor, segments: Tensor, matches: Tensor) -> Tensor:
        """int64 (B, L) each → hidden states (B, L, D)."""
        out: Tensor = self.encoder(tokens, segments, matches, self.compute_dtype)
        return out

    def span_logits(self, hidden: Tensor, passage: Tensor, slots: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Start and end logits, float32 (B, L): position 0 is «no answer», else only passage tokens.

        With ``slots`` (B, M), one pair a slot: (B, M, L).
        """
        allowed = passage.clone()
        allowed[:, 0] = True
        if slots is not None:
            start, end = self.span_head(hidden, slots, allowed)
            return start, end
        start, end = self.span_head(hidden, torch.ones_like(allowed[:, :1], dtype=torch.int64), allowed)
        return start.squeeze(1), end.squeeze(1)

    def relevance_logits(self, hidden: Tensor) -> Tensor:
        """Does the passage answer the question? float32 (B,)."""
        return self.relevance_head(hidden[:, 0].float()).squeeze(-1)

    def verdict_logits(self, hidden: Tensor) -> Tensor:
        """Does the passage answer a yes/no question with yes? float32 (B,), from the question's slot."""
        return self.verdict_head(hidden[:, 1].float()).squeeze(-1)

    def masked_logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary logits for chosen positions, hidden (N, D) → float32 (N, V)."""
        return vocabulary_logits(unit_rms(self.masked_head(hidden)), self.embedding, self.output_gain, self.output_bias)

    def decode(self, targets: Tensor, memory: Memory, cache: DecoderCache | None = None) -> DecoderOutput:
        """Next-token distributions after each of ``targets`` (B, T)."""
        out: DecoderOutput = self.decoder(targets, self.embedding, self.output_bias, self.output_gain, memory, cache)
        return out

    def target_log_probs(self, inputs: Tensor, wanted: Tensor, memory: Memory) -> Tensor:
        """Log-probability of each of ``wanted`` (B, T) after ``inputs`` (B, T), [BOS] first: float32 (B, T)."""
        return self.decoder.target_log_probs(inputs, wanted, self.embedding, self.output_bias, self.output_gain, memory)

    def forward(self, src: Batch, tgt: Tensor, teacher_forcing_ratio: float = 1.0) -> DecoderOutput:
        """Training pass: tgt int64 (B, T) starts with [BOS].

        Below 1.0 that share of the target inputs stays gold and the others become the model's own
        guess from a first pass (scheduled sampling in two passes, Mihaylova & Martins 2019).
        """
        memory = self.memory(src)
        return self.decode(self.scheduled_inputs(tgt, memory, teacher_forcing_ratio), memory)

    @torch.no_grad()
    def scheduled_inputs(self, inputs: Tensor, memory: Memory, ratio: float) -> Tensor:
        """``inputs`` (B, T) with a share of ``1 - ratio`` replaced by the model's own guesses; [BOS] and [PAD] stay."""
        if ratio >= 1.0:
            return inputs
        guess = self.decode(inputs, memory).log_probs.argmax(-1)
        guess = torch.cat([inputs[:, :1], guess[:, :-1]], 1)
        keep = torch.rand(inputs.shape, device=inputs.device) < ratio
        return torch.where(keep | inputs.eq(PAD), inputs, guess)

    def memory(self, src: Batch, hidden: Tensor | None = None) -> Memory:
        """One question a row, one passage each: what the decoder reads.

        Only in 问答 does the span head say where the answer may start.
        """
        hidden = self.encode(src.tokens, src.segments, src.matches) if hidden is None else hidden
        start, _ = self.span_logits(hidden, src.passage)
        answering = src.tokens[:, :1].eq(FIRST_TASK)
        first = start.log_softmax(-1).detach() * answering
        copyable = src.extra.get("copyable", src.passage)
        return Memory(hidden, src.tokens, src.tokens.ne(PAD), copyable, first)

    def count_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())
