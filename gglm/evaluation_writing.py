"""Scores of what the decoder writes: summaries, translations, chat; each beside a baseline of the same file.

Everything goes through the engine's public methods, so it is what users get. A task that the weights do not declare
raises WeightsError; `with_all_tasks` lifts that, to decide whether they should.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gglm import metrics
from gglm.errors import DataError
from gglm.evaluation_baselines import Glossary, lead

if TYPE_CHECKING:
    from gglm.engine import Engine
    from gglm.evaluation import Progress
    from gglm.training.writing import WritingRow

ROUGE = ("rouge1", "rouge2", "rougeL")


def _quiet(_: int) -> None:
    pass


def with_all_tasks(engine: Engine) -> Engine:
    """The same weights, every task allowed."""
    from gglm.engine import Engine
    from gglm.tasks import TASKS

    return Engine(replace(engine.weights, tasks=TASKS))


def load_pairs(file: Path, source: str, target: str, limit: int = 0) -> list[tuple[str, str]]:
    """Two text columns of JSON lines (``.zst`` too), rows without one of them left out.

    Raises:
        DataError: the file is missing, or holds no such rows.
    """
    from gglm.training.corpus import read_jsonl

    pairs = []
    for row in read_jsonl(file):
        if isinstance(row.get(source), str) and isinstance(row.get(target), str) and row[source].strip():
            pairs.append((row[source], row[target]))
        if limit and len(pairs) == limit:
            break
    if not pairs:
        raise DataError(f'{file} holds no rows with "{source}" and "{target}"')
    return pairs


def summary(engine: Engine, pairs: Sequence[tuple[str, str]], advance: Progress = _quiet) -> dict[str, Any]:
    """ROUGE-1/2/L on characters (percent) of (text, summary) pairs.

    Baselines: ``lead_sentence`` is the text's first sentence, ``lead_same_length`` its opening sentences up to the
    length of the engine's summary.
    """
    began = time.perf_counter()
    written: list[str] = []
    copied: list[float] = []
    for text, _ in pairs:
        said = engine.summarize(text)
        written.append(said.text)
        copied.append(sum(len(p.text) for p in said.pieces if p.origin) / max(1, len(said.text)))
        advance(1)
    seconds = time.perf_counter() - began
    wanted = [s for _, s in pairs]
    report: dict[str, Any] = {
        "rows": len(pairs),
        "method": "written" if engine.can("摘要") else "extracted",
        **_rouge(written, wanted),
        "copied": float(np.mean(copied)),
        "characters": float(np.mean([len(w) for w in written])),
        "reference_characters": float(np.mean([len(w) for w in wanted])),
        "baselines": {
            "lead_sentence": _rouge([lead(t) for t, _ in pairs], wanted),
            "lead_same_length": _rouge([lead(t, len(w)) for (t, _), w in zip(pairs, written, strict=True)], wanted),
        },
        "ms_per_text": 1000 * seconds / len(pairs),
    }
    return report


def _rouge(written: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    scores = [metrics.rouge(w, r) for w, r in zip(written, wanted, strict=True)]
    means: dict[str, Any] = {name: 100 * float(np.mean([s[name] for s in scores])) for name in ROUGE}
    means["rougeL_interval"] = [100 * x for x in metrics.interval([s["rougeL"] for s in scores])]
    return means


def translation(
    engine: Engine,
    pairs: Sequence[tuple[str, str]],
    direction: Literal["zh-en", "en-zh"] = "zh-en",
    glossary: Glossary | None = None,
    advance: Progress = _quiet,
) -> dict[str, Any]:
    """Corpus chrF and BLEU of (source, reference) pairs; the baseline is a word-by-word gloss (中→英 only).

    ``sure``: the share of texts all of whose sentences are (`gglm.types.SURE`), and chrF of these and of the others.

    Raises:
        WeightsError: these weights do not translate.
    """
    began = time.perf_counter()
    written: list[str] = []
    sure: list[bool] = []
    for text, _ in pairs:
        made = engine.translate(text, direction=direction)
        written.append(made.text)
        sure.append(all(sentence.sure for sentence in made.sentences))
        advance(1)
    seconds = time.perf_counter() - began
    wanted = [r for _, r in pairs]
    chinese = direction == "en-zh"
    baselines: dict[str, Any] = {"copy": _translated([t for t, _ in pairs], wanted, chinese)}
    if glossary is not None and not chinese:
        baselines["gloss"] = _translated([glossary.translate(t) for t, _ in pairs], wanted, chinese)
    return {
        "rows": len(pairs),
        "direction": direction,
        **_translated(written, wanted, chinese),
        "sure": {
            "share": float(np.mean(sure)),
            "chrf": _chrf_of(written, wanted, sure, True),
            "chrf_others": _chrf_of(written, wanted, sure, False),
        },
        "baselines": baselines,
        "ms_per_text": 1000 * seconds / len(pairs),
    }


def _translated(written: Sequence[str], wanted: Sequence[str], chinese: bool) -> dict[str, float]:
    return {"chrf": metrics.chrf(written, wanted), "bleu": metrics.bleu(written, wanted, chinese)}


def _chrf_of(written: Sequence[str], wanted: Sequence[str], sure: Sequence[bool], which: bool) -> float | None:
    """chrF of the sure texts or of the others; None: there are none."""
    picked = [(w, r) for w, r, s in zip(written, wanted, sure, strict=True) if s == which]
    return metrics.chrf([w for w, _ in picked], [r for _, r in picked]) if picked else None


def load_dialogues(file: Path, limit: int = 0) -> list[WritingRow]:
    """Each assistant turn of a dialogue file (``{"turns": [{"role", "content"}]}`` lines) after what came before.

    Raises:
        DataError: the file is missing, or holds no such rows.
    """
    from gglm.training.corpus import read_jsonl
    from gglm.training.writing import dialogue

    try:
        rows = [w for row in read_jsonl(file) for w in dialogue(row) if w.text.strip() and w.target.strip()]
    except (KeyError, TypeError) as error:
        raise DataError(
            f'{file}: a dialogue lacks {error}; rows look like {{"turns": [{{"role", "content"}}]}}'
        ) from None
    if not rows:
        raise DataError(f"{file} holds no dialogue in which an assistant answers")
    return rows[:limit] if limit else rows


def chat(engine: Engine, rows: Sequence[WritingRow], advance: Progress = _quiet) -> dict[str, Any]:
    """Held-out loss in nats per character of the replies, and how the engine's own replies fit.

    ``loss_per_character`` stands beside ``unigram_loss``, the entropy of this very file's characters (a model that
    knows nothing but their frequencies). ``rougeL`` compares the reply with the reference; the baseline is the one
    reply of the file that fits all messages best. ``ended``: share of replies that came to an end; ``invented``: share
    that hold a digit or a Latin letter which the conversation does not.

    Raises:
        WeightsError: these weights do not chat.
    """
    from gglm import generate
    from gglm.tokenizer import EOS

    nats, characters = 0.0, 0
    said: list[str] = []
    ended: list[bool] = []
    invented: list[bool] = []
    for row in rows:
        reply = engine.chat(row.text, row.history)
        said.append(reply.text)
        ended.append(reply.finish_reason == "stop")
        known = row.text + "".join(t.content for t in row.history)
        invented.append(any(c.isascii() and c.isalnum() and c not in known for c in reply.text))
        memory, _ = engine.memory_of_talk("对话", row.text, row.history)
        target = [*engine.tokenizer.encode(row.target).tolist(), EOS]
        nats -= generate.score(engine.model, memory, target) * len(target)
        characters += len(row.target)
        advance(1)
    wanted = [r.target for r in rows]
    fit = [metrics.rouge(s, w)["rougeL"] for s, w in zip(said, wanted, strict=True)]
    return {
        "rows": len(rows),
        "loss_per_character": nats / characters,
        "unigram_loss": _unigram_loss(wanted),
        "rougeL": 100 * float(np.mean(fit)),
        "rougeL_interval": [100 * x for x in metrics.interval(fit)],
        "baselines": {"one_reply": _one_reply(wanted)},
        "ended": float(np.mean(ended)),
        "invented": float(np.mean(invented)),
        "distinct_replies": len(set(said)) / len(said),
    }


def _unigram_loss(texts: Sequence[str]) -> float:
    """Nats a character, an end of text counted as one more character, spread over the characters alone."""
    counts = Counter("".join(texts))
    counts["\0"] += len(texts)
    share = np.array(list(counts.values()), dtype=np.float64)
    total = share.sum()
    return float(-(share * np.log(share / total)).sum() / (total - len(texts)))


def _one_reply(wanted: Sequence[str], tried: int = 50) -> dict[str, Any]:
    """The best of the commonest (else first) replies, given to every message."""
    best, text = -1.0, ""
    for reply, _ in Counter(wanted).most_common(tried):
        mean = float(np.mean([metrics.rouge(reply, w)["rougeL"] for w in wanted]))
        if mean > best:
            best, text = mean, reply
    return {"rougeL": 100 * best, "text": text}
