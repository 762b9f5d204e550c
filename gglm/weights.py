"""A weights folder: ``config.json``, ``tokenizer.model``, ``model.safetensors``, ``README.md`` (its card).

Matrices are stored as bfloat16 (half the bytes; no measurable loss) or, rounded row by row, as int8 (a
quarter; docs/log.md has what that costs), and loaded as float32. The config holds a SHA-256 of the two
binary files, so that a damaged copy is told apart from a bad model.

Weights may borrow: tensors that are those of a folder beside them need not be stored twice. The config names the lender
and the SHA-256 of each, so that a lender which was trained on is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from gglm.config import GGLMConfig
from gglm.errors import WeightsError
from gglm.model import ChatGGLM, rope_table
from gglm.tasks import Task
from gglm.tokenizer import Tokenizer

FORMAT, FORMAT_INT8 = 1, 2
SHIPPED = Path(__file__).with_name("weights")
DEFAULT = "gglm-small"
"""The folder under ``gglm/weights`` that is loaded when none is named …"""
SPECIALISTS: dict[Task, str] = {"翻译": "gglm-small-zh-en"}
"""… and those of tasks that have weights of their own."""
SCALE = ".scale"
"""Ending of the tensor that holds an int8 matrix's step, float32 (rows, 1, …)."""
CONFIG, TOKENIZER, MODEL, CARD = "config.json", "tokenizer.model", "model.safetensors", "README.md"


@dataclass(frozen=True, slots=True)
class Answerability:
    """How sure an answer must be: ``p = σ(margin · m + relevance · r + certainty · c + coverage · v + bias)``.

    m: the best span's logit (over the null's, ``source_weight · relevance`` included); r: its source's
    relevance logit; c: the best span's share among all spans, 0…1; v: how much of the question its own
    sentence names, 0…1 (`gglm.coverage`).
    """

    margin: float = 0.5
    relevance: float = 0.0
    certainty: float = 0.0
    coverage: float = 0.0
    bias: float = 0.0
    threshold: float = 0.5
    """Below it a question counts as not answered by its sources."""


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How span scores become answers; measured on held-out data and stored with the weights."""

    alone: Answerability = Answerability()
    """For one source."""
    several: Answerability = Answerability()
    """For several: the best of many spans scores high even where none answers. Fitted to other passages alone, too."""
    found: Answerability | None = None
    """For sources that a search found, which may have nothing to do with the question; None: as the other two."""
    source_weight: float = 1.0
    """What a window's relevance logit adds to its spans' logits, where they compete with other windows'."""
    verdict: float = 1.0
    """How sure (0.5…1) yes or no must be to be said; 1: never."""
    relevance_temperature: float = 1.0
    relevance_bias: float = 0.0
    """p = σ(logit / temperature + bias), fitted to every passage read, those that answer and the others."""
    max_answer_tokens: int = 160
    overlap: int = 128
    """Tokens that neighbouring windows of a long source share."""
    repeat_below: int = 0
    """Shorter sources are read several times over, up to so many tokens: a reader that was taught on longer ones takes
    them for useless rests of a text (a sentence that answers, alone: margin −16; four times over: +3)."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A loaded folder. ``tasks`` are those whose decoder was trained well enough to be used."""

    folder: Path
    name: str
    model: ChatGGLM
    tokenizer: Tokenizer
    reader: ReaderSettings
    tasks: tuple[str, ...]
    meta: dict[str, Any]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    """Atomic: a reader sees the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save(
    folder: Path,
    model: ChatGGLM,
    tokenizer: Path,
    name: str,
    *,
    reader: ReaderSettings | None = None,
    tasks: Sequence[str] = (),
    card: str = "",
    meta: dict[str, Any] | None = None,
    int8: bool = False,
    lender: Path | None = None,
) -> Path:
    """Write a weights folder; ``config.json`` comes last, so that a torn write is noticed.

    Args:
        tokenizer: the ``.model`` file to copy in.
        name: what answers carry as their model, e.g. ``gglm-small-0.1``.
        tasks: tasks whose decoder may be used (`gglm.tasks.TASKS`); without, only spans are read.
        meta: free JSON facts (data, scores, git hash).
        int8: store matrices as int8, half the bytes again.
        lender: weights folder that will lie beside this one; matrices that are exactly its own are not stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state: dict[str, torch.Tensor] = {}
    borrowed: dict[str, str] = {}
    theirs = load(lender).model.state_dict() if lender else {}
    for key, value in model.state_dict().items():
        if value.ndim >= 2 and key in theirs and torch.equal(value, theirs[key]):
            borrowed[key] = _digest(value)
        elif not value.is_floating_point() or value.ndim < 2:
            state[key] = value
        elif int8:
            state[key], state[key + SCALE] = _rounded(value)
        else:
            state[key] = value.to(torch.bfloat16)
    data = save_tensors({key: value.contiguous().cpu() for key, value in state.items()})
    _write(folder / MODEL, data)
    if tokenizer.resolve() != (folder / TOKENIZER).resolve():
        shutil.copyfile(tokenizer, folder / TOKENIZER)
    if card:
        _write(folder / CARD, card.encode("utf-8"))
    config = {
        "format": FORMAT_INT8 if int8 else FORMAT,
        "name": name,
        "parameters": model.count_parameters(),
        "model": model.config.to_dict(),
        "reader": asdict(reader or ReaderSettings()),
        "tasks": list(tasks),
        "sha256": {MODEL: _sha256(data), TOKENIZER: _sha256((folder / TOKENIZER).read_bytes())},
        **({"borrowed": {"from": lender.name, "sha256": borrowed}} if lender and borrowed else {}),
        "meta": meta or {},
    }
    _write(folder / CONFIG, (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode("utf-8"))
    return folder


def _rounded(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 of the same shape, and the step of each row, float32 (rows, 1, …): symmetric, the largest at ±127."""
    step = matrix.float().abs().amax(tuple(range(1, matrix.ndim)), keepdim=True) / 127
    return (matrix / step.clamp_min(1e-12)).round().to(torch.int8), step


def _restored(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float32 of what `save` stored; integer tensors as they are."""
    return {
        key: value.float() * state[key + SCALE] if key + SCALE in state
        else value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.endswith(SCALE) or key.removesuffix(SCALE) not in state
    }  # fmt: skip


def _digest(tensor: torch.Tensor) -> str:
    return _sha256(tensor.contiguous().numpy().tobytes())


def _borrowed(folder: Path, config: Any) -> dict[str, torch.Tensor]:
    """The tensors that ``folder`` has from another one, which lies beside it or is shipped.

    Raises:
        WeightsError: there is no such folder, or it holds other weights by now.
    """
    try:
        name, wanted = str(config["from"]), dict(config["sha256"])
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f'{folder / CONFIG}: "borrowed" is not as expected; copy the folder again') from None
    beside = folder.resolve().parent / name
    lender = beside if beside.is_dir() else SHIPPED / name
    try:
        with safe_open(lender / MODEL, "pt") as file:
            names = [key for key in file.keys() if key.removesuffix(SCALE) in wanted]  # noqa: SIM118 - no dict
            state = _restored({key: file.get_tensor(key) for key in names})
    except (OSError, SafetensorError):
        raise WeightsError(f"{folder} holds a part only, the rest lies in {name}: copy both, side by side") from None
    if any(key not in state or _digest(state[key]) != digest for key, digest in wanted.items()):
        raise WeightsError(f"{folder} goes with other weights than those in {lender}: copy both again from one release")
    return state


def update_config(folder: Path, **values: Any) -> None:
    """Change some top-level keys of ``config.json`` (calibration, tasks, meta) in place."""
    config = read_config(folder)
    config.update({k: asdict(v) if isinstance(v, ReaderSettings) else v for k, v in values.items()})
    _write(folder / CONFIG, (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode("utf-8"))


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed ``config.json``.

    Raises:
        WeightsError: there is none, or it cannot be read.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{folder} is not a weights folder: it has no {CONFIG}. Name a folder made by `chatgglm train`, "
            "or leave the setting empty to use the shipped weights."
        ) from None
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); copy the weights folder again") from None
    if not isinstance(config, dict) or config.get("format") not in (FORMAT, FORMAT_INT8):
        raise WeightsError(f"{path} is of another format than this version reads ({FORMAT}, {FORMAT_INT8})")
    return config


def _settings(values: Any, path: Path) -> ReaderSettings:
    known = {f.name for f in fields(ReaderSettings)}
    if not isinstance(values, dict) or (unknown := set(values) - known):
        detail = f": unknown {', '.join(sorted(unknown))}" if isinstance(values, dict) else ""
        raise WeightsError(f'{path}: "reader" is not as expected{detail}')
    try:
        given = [k for k in ("alone", "several", "found") if k in values and (k, values[k]) != ("found", None)]
        nested = {k: Answerability(**values[k]) for k in given}
    except TypeError as error:
        raise WeightsError(f'{path}: "reader" is not as expected: {error}') from None
    return ReaderSettings(**{**values, **nested})


def default_folder(task: Task = "问答") -> Path:
    """The shipped weights for a task.

    Raises:
        WeightsError: the package holds none.
    """
    folder = SHIPPED / SPECIALISTS.get(task, DEFAULT)
    if not (folder / CONFIG).is_file():
        raise WeightsError(
            f"No weights are shipped in {folder}. Train some (`chatgglm train finetune`) and name their "
            "folder in CHATGGLM_READER_WEIGHTS, or install the package again."
        )
    return folder


def load(folder: Path | None = None) -> Weights:
    """Load and check a weights folder (the shipped one by default); the model is in eval mode.

    Raises:
        WeightsError: a file is missing, damaged or does not fit the config.
    """
    folder = default_folder() if folder is None else folder
    config = read_config(folder)
    data: dict[str, bytes] = {}
    for file in (MODEL, TOKENIZER):
        try:
            data[file] = (folder / file).read_bytes()
        except OSError:
            raise WeightsError(f"{folder} lacks {file}; copy the whole weights folder again") from None
        if _sha256(data[file]) != config.get("sha256", {}).get(file):
            raise WeightsError(f"{folder / file} is damaged (its checksum is wrong); copy it again")
    try:
        model_config = GGLMConfig.from_dict(config["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder / CONFIG}: the model's shape cannot be used: {error}") from None
    tokenizer = Tokenizer(folder / TOKENIZER)
    if len(tokenizer) > model_config.vocab_size:  # the table is padded to a multiple of 64
        raise WeightsError(f"{folder}: the tokenizer has {len(tokenizer)} pieces, the model {model_config.vocab_size}")
    with torch.device("meta"):
        model = ChatGGLM(model_config)  # no time is spent on random numbers
    try:
        state = _restored(load_tensors(data[MODEL]))
        if "borrowed" in config:
            state |= _borrowed(folder, config["borrowed"])
        model.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise WeightsError(f"{folder / MODEL} does not fit its config: {reason}") from None
    _fill_tables(model, model_config)
    model.requires_grad_(False)
    return Weights(
        folder=folder,
        name=str(config.get("name", folder.name)),
        model=model.eval(),
        tokenizer=tokenizer,
        reader=_settings(config.get("reader", {}), folder / CONFIG),
        tasks=tuple(config.get("tasks", ())),
        meta=dict(config.get("meta", {})),
    )


def _fill_tables(model: ChatGGLM, config: GGLMConfig) -> None:
    """The position tables are not stored: compute them anew."""
    cos, sin = rope_table(config.max_positions, config.head_dim, config.rope_base)
    for half in (model.encoder, model.decoder):
        half.cos, half.sin = cos, sin
