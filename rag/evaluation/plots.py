"""The risk–coverage curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag.errors import InvalidInput


def plot_risk_coverage(points: Sequence[Sequence[float]], out: Path) -> Path:
    """Draw (coverage, risk) points, each 0…1; the file's ending says the format (png, svg, pdf).

    Raises:
        InvalidInput: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InvalidInput("Drawing needs matplotlib: pip install 'chatgglm[train]'.") from error
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axis = figure.subplots()
    axis.plot([100 * p[0] for p in points], [100 * p[1] for p in points], marker=".")
    axis.set(xlabel="questions answered, the surest first (%)", ylabel="wrong among them (%)", xlim=(0, 100))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.set_title("Risk and coverage")
    try:
        figure.savefig(out, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The picture cannot be written to {out}: {error}.") from error
    return out
