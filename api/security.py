"""The server's door: which hosts, origins and content types come in, and the headers that go out.

A server on loopback that asks for no key is open to every web page that the user's browser shows,
unless it checks two things: the Host header (a page whose name was rebound to 127.0.0.1 sends its own
name) and the Origin of writes (a page may send a request that it cannot read the answer of).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import uuid
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import HostNotAllowed, OriginNotAllowed, UnsupportedMediaType
from api.origins import is_loopback, normal_origin, same_origin, split_host
from api.problems import describe, error_response, log, response_for
from rag.errors import ChatGGLMError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WIDGET_ROUTES = ("/v1/ask", "/v1/conversations", "/v1/feedback", "/v1/documents", "/v1/widget", "/widget")
"""What a registered site's page may use; the rest of the API is closed to other origins."""
PAGE_CSP = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
DOCS_CSP = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
DATA_CSP = "default-src 'none'; frame-ancestors 'none'; sandbox"
REQUEST_ID = re.compile(r"[\w.:-]{1,64}")

SiteOrigins = Callable[[], Awaitable[frozenset[str]]]


def is_local_peer(scope: Scope) -> bool:
    """Whether the request comes from this machine itself, not through a proxy on it."""
    headers = Headers(scope=scope)
    if any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via")):
        return False
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


class HostPolicy:
    """Which names the server answers to.

    Bound to loopback: this machine's loopback names. Bound elsewhere: also its host name and any IP
    address (rebinding needs a name). ``allowed`` adds names in both cases.
    """

    def __init__(self, bound: str, allowed: list[str]) -> None:
        self._names = {name.lower().rstrip(".") for name in allowed}
        self._open = not is_loopback(bound)
        if self._open:
            self._names |= {socket.gethostname().lower(), bound.lower()}

    def allows(self, host_header: str) -> bool:
        """Whether a request with this Host header may come in."""
        host = split_host(host_header)
        if not host:
            return False
        if is_loopback(host) or host in self._names:
            return True
        if not self._open:
            return False
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return True


class Door:
    """ASGI middleware: request id, Host, Origin, CORS, content type, and the security headers."""

    def __init__(self, app: ASGIApp, hosts: HostPolicy, sites: SiteOrigins) -> None:
        self.app = app
        self.hosts = hosts
        self.sites = sites

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        ident = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = ident
        extra: dict[str, str] = {"X-Request-Id": ident}

        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _dress(MutableHeaders(scope=message), scope["path"], extra)
            await send(message)

        try:
            if not self.hosts.allows(headers.get("host", "")):
                raise HostNotAllowed(
                    "This server does not answer to that host name. Use 127.0.0.1, or add the name to "
                    "CHATGGLM_ALLOWED_HOSTS."
                )
            origin = headers.get("origin", "")
            foreign = bool(origin) and not same_origin(origin, headers.get("host", ""))
            if foreign:
                await self._admit(scope, headers, origin, extra)
                if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                    response = Response(status_code=204)
                    await response(scope, receive, dressed)
                    return
            elif not origin:
                _refuse_silent_cross_site(scope, headers)
            _require_json(scope, headers)
        except ChatGGLMError as error:
            await response_for(scope, error)(scope, receive, dressed)
            return
        try:
            await self.app(scope, receive, dressed)
        except Exception as error:  # answered here, so that a 500 carries the same headers as the rest
            if started:
                raise
            log.exception("request %s failed", ident)
            await error_response(scope, *describe(error))(scope, receive, dressed)

    async def _admit(self, scope: Scope, headers: Headers, origin: str, extra: dict[str, str]) -> None:
        """Grants CORS to a registered site on widget routes; refuses writes and preflights of others."""
        extra["Vary"] = "Origin"
        widget = any(
            scope["path"] == route or scope["path"].startswith((route + "/", route + ".")) for route in WIDGET_ROUTES
        )
        if widget and normal_origin(origin) in await self.sites():
            extra["Access-Control-Allow-Origin"] = origin
            extra["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After, Location"
            extra["Cross-Origin-Resource-Policy"] = "cross-origin"
            if scope["method"] == "OPTIONS":
                extra["Access-Control-Allow-Methods"] = "GET, POST, PATCH, DELETE"
                extra["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Last-Event-ID"
                extra["Access-Control-Max-Age"] = "600"
                if headers.get("access-control-request-private-network") == "true":
                    extra["Access-Control-Allow-Private-Network"] = "true"
            return
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if preflight or scope["method"] not in SAFE_METHODS:
            raise OriginNotAllowed(
                f"Pages of {origin[:200]} may not use this server. Register the site with: chatgglm sites add ORIGIN"
            )


def _refuse_silent_cross_site(scope: Scope, headers: Headers) -> None:
    if scope["method"] not in SAFE_METHODS and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise OriginNotAllowed("A write from another site needs an Origin header of a registered site.")


def _require_json(scope: Scope, headers: Headers) -> None:
    """Bodies are JSON, but uploads: a form or text body is what a page can send without a preflight."""
    if scope["method"] not in ("POST", "PUT", "PATCH") or not scope["path"].startswith("/v1/"):
        return
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if scope["path"].rstrip("/") in ("/v1/documents", "/v1/chunks/preview") and scope["method"] == "POST":
        if kind != "multipart/form-data":
            raise UnsupportedMediaType("Send the documents as multipart/form-data, each in a field «file».")
    elif kind != "application/json":
        raise UnsupportedMediaType("Send the body as JSON, with the header Content-Type: application/json.")


def _dress(headers: MutableHeaders, path: str, extra: dict[str, str]) -> None:
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "same-origin")
    for name, value in extra.items():
        headers[name] = value
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store")
    if path == "/docs":
        headers.setdefault("Content-Security-Policy", DOCS_CSP)
    elif headers.get("content-type", "").startswith("text/html"):
        headers.setdefault("Content-Security-Policy", PAGE_CSP)
        headers.setdefault("X-Frame-Options", "SAMEORIGIN")
    elif path.startswith("/v1/"):
        headers.setdefault("Content-Security-Policy", DATA_CSP)
