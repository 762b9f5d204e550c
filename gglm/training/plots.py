"""Curves of a run: losses, dev figures, tokens per second (``metrics.jsonl`` → ``curves.png``)."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from gglm.errors import DataError


def plot_run(run: Path, out: Path | None = None) -> Path:
    """Draw a run's metrics over its minutes; returns the picture's path.

    Raises:
        DataError: the run has no metrics yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = run / "metrics.jsonl"
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.is_file() else []
    if not rows:
        raise DataError(f"{run}: no metrics.jsonl with rows yet")
    series: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        for key, value in row.items():
            if key not in ("step", "minutes", "tokens"):
                series[key][0].append(row["minutes"])
                series[key][1].append(value)
    panels = {
        "training losses": [k for k in series if k in ("span", "masked", "relevance", "write")],
        "dev figures, %": [k for k in series if k.startswith("eval/") and k.endswith(("f1", "em"))],
        "dev AUROC and hit rate": [k for k in series if k.endswith("auroc") or k == "hit"],
        "tokens per second": [k for k in series if k == "tokens_per_s"],
    }
    figure, axes = plt.subplots(2, 2, figsize=(12, 8))
    for axis, (title, keys) in zip(axes.flat, panels.items(), strict=True):
        for key in sorted(keys):
            axis.plot(*series[key], marker="." if key.startswith("eval/") else "", label=key.removeprefix("eval/"))
        axis.set(title=title, xlabel="minutes")
        axis.grid(alpha=0.3)
        if keys:
            axis.legend(fontsize=7)
    figure.tight_layout()
    out = out or run / "curves.png"
    figure.savefig(out, dpi=100)
    plt.close(figure)
    return out
