"""Errors on the wire: RFC 9457 problem documents, and OpenAI's error object on its own routes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from api.errors import Busy, Unauthorized
from gglm.errors import UserError, WeightsError
from rag.errors import ChatGGLMError

log = logging.getLogger("chatgglm.api")

OPENAI_ROUTES = ("/v1/chat/completions", "/v1/models", "/v1/embeddings")


def describe(error: Exception) -> tuple[int, str, str]:
    """HTTP status, stable code and message of any error; unexpected ones are not described to strangers."""
    if isinstance(error, ChatGGLMError):
        return error.status, error.code, error.message
    if isinstance(error, WeightsError):
        return 501, "task_unavailable", str(error)
    if isinstance(error, UserError):
        return 500, "model_error", str(error)
    return 500, "internal_error", "Something unexpected went wrong. The server's log has the details."


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: str = "",
    instance: str = "",
    errors: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A problem document (RFC 9457) with our ``code`` and ``request_id``."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = list(errors)
    return body


def openai_error(status: int, code: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def documented(path: str) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors of a route."""
    fields: dict[str, Any] = {name: {"type": "string"} for name in ("type", "title", "detail", "code", "instance")}
    fields |= {
        "status": {"type": "integer"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {}},
    }
    kind = "application/problem+json"
    if is_openai(path):
        text = {"type": ["string", "null"]}
        fields = {"error": {"type": "object", "properties": dict.fromkeys(("message", "type", "param", "code"), text)}}
        kind = "application/json"
    schema = {"type": "object", "properties": fields}
    return {"default": {"description": "An error", "content": {kind: {"schema": schema}}}}


def is_openai(path: str) -> bool:
    """Whether a route answers with OpenAI's shapes."""
    return any(path == route or path.startswith(route + "/") for route in OPENAI_ROUTES)


def request_id(scope: Scope) -> str:
    """The id that the request was given by `api.security`."""
    value: str = scope.get("state", {}).get("request_id", "")
    return value


def error_response(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error in the shape of the route that it happened on."""
    path = scope.get("path", "")
    if is_openai(path):
        if status == 422:  # OpenAI knows bad requests only as 400
            status = 400
        return JSONResponse(openai_error(status, code, detail, param), status, headers)
    body = problem(status, code, detail, request_id(scope), path, errors)
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def response_for(scope: Scope, error: ChatGGLMError) -> Response:
    """The response that an expected error becomes."""
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    param = getattr(error, "param", None)
    return error_response(scope, error.status, error.code, error.message, param=param, headers=headers)


def install(app: FastAPI) -> None:
    """Adds the handlers, so that every error leaves in one of the two shapes and none with a traceback."""

    @app.exception_handler(UserError)
    async def _user_error(request: Request, error: UserError) -> Response:
        if isinstance(error, ChatGGLMError):
            return response_for(request.scope, error)
        log.warning("request %s: %s", request_id(request.scope), error)
        return error_response(request.scope, *describe(error))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(e["type"] == "json_invalid" for e in found):
            reason = next(e for e in found if e["type"] == "json_invalid")
            where = f" (at character {reason['loc'][-1]})" if isinstance(reason["loc"][-1], int) else ""
            why = reason.get("ctx", {}).get("error", "cannot be parsed")
            message = f"The body is not valid JSON{where}: {why}."
            return error_response(request.scope, 400, "malformed_json", message)
        if any(e["type"] == "missing" and tuple(e["loc"]) == ("body",) for e in found):
            return error_response(request.scope, 400, "malformed_json", "The body is empty. Send a JSON object.")
        errors = [{"field": _field(e["loc"]), "message": e["msg"], "type": e["type"]} for e in found]
        first = errors[0]
        detail = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
        return error_response(
            request.scope, 422, "invalid_request", detail, param=first["field"] or None, errors=errors
        )

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}.get(
            error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        )
        return error_response(request.scope, error.status_code, code, str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        return error_response(request.scope, *describe(error))


def _field(location: Sequence[int | str]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path")]
    return ".".join(parts)
