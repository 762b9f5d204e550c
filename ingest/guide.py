"""The user guide that comes with the package, in Chinese: the first thing a new installation can answer from."""

from __future__ import annotations

from pathlib import Path

from rag.errors import NotFound


def bundled() -> Path:
    """Folder of the guide's Markdown files.

    Raises:
        NotFound: the installation lacks it.
    """
    folder = Path(__file__).parent / "guide" / "zh"
    if not folder.is_dir():
        raise NotFound("The bundled guide is missing from this installation; install chatgglm again.")
    return folder
