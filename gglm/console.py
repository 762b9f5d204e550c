"""What every command line shares: JSON to stdout, everything else to stderr, exit codes, no tracebacks.

Exit codes: 0 success (also for a refusal), 1 something failed, 2 wrong usage. Nothing heavy is
imported at the top, so that `chatgglm --help` stays fast.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer

from gglm.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")


def print_json(obj: Any) -> None:
    """One JSON document to stdout, UTF-8 whatever the locale, Chinese unescaped."""
    write_stdout(json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_stdout(text: str) -> None:
    """Text to stdout as UTF-8 (lone surrogates become «?»), flushed; tests may capture it."""
    data = text.encode("utf-8", errors="replace")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode("utf-8"))
    else:
        sys.stdout.flush()
        buffer.write(data)
    sys.stdout.flush()


@functools.lru_cache(maxsize=1)
def _stderr_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


class _LazyConsole:
    """Rich's stderr console, imported on first use."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_stderr_console(), name)


err_console: Any = _LazyConsole()


def progress(transient: bool = True) -> Progress:
    """A progress display on stderr (silent where stderr is no terminal)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_stderr_console(),
        transient=transient,
    )


def warn(message: str) -> None:
    """One yellow line on stderr."""
    err_console.print(message, style="yellow", markup=False)


def fail(message: str, code: int = 1) -> NoReturn:
    """One red line on stderr, then exit with ``code``."""
    err_console.print(f"Error: {message}", style="bold red", markup=False)
    raise typer.Exit(code)


def friendly_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turns expected errors into one red line and exit 1; others too, unless CHATGGLM_DEBUG is set.

    Put it under ``@app.command()``. A closed pipe (`| head`) ends quietly, Ctrl-C exits 130.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            fail(str(error))
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the interpreter flushes it at exit
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            err_console.print("Interrupted.", style="yellow")
            raise typer.Exit(130) from None
        except OSError as error:
            name = f" ({error.filename})" if error.filename else ""
            fail(f"{error.strerror or error}{name}")
        except Exception as error:
            if type(error).__module__.split(".")[0] in {"click", "typer"}:  # exits and usage errors
                raise
            if os.environ.get("CHATGGLM_DEBUG"):
                raise
            if type(error).__name__ == "ValidationError":  # pydantic: a setting out of range
                fail(f"A setting cannot be used: {error}")
            fail(
                f"Something unexpected went wrong: {type(error).__name__}: {error}. "
                "Set CHATGGLM_DEBUG=1 and run it again for the details to report."
            )

    return wrapper
