"""The embedder's fast tokenizer: unigram pieces of one to six characters over cleaned text.

Cleaning (NFKC, lower case, traditional → simplified, one character at a time) is compiled into the
tokenizer's own normalizer, so that whoever loads the folder gets it without any code of ours. White
space and sentence punctuation only cut: they cost no token.
"""

from __future__ import annotations

import collections
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import regex

from gglm.text import traditional_to_simplified

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, UNK, CLS = "[PAD]", "[UNK]", "[CLS]"
SPECIAL = (PAD, UNK, CLS)
CUT = r"""[\s\p{Z}\p{C},;:!?()\[\]{}"'`<>|~^*=\\…—·«»•\u3001-\u303F\u2010-\u201F]+"""
"""White space, control characters and punctuation that only separates; ``+ # . - _ / % & @ $`` stay."""
RUNS = r"[\p{Han}\u3007]+|[a-z]+|[0-9]+|."
"""Han, Latin and digit runs never share a piece."""
MAX_PIECE = 6


def character_map() -> dict[str, str]:
    """Every character of the basic plane (and the mapped ones beyond) that cleaning changes."""
    to_simplified = traditional_to_simplified()
    codes = set(range(0x21, 0xFFFE)) - set(range(0xD800, 0xE000)) - set(range(0xAC00, 0xD7B0))
    codes |= {ord(char) for char in to_simplified}
    table = {}
    for code in codes:
        char = chr(code)
        clean = unicodedata.normalize("NFKC", char).lower()
        clean = "".join(to_simplified.get(c, c) for c in clean)
        if clean != char:
            table[char] = clean
    return table


def clean(text: str, table: dict[int, str]) -> str:
    """What the compiled normalizer does, for counting pieces before it exists."""
    return text.translate(table)


def runs(texts: Iterable[str], limit: int) -> collections.Counter[str]:
    """Cut, cleaned stretches of one script with their counts, of at most ``limit`` characters of text."""
    table = {ord(char): value for char, value in character_map().items()}
    cut, script = regex.compile(CUT), regex.compile(RUNS)
    counts: collections.Counter[str] = collections.Counter()
    seen = 0
    for text in texts:
        for part in cut.split(clean(text, table)):
            counts.update(run[:64] for run in script.findall(part))
        seen += len(text)
        if seen > limit:
            break
    return counts


def train_tokenizer(texts: Iterable[str], vocab_size: int = 16_000, limit: int = 12_000_000) -> PreTrainedTokenizerFast:
    """Unigram pieces by SentencePiece, wrapped as a fast tokenizer: ``[CLS] piece piece …``.

    Args:
        texts: running text of the kind that will be embedded.
        vocab_size: pieces with the three special tokens.
        limit: characters of text to count.
    """
    import sentencepiece

    counts = runs(texts, limit)
    with tempfile.TemporaryDirectory() as folder:
        lines, rules = Path(folder, "runs.tsv"), Path(folder, "rules.tsv")
        with lines.open("w", encoding="utf-8") as out:
            out.writelines(f"{run}\t{count}\n" for run, count in counts.items())
        with rules.open("w", encoding="utf-8") as out:
            for char, value in sorted(character_map().items()):
                out.write(f"{ord(char):X}\t{' '.join(f'{ord(c):X}' for c in value)}\n")
        sentencepiece.SentencePieceTrainer.train(
            input=str(lines),
            input_format="tsv",
            model_prefix=str(Path(folder, "pieces")),
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=0.9998,
            max_sentencepiece_length=MAX_PIECE,
            normalization_rule_tsv=str(rules),
            add_dummy_prefix=False,
            split_digits=False,
            pad_id=0,
            pad_piece=PAD,
            unk_id=1,
            unk_piece=UNK,
            bos_id=-1,
            eos_id=-1,
            control_symbols=[CLS],
            num_threads=1,
            minloglevel=2,
        )
        processor = sentencepiece.SentencePieceProcessor(model_file=str(Path(folder, "pieces.model")))
        return wrap(processor.serialized_model_proto())


def wrap(model: bytes) -> PreTrainedTokenizerFast:
    """A SentencePiece unigram model as a Hugging Face fast tokenizer with our cutting."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    assert tuple(piece for piece, _ in pieces[:3]) == SPECIAL
    tokenizer: Tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUT), "removed"),
            pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]+"), "isolated"),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A", pair=f"{CLS} $A $B", special_tokens=[(CLS, 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        model_max_length=512,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )
