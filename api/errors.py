"""Errors of the HTTP surface, beside those of `rag.errors`; `api.problems` puts them on the wire."""

from __future__ import annotations

from rag.errors import ChatGGLMError


class Unauthorized(ChatGGLMError):
    """No key, or none that is valid."""

    code = "invalid_api_key"
    status = 401


class Forbidden(ChatGGLMError):
    """The key may not do this."""

    code = "forbidden"
    status = 403


class HostNotAllowed(Forbidden):
    """The Host header names another server (DNS rebinding)."""

    code = "host_not_allowed"


class OriginNotAllowed(Forbidden):
    """A write from another web page."""

    code = "origin_not_allowed"


class TooLarge(ChatGGLMError):
    """The body is larger than the server accepts."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(ChatGGLMError):
    """A body that is not JSON where JSON is required."""

    code = "unsupported_media_type"
    status = 415


class BadRequest(ChatGGLMError):
    """A request that cannot be understood."""

    code = "bad_request"
    status = 400


class ModelNotFound(ChatGGLMError):
    """A model id that `GET /v1/models` does not list."""

    code = "model_not_found"
    status = 404
    param = "model"


class Busy(ChatGGLMError):
    """Too much is under way; try again after ``retry_after`` seconds."""

    code = "overloaded"
    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyRequests(Busy):
    """This client has too many requests under way."""

    code = "too_many_requests"
    status = 429


class NotReady(Busy):
    """The server cannot answer: the store or the models could not be loaded."""

    code = "not_ready"
    status = 503
