"""A transformers model as a reader: extractive (question answering) or generative (seq2seq, causal).

Optional and for comparison: nothing is downloaded unless the named model is not on disk yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gglm.errors import WeightsError
from rag.ports import Reader
from rag.readers.matching import overlap, supported_output
from rag.readers.openai import PROMPT, REFUSAL
from rag.types import Passage, ReaderOutput, Span, Turn


def load_hf_reader(name: str, threads: int = 1) -> Reader:
    """Load a model by name or folder; its architecture decides how it reads.

    Raises:
        WeightsError: it cannot be loaded, or is of no kind that reads.
    """
    import torch
    import transformers

    torch.set_num_threads(threads)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        architectures = " ".join(config.architectures or ())
        if "QuestionAnswering" in architectures:
            extractive = transformers.AutoModelForQuestionAnswering.from_pretrained(name)
            if not tokenizer.is_fast:
                raise WeightsError(f"{name} has no fast tokenizer, which offsets need.")
            return ExtractiveReader(name, extractive.eval(), tokenizer)
        tokenizer.truncation_side = "left"  # the question stands last
        auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        return GenerativeReader(name, auto.from_pretrained(name).eval(), tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"Cannot load hf:{name} as a reader: {error}") from error


ANSWERABLE = 0.5
"""Below this probability that a span answers, none does."""


class ExtractiveReader:
    """Span extraction in overlapping windows; the best span of all passages against the null score."""

    MAX_ANSWER_TOKENS = 64

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.window = min(int(getattr(model.config, "max_position_embeddings", 512) or 512), 512)

    @property
    def id(self) -> str:
        return f"hf:{self.name}"

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        import math

        best: tuple[float, int, Span] | None = None
        margins = []
        for index, passage in enumerate(passages):
            score, null, span = self._best_span(question, passage.text)
            margins.append(score - null if span is not None else -math.inf)
            if span is not None and (best is None or score - null > best[0]):
                best = (score - null, index, span)
        relevance = tuple(1 / (1 + math.exp(-max(min(m, 30.0), -30.0))) for m in margins)
        if best is None:
            return ReaderOutput("", False, 0.0, 0.0, relevance, kind="supported")
        _, index, span = best
        text = passages[index].text[span.start : span.end]
        probability = max(relevance)
        return ReaderOutput(
            text=text,
            answerable=probability >= ANSWERABLE,
            p_answerable=probability,
            confidence=probability,
            relevance=relevance,
            spans=((index, span, Span(0, len(text))),),
            kind="supported",
        )

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        return [overlap(question, f"{p.title} {p.heading} {p.text}") for p in passages]

    def _best_span(self, question: str, text: str) -> tuple[float, float, Span | None]:
        """(score of the best span, best null score, the span) over all windows of a text."""
        import torch

        encoded = self.tokenizer(
            question[: self.window // 2],
            text,
            truncation="only_second",
            max_length=self.window,
            stride=self.window // 4,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping").tolist()
        encoded.pop("overflow_to_sample_mapping", None)
        with torch.inference_mode():
            output = self.model(**encoded)
        best: tuple[float, Span | None] = (-float("inf"), None)
        null = float("inf")
        for row, pairs in enumerate(offsets):
            inside = torch.tensor([s == 1 for s in encoded.sequence_ids(row)])
            start = output.start_logits[row].masked_fill(~inside, -1e9)
            end = output.end_logits[row].masked_fill(~inside, -1e9)
            null = min(null, float(output.start_logits[row, 0] + output.end_logits[row, 0]))
            scores = start[:, None] + end[None, :]
            allowed = torch.ones_like(scores).triu().tril(self.MAX_ANSWER_TOKENS - 1).bool()
            scores = scores.masked_fill(~allowed, -2e9)
            at = int(scores.argmax())
            first, last = divmod(at, scores.shape[1])
            left, right = pairs[first][0], pairs[last][1]
            if float(scores[first, last]) > best[0] and left < right:
                best = (float(scores[first, last]), Span(left, right))
        return best[0], null, best[1]


class GenerativeReader:
    """Greedy generation from a prompt with the passages; cited by verified matching."""

    def __init__(self, name: str, model: Any, tokenizer: Any, max_new_tokens: int = 96) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.max_new_tokens = max_new_tokens

    @property
    def id(self) -> str:
        return f"hf:{self.name}"

    def read(self, question: str, passages: Sequence[Passage], history: Sequence[Turn] = ()) -> ReaderOutput:
        import torch

        if not passages:
            return ReaderOutput("", False, 0.0, 0.0, (), kind="supported")
        sources = "\n".join(f"【资料 {i}】{p.text}" for i, p in enumerate(passages, start=1))
        prompt = f"{PROMPT}\n{sources}\n问题：{question}\n答案："
        if getattr(self.tokenizer, "chat_template", None):
            prompt = self.tokenizer.apply_chat_template(
                [
                    {"role": "system", "content": PROMPT},
                    {"role": "user", "content": f"{sources}\n问题：{question}"},
                ],
                tokenize=False,
                add_generation_prompt=True,
            )
        limit = int(getattr(self.model.config, "max_position_embeddings", 0) or 2048) - self.max_new_tokens
        inputs = self.tokenizer(prompt, return_tensors="pt", truncation=True, max_length=max(limit, 32))
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            output = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        tokens = output[0]
        if not self.model.config.is_encoder_decoder:
            tokens = tokens[inputs["input_ids"].shape[1] :]
        answer = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return supported_output(question, answer, passages, refused=not answer or REFUSAL in answer)

    def relevance(self, question: str, passages: Sequence[Passage]) -> list[float]:
        return [overlap(question, f"{p.title} {p.heading} {p.text}") for p in passages]
