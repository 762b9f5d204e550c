"""Errors of the generator. Each message says what is wrong and what to do."""

from __future__ import annotations


class UserError(Exception):
    """An expected error whose text is meant for the user; the CLI prints it without a traceback."""


class GGLMError(UserError):
    """Base of all errors that gglm raises on purpose."""


class WeightsError(GGLMError):
    """A weights folder is missing, damaged, or does not fit its config."""


class DataError(GGLMError):
    """A training or evaluation file cannot be used as it is."""


class RunPaused(GGLMError):
    """A run saved itself at the end of its slice; the same call goes on."""
