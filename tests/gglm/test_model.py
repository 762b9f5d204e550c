"""The network against other ways of computing the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gglm.config import GGLMConfig
from gglm.generate import Rules, stream
from gglm.model import (
    ChatGGLM,
    CrossAttention,
    Linear,
    Memory,
    SelfAttention,
    rope_table,
    rotate,
    unit_rms,
)
from gglm.quantize import quantize
from gglm.tasks import encode_task, pad_batch
from gglm.tokenizer import BOS, PAD, Tokenizer
from gglm.types import SamplingOptions

CONFIG = GGLMConfig(
    vocab_size=97, d_model=32, num_heads=4, kv_heads=2, encoder_layers=2, decoder_layers=2, d_ff=48,
    bigrams=16, window=64,
)  # fmt: skip
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def model() -> ChatGGLM:
    """A random model whose every part matters (zero-initialised projections are filled)."""
    torch.manual_seed(1)
    model = ChatGGLM(CONFIG).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim >= 2 and not p.any():
                p.normal_(std=0.5 * p.shape[1] ** -0.5)
            elif "gate" in name or "follow" in name:
                p.normal_(std=0.5)
    keys = torch.sort(torch.randperm(97 * 97)[:15]).values
    model.encoder.embedding.bigram_keys.copy_(torch.cat([torch.tensor([-1]), keys]))
    return model


def memory(rows: int = 1, length: int = 20, seed: int = 0) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(16, 97, (rows, length), generator=generator)
    tokens[:, -3:] = PAD
    copyable = torch.rand(rows, length, generator=generator) < 0.8
    first = torch.randn(rows, length, generator=generator).log_softmax(-1)
    hidden = torch.randn(rows, length, CONFIG.d_model, generator=generator)
    return Memory(hidden, tokens, tokens.ne(PAD), copyable & tokens.ne(PAD), first)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(Q Kᵀ / √width) V for one sequence, in loops; q (heads, L, width), k and v (kv_heads, S, width)."""
    heads, length, width = q.shape
    out = torch.zeros_like(q)
    for h in range(heads):
        group = h * k.shape[0] // heads
        for i in range(length):
            scores = []
            for j in range(k.shape[1]):
                score = sum(float(q[h, i, d]) * float(k[group, j, d]) for d in range(width)) / math.sqrt(width)
                if mask is not None:
                    score += float(mask[j])
                scores.append(-math.inf if causal and j > i else score)
            peak = max(scores)
            weights = [math.exp(s - peak) for s in scores]
            for j, w in enumerate(weights):
                out[h, i] += w / sum(weights) * v[group, j]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_self_attention_equals_the_formula(causal: bool, kv_heads: int, grad: bool) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(CONFIG, kv_heads)
    x = torch.randn(2, 7, CONFIG.d_model)
    cos, sin = rope_table(7, CONFIG.head_dim, CONFIG.rope_base)
    pad = torch.zeros(2, 1, 1, 7)
    if not causal:
        pad[1, ..., 5:] = -1e4
    with torch.set_grad_enabled(grad):
        got = attention(x, cos, sin, None if causal else pad, causal=causal)
    qkv = attention.qkv(x).view(2, 7, -1, CONFIG.head_dim).transpose(1, 2)
    q, k, v = qkv.split([4, kv_heads, kv_heads], dim=1)
    q, k = rotate(unit_rms(q), cos, sin), rotate(unit_rms(k), cos, sin)
    many_k, many_v = (t.repeat_interleave(4 // kv_heads, 1) for t in (k, v))
    fused = F.scaled_dot_product_attention(q, many_k, many_v, attn_mask=None if causal else pad, is_causal=causal)
    torch.testing.assert_close(got, attention.out(fused.transpose(1, 2).reshape(2, 7, -1)), **NEAR)
    with torch.no_grad():
        for row in range(2):
            loops = plain_attention(q[row], k[row], v[row], None if causal else pad[row, 0, 0], causal)
            torch.testing.assert_close(fused[row], loops, **NEAR)


def test_cross_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(CONFIG)
    x, source = torch.randn(1, 3, CONFIG.d_model), torch.randn(1, 9, CONFIG.d_model)
    mask = torch.zeros(1, 1, 1, 9)
    mask[..., 6:] = -1e4
    with torch.no_grad():
        got = attention(x, source, mask)
        q = unit_rms(attention.query(x).view(1, 3, 4, -1).transpose(1, 2))
        k, v = attention.project(source)
        loops = plain_attention(q[0], k[0], v[0], mask[0, 0, 0], causal=False)
        torch.testing.assert_close(got[0], attention.out(loops.transpose(0, 1).reshape(3, -1)), **NEAR)


def test_rope_depends_on_distance_only() -> None:
    cos, sin = rope_table(50, 8, 10_000.0)
    torch.manual_seed(0)
    q, k = torch.randn(8), torch.randn(8)

    def score(i: int, j: int) -> float:
        return float(
            rotate(q[None], cos[i : i + 1], sin[i : i + 1]) @ rotate(k[None], cos[j : j + 1], sin[j : j + 1]).T
        )

    assert score(3, 1) == pytest.approx(score(45, 43), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def test_cached_decoding_equals_the_full_pass(model: ChatGGLM) -> None:
    source = memory(rows=3)
    targets = torch.randint(16, 97, (3, 12))
    targets[:, 0] = BOS
    targets[:, 5] = source.tokens[:, 4]  # a copied bigram, so that the pointer's history counts
    targets[:, 6] = source.tokens[:, 5]
    with torch.inference_mode():
        full = model.decode(targets, source)
        cache = model.decoder.new_cache()
        for step in range(12):
            one = model.decode(targets[:, step : step + 1], source, cache)
            torch.testing.assert_close(one.log_probs[:, 0], full.log_probs[:, step], **NEAR)
            torch.testing.assert_close(one.copy[:, 0], full.copy[:, step], **NEAR)
            torch.testing.assert_close(one.generate[:, 0], full.generate[:, step], **NEAR)
        assert cache.length == 12


def test_decoder_s_probabilities_sum_to_one_and_masked_positions_get_none(model: ChatGGLM) -> None:
    source = memory(rows=2)
    with torch.inference_mode():
        out = model.decode(torch.randint(16, 97, (2, 5)), source)
    assert out.log_probs.exp().sum(-1) == pytest.approx(torch.ones(2, 5), abs=1e-4)
    assert (out.copy.sum(-1) + out.generate) == pytest.approx(torch.ones(2, 5), abs=1e-4)
    assert float(out.copy.masked_fill(source.copyable[:, None], 0).max()) == 0


def test_first_step_follows_the_span_head_only_where_it_judges(model: ChatGGLM) -> None:
    """A copyable position outside the passage stays above every position that may not be copied."""
    source = memory()
    source.first = torch.full_like(source.first, -1e4)  # type: ignore[arg-type]
    with torch.inference_mode():
        out = model.decode(torch.tensor([[BOS]]), source)
    assert float(out.copy[0, 0][~source.copyable[0]].sum()) < 1e-6


def test_nothing_to_copy_means_everything_is_written(model: ChatGGLM) -> None:
    source = memory()
    source.copyable[:] = False
    with torch.inference_mode():
        out = model.decode(torch.tensor([[BOS, 20]]), source)
    assert float(out.copy.sum()) < 1e-6
    steps = list(stream(model, source, SamplingOptions(max_tokens=6), Rules.standard(97, 97)))
    assert all(s.origin is None for s in steps)


def test_padding_changes_nothing(model: ChatGGLM, tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    short = torch.randint(16, 97, (1, 9))
    zeros = torch.zeros_like(short)
    padded, more = F.pad(short, (0, 7)), torch.zeros(1, 16, dtype=torch.int64)
    passage = torch.ones_like(short, dtype=torch.bool)
    with torch.inference_mode():
        a = model.encode(short, zeros, zeros)
        b = model.encode(padded, more, more)
        torch.testing.assert_close(a, b[:, :9], **NEAR)
        one = model.span_logits(a, passage)
        two = model.span_logits(b, F.pad(passage, (0, 7)))
        for x, y in zip(one, two, strict=True):
            torch.testing.assert_close(x, y[:, :9], **NEAR)


def test_fusion_of_one_passage_is_that_passage(model: ChatGGLM) -> None:
    """Positions that may not be read add nothing: two passages, one of them masked, equal the one."""
    one = memory(length=12)
    two = Memory(
        torch.cat([one.hidden, torch.randn_like(one.hidden)], 1),
        torch.cat([one.tokens, one.tokens], 1),
        torch.cat([one.readable, torch.zeros_like(one.readable)], 1),
        torch.cat([one.copyable, torch.zeros_like(one.copyable)], 1),
        torch.cat([one.first, torch.full_like(one.first, -50.0)], 1),  # type: ignore[list-item, arg-type]
    )
    targets = torch.tensor([[BOS, 30, 31]])
    with torch.inference_mode():
        a, b = model.decode(targets, one), model.decode(targets, two)
    torch.testing.assert_close(a.generate, b.generate, **NEAR)
    torch.testing.assert_close(a.copy, b.copy[..., :12], rtol=1e-3, atol=1e-4)


def test_int8_stays_near(model: ChatGGLM, tokenizer: Tokenizer) -> None:
    small = quantize(model)
    assert not any(isinstance(m, Linear) for m in small.encoder.modules())
    assert any(isinstance(m, Linear) for m in model.encoder.modules()), "the original stays as it was"
    tokens = torch.randint(16, 97, (2, 30))
    zeros = torch.zeros_like(tokens)
    with torch.inference_mode():
        a, b = model.encode(tokens, zeros, zeros), small.encode(tokens, zeros, zeros)
    assert float((a - b).norm() / a.norm()) < 0.1


def test_batches_of_inputs_keep_their_rows(tokenizer: Tokenizer) -> None:
    items = [encode_task("问答", tokenizer, "谁？", "题", "张三" * n) for n in (1, 5)]
    tokens, segments, matches, passage = pad_batch(items)
    assert tokens.shape == (2, len(items[1].tokens))
    for row, item in enumerate(items):
        n = len(item.tokens)
        assert np.array_equal(tokens[row, :n], item.tokens)
        assert np.array_equal(segments[row, :n], item.segments)
        assert np.array_equal(matches[row, :n], item.matches)
        assert not tokens[row, n:].any()
        assert passage[row].sum() == n - item.base
