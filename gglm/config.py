"""The one description of a network's shape; saved as ``config.json`` beside its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class GGLMConfig:
    """Shape of a `ChatGGLM`. Sizes are counts unless said otherwise.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    vocab_size: int = 11_520
    d_model: int = 256
    num_heads: int = 4
    kv_heads: int = 2
    """Key/value heads of the decoder (grouped-query attention, Ainslie et al. 2023)."""
    encoder_layers: int = 6
    decoder_layers: int = 2
    d_ff: int = 704
    feed_forward: Literal["gated", "relu2"] = "gated"
    conv_width: int = 5
    """Width of the depthwise convolution ahead of the encoder's attention; 0: none."""
    bigrams: int = 16_384
    """Rows of the bigram embedding; 0: none."""
    dropout: float = 0.0
    rope_base: float = 10_000.0
    window: int = 448
    """Tokens of a question with one passage, as trained; longer passages are read in windows."""
    max_positions: int = 2048

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads or (self.d_model // self.num_heads) % 2:
            raise ValueError("d_model must divide into num_heads of even width")
        if self.num_heads % self.kv_heads:
            raise ValueError("num_heads must be a multiple of kv_heads")
        if self.conv_width and self.conv_width % 2 == 0:
            raise ValueError("conv_width must be odd (or 0)")
        if self.feed_forward not in ("gated", "relu2"):
            raise ValueError(f"feed_forward must be gated or relu2, not {self.feed_forward!r}")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GGLMConfig:
        return cls(**values)


_SMALL = GGLMConfig()
PRESETS = {
    "tiny": replace(_SMALL, d_model=64, num_heads=2, kv_heads=1, encoder_layers=2, decoder_layers=1,
                    d_ff=128, bigrams=0),
    "small": _SMALL,
    "base": replace(_SMALL, d_model=384, num_heads=6, encoder_layers=9, decoder_layers=3, d_ff=1024),
}  # fmt: skip
"""``tiny`` is for tests, ``small`` trains on two CPU cores, ``base`` wants a GPU half-hour."""
