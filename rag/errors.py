"""Errors that reach a user. Each has a stable code, an HTTP status and a message that says what to do."""

from __future__ import annotations

from gglm.errors import UserError


class ChatGGLMError(UserError):
    """Base of every expected error; the CLI prints it without a traceback, the API as problem+json."""

    code = "internal_error"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(ChatGGLMError):
    """A knowledge base, document, job or conversation that does not exist."""

    code = "not_found"
    status = 404


class InvalidInput(ChatGGLMError):
    """Input that cannot be used as it is."""

    code = "invalid_input"
    status = 422


class Conflict(ChatGGLMError):
    """The request contradicts what is stored (a name that is taken, a job that has ended)."""

    code = "conflict"
    status = 409


class IndexUnavailable(ChatGGLMError):
    """An index file is missing or damaged; `chatgglm kb rebuild` makes it again from SQL."""

    code = "index_unavailable"
    status = 503


class StoreUnavailable(ChatGGLMError):
    """The database cannot be reached, is locked for too long, or its disk is full."""

    code = "store_unavailable"
    status = 503
