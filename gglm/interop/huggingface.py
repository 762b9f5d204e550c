"""GGLM as a Transformers model: ``AutoModelForSeq2SeqLM`` loads it, ``generate`` writes what our greedy decoding does.

Importing this module registers the classes. The model takes token ids alone (`inputs` makes them): segments, match
codes and what may be copied follow from the layout of `gglm.tasks`. Decoding knows the engine's rules (no special
tokens; in 问答 digits and Latin words only as copies), so every decoding method of Transformers obeys them. One passage
a row, without a key/value cache: for several passages, spans, offsets and speed there is `gglm.engine`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

from gglm import generate, weights
from gglm.config import GGLMConfig
from gglm.errors import WeightsError
from gglm.model import Batch, ChatGGLM, Decoder, Encoder, rope_table
from gglm.tasks import TASK_ID, Encoded, Task, encode_task, encode_writing, match_codes, pad_batch
from gglm.tokenizer import BOS, EOS, FIRST_TASK, PAD, PARA, SEP, Tokenizer
from gglm.types import Turn


class ChatGGLMConfig(PretrainedConfig):
    """The network's shape (`GGLMConfig`) under ``gglm``, and what the weights folder said beside it."""

    model_type = "chatgglm"

    def __init__(self, gglm: dict[str, Any] | None = None, pieces: int = 0, **kwargs: Any) -> None:
        shape = GGLMConfig.from_dict(gglm or {})
        self.gglm, self.pieces = shape.to_dict(), pieces
        self.vocab_size, self.hidden_size = shape.vocab_size, shape.d_model
        self.num_attention_heads, self.num_hidden_layers = shape.num_heads, shape.decoder_layers
        kwargs = {
            "is_encoder_decoder": True, "tie_word_embeddings": False, "use_cache": False, "pad_token_id": PAD,
            "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS, **kwargs,
        }  # fmt: skip
        super().__init__(**kwargs)


class ChatGGLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """`gglm.model.ChatGGLM` with the interface of Transformers' encoder–decoder models."""

    config_class = ChatGGLMConfig
    base_model_prefix = "gglm"
    main_input_name = "input_ids"
    content: Tensor
    copy_only: Tensor

    def __init__(self, config: ChatGGLMConfig) -> None:
        super().__init__(config)
        self.gglm = ChatGGLM(GGLMConfig.from_dict(config.gglm))
        for name in ("content", "copy_only"):
            self.register_buffer(name, torch.zeros(config.vocab_size, dtype=torch.bool))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Parameters have their values already; the position tables are not stored."""
        if isinstance(module, Encoder | Decoder):
            shape = self.gglm.config
            cos, sin = rope_table(shape.max_positions, shape.head_dim, shape.rope_base)
            module.cos.copy_(cos)
            module.sin.copy_(sin)

    def get_encoder(self, *_: Any, **__: Any) -> nn.Module:
        return _EncoderView(self)

    def get_input_embeddings(self) -> nn.Module:
        table: nn.Module = self.gglm.encoder.embedding.token
        return table

    def batch(self, input_ids: Tensor) -> Batch:
        """All that the encoder wants, from token ids int64 (B, L) in the layout of `gglm.tasks`."""
        segments, matches = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
        passage, copyable = (torch.zeros_like(input_ids, dtype=torch.bool) for _ in range(2))
        content = self.content.cpu().numpy()
        for row, ids in enumerate(input_ids.cpu().numpy()):
            length = int((ids != PAD).sum())
            sep = int(np.argmax(ids == SEP))
            base = int(np.argmax(ids == PARA)) + 1
            ours, theirs = match_codes(ids[2:sep], ids[base:length], content)
            segments[row, sep + 1 : base] = 1
            segments[row, base:length] = 2
            matches[row, 2:sep] = torch.from_numpy(ours).to(matches.device)
            matches[row, base:length] = torch.from_numpy(theirs).to(matches.device)
            passage[row, base:length] = True
            copyable[row, base:length] = True
            if ids[0] in (TASK_ID["对话"], TASK_ID["改写"]):
                copyable[row, 2:sep] = True
        return Batch(input_ids, segments, matches, passage, {"copyable": copyable})

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput:
        """Log-probabilities of the next tokens as ``logits`` float32 (B, T, V).

        Args:
            attention_mask: for the interface's sake; padding is [PAD], wherever it is.
            labels: int64 (B, T), −100 where none: gives ``loss`` and the decoder's inputs (shifted right).
            encoder_outputs: an `EncodedSource`, which `generate` makes once and hands on.
        """
        if encoder_outputs is None:
            if input_ids is None:
                raise ValueError("the model needs input_ids")
            encoder_outputs = self.get_encoder()(input_ids)
        source = encoder_outputs["source_ids"]
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("the model needs decoder_input_ids or labels")
            decoder_input_ids = F.pad(labels[:, :-1].masked_fill(labels[:, :-1] < 0, PAD), (1, 0), value=BOS)
        memory = self.gglm.memory(self.batch(source), encoder_outputs["last_hidden_state"])
        out = self.gglm.decode(decoder_input_ids, memory)
        loss, logits = None, out.log_probs
        if labels is not None:
            loss = F.nll_loss(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        else:
            rules = generate.Rules.standard(self.config.pieces, self.config.vocab_size).forbidden.to(logits.device)
            answering = source[:, :1].eq(FIRST_TASK)
            ruled = generate.step_scores(out, memory, generate.Rules(rules, self.copy_only))
            free = generate.step_scores(out, memory, generate.Rules(rules))
            logits = torch.cat([logits[:, :-1], torch.where(answering, ruled, free)[:, None]], 1)
        return Seq2SeqLMOutput(loss=loss, logits=logits, encoder_last_hidden_state=memory.hidden)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, encoder_outputs: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return {"decoder_input_ids": input_ids, "encoder_outputs": encoder_outputs}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


@dataclass
class EncodedSource(ModelOutput):
    """Encoder states (B, L, D) with the token ids (B, L) beside them, which the pointer copies."""

    last_hidden_state: Tensor | None = None
    source_ids: Tensor | None = None


class _EncoderView(nn.Module):
    """The encoder as a module of its own, from token ids."""

    model: ChatGGLMForConditionalGeneration

    def __init__(self, model: ChatGGLMForConditionalGeneration) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not a submodule: the parameters have one owner

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> EncodedSource:
        batch = self.model.batch(input_ids)
        return EncodedSource(self.model.gglm.encode(batch.tokens, batch.segments, batch.matches), input_ids)


AutoConfig.register("chatgglm", ChatGGLMConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(ChatGGLMConfig, ChatGGLMForConditionalGeneration, exist_ok=True)


def inputs(
    tokenizer: Tokenizer,
    task: Task,
    texts: Sequence[tuple[str, str]],
    history: Sequence[Turn] = (),
) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask`` int64 (B, L), padded to the longest.

    Args:
        texts: (question, passage) a row; in 对话 and 改写 (message, ""), in 摘要 and 翻译 ("", text).
        history: what was said before, in 对话 and 改写.
    """
    rows: list[Encoded] = []
    for question, passage in texts:
        if task == "问答":
            rows.append(encode_task(task, tokenizer, question, "", passage))
        else:
            rows.append(encode_writing(task, tokenizer, question or passage, history)[0])
    tokens = torch.from_numpy(pad_batch(rows)[0])
    return {"input_ids": tokens, "attention_mask": tokens.ne(PAD).long()}


def export(source: Path | None, out: Path) -> Path:
    """A weights folder (the shipped one by default) as a Transformers folder, `tokenizer.model` and card beside it.

    Raises:
        WeightsError: the weights folder is missing or damaged.
    """
    loaded = weights.load(source)
    extra = {"name": loaded.name, "reader": asdict(loaded.reader), "tasks": list(loaded.tasks), "meta": loaded.meta}
    config = ChatGGLMConfig(
        gglm=loaded.model.config.to_dict(), pieces=len(loaded.tokenizer), chatgglm=extra,
        architectures=["ChatGGLMForConditionalGeneration"],
    )  # fmt: skip
    model = ChatGGLMForConditionalGeneration(config)
    model.gglm.load_state_dict(loaded.model.state_dict())
    size = len(loaded.tokenizer)
    model.content[:size] = torch.from_numpy(loaded.tokenizer.is_content)
    model.copy_only[:size] = torch.from_numpy(loaded.tokenizer.copy_only)
    model.save_pretrained(out)
    (out / weights.TOKENIZER).write_bytes(loaded.tokenizer.model.read_bytes())
    card = loaded.folder / weights.CARD
    if card.is_file():
        (out / weights.CARD).write_bytes(card.read_bytes())
    return out


def import_(source: Path, out: Path, name: str = "") -> Path:
    """The way back: a Transformers folder made by `export` (and perhaps trained on) as a weights folder.

    Raises:
        WeightsError: the folder is not one of ours.
    """
    try:
        kind = json.loads((source / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source} is not a Transformers folder: {error}") from None
    tokenizer = source / weights.TOKENIZER
    if kind != ChatGGLMConfig.model_type or not tokenizer.is_file():
        raise WeightsError(f"{source} was not made by `chatgglm convert`: its model type is {kind}")
    model = AutoModelForSeq2SeqLM.from_pretrained(source)
    extra = getattr(model.config, "chatgglm", {})
    card = source / weights.CARD
    weights.save(
        out, model.gglm, tokenizer, name or extra.get("name", source.name), tasks=extra.get("tasks", ()),
        card=card.read_text(encoding="utf-8") if card.is_file() else "", meta=extra.get("meta"),
    )  # fmt: skip
    if "reader" in extra:
        weights.update_config(out, reader=extra["reader"])
    return out
