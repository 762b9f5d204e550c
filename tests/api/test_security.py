"""The server's door, on an application of one route: no store, no models."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from api.limits import BodyLimit
from api.origins import is_loopback, normal_origin, split_host
from api.security import Door, HostPolicy, is_local_peer

SITE = "https://www.example.com"


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"bytes": len(body), "local": is_local_peer(request.scope)})


def client(bound: str = "127.0.0.1", allowed: list[str] | None = None, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    async def sites() -> frozenset[str]:
        return frozenset({SITE})

    methods = ["GET", "POST", "DELETE"]
    paths = ("/v1/ask", "/v1/search", "/v1/documents", "/v1/chat/completions", "/")
    inner = Starlette(routes=[Route(path, echo, methods=methods) for path in paths])
    app = Door(BodyLimit(inner, 100, 1000), HostPolicy(bound, allowed or []), sites)
    transport = httpx.ASGITransport(app, client=(peer, 5000))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestDoor:
    pytestmark = pytest.mark.anyio

    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "a.localhost"])
    async def test_loopback_names_come_in(self, host: str, anyio_backend: str) -> None:
        assert (await client().get("/", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "localhost.evil.example:8000",
            "",
            "192.168.1.7:8000",
            "[::1",
            "127.0.0.1:8000:1",
        ],
    )
    async def test_other_names_do_not(self, host: str, anyio_backend: str) -> None:
        response = await client().get("/v1/ask", headers={"Host": host})
        assert response.status_code == 403
        assert response.json()["code"] == "host_not_allowed"
        assert response.headers["content-type"] == "application/problem+json"

    async def test_an_allowed_name_comes_in(self, anyio_backend: str) -> None:
        app = client(allowed=["docs.example.com"])
        assert (await app.get("/", headers={"Host": "docs.example.com"})).status_code == 200

    async def test_bound_elsewhere_any_address_comes_in_but_no_foreign_name(self, anyio_backend: str) -> None:
        app = client(bound="0.0.0.0")
        assert (await app.get("/", headers={"Host": "192.168.1.7:8000"})).status_code == 200
        assert (await app.get("/", headers={"Host": "evil.example"})).status_code == 403

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1:9999", "http://localhost:8000"]
    )
    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    async def test_writes_of_other_pages_are_refused(self, origin: str, method: str, anyio_backend: str) -> None:
        headers = {"Origin": origin, "Content-Type": "application/json"}
        response = await client().request(method, "/v1/ask", headers=headers, content=b"{}")
        assert response.status_code == 403
        assert response.json()["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in response.headers

    async def test_writes_of_own_pages_come_in(self, anyio_backend: str) -> None:
        headers = {"Origin": "http://127.0.0.1:8000", "Content-Type": "application/json"}
        assert (await client().post("/v1/search", headers=headers, content=b"{}")).status_code == 200

    async def test_a_cross_site_write_without_origin_is_refused(self, anyio_backend: str) -> None:
        headers = {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
        assert (await client().post("/v1/ask", headers=headers, content=b"{}")).status_code == 403

    async def test_a_registered_site_gets_cors_on_widget_routes_only(self, anyio_backend: str) -> None:
        headers = {"Origin": SITE, "Content-Type": "application/json"}
        response = await client().post("/v1/ask", headers=headers, content=b"{}")
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == SITE
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers
        assert (await client().post("/v1/search", headers=headers, content=b"{}")).status_code == 403

    async def test_reads_of_other_pages_get_no_cors(self, anyio_backend: str) -> None:
        response = await client().get("/v1/ask", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["cross-origin-resource-policy"] == "same-origin"

    async def test_preflight(self, anyio_backend: str) -> None:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
        good = await client().options("/v1/ask", headers={"Origin": SITE, **ask})
        assert good.status_code == 204
        assert good.headers["access-control-allow-origin"] == SITE
        assert "authorization" in good.headers["access-control-allow-headers"].lower()
        assert good.headers["access-control-allow-private-network"] == "true"
        bad = await client().options("/v1/ask", headers={"Origin": "https://evil.example", **ask})
        assert bad.status_code == 403
        assert "access-control-allow-origin" not in bad.headers

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    async def test_a_body_must_be_json(self, kind: str, anyio_backend: str) -> None:
        response = await client().post("/v1/ask", headers={"Content-Type": kind}, content=b"{}")
        assert response.status_code == 415
        assert response.json()["code"] == "unsupported_media_type"

    async def test_openai_routes_answer_in_openai_shape(self, anyio_backend: str) -> None:
        response = await client().post("/v1/chat/completions", headers={"Content-Type": "text/plain"}, content=b"x")
        assert response.status_code == 415
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    async def test_large_bodies_are_refused_announced_or_not(self, anyio_backend: str) -> None:
        json_type = {"Content-Type": "application/json"}
        announced = await client().post("/v1/ask", headers=json_type, content=b"x" * 101)
        assert announced.status_code == 413

        async def chunks():  # type: ignore[no-untyped-def]
            for _ in range(11):
                yield b"x" * 10

        streamed = await client().post("/v1/ask", headers=json_type, content=chunks())
        assert streamed.status_code == 413
        assert streamed.json()["code"] == "body_too_large"
        fits = await client().post("/v1/ask", headers=json_type, content=b"x" * 100)
        assert fits.json()["bytes"] == 100
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        assert (await client().post("/v1/documents", headers=form, content=b"x" * 900)).json()["bytes"] == 900

    async def test_headers(self, anyio_backend: str) -> None:
        response = await client().get("/v1/ask", headers={"X-Request-Id": "abc-1"})
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-request-id"] == "abc-1"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        forged = await client().get("/v1/ask", headers={"X-Request-Id": "a b<script>"})
        assert forged.headers["x-request-id"] != "a b<script>"

    async def test_a_proxied_or_distant_peer_is_not_local(self, anyio_backend: str) -> None:
        assert (await client().get("/")).json()["local"] is True
        assert (await client().get("/", headers={"X-Forwarded-For": "1.2.3.4"})).json()["local"] is False
        assert (await client(peer="192.168.1.9").get("/")).json()["local"] is False


def test_names() -> None:
    assert is_loopback("127.8.9.1")
    assert is_loopback("[::1]")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("localhost.evil")
    assert split_host("Example.com.:80") == "example.com"
    assert split_host("a b") == ""
    assert normal_origin("HTTPS://Www.Example.com:443") == SITE
    assert normal_origin("http://[::1]:8000") == "http://[::1]:8000"
    for bad in ("null", "file:///x", "https://user@host", "https://h:99999", "http://[", "", "javascript:alert(1)"):
        assert normal_origin(bad) == ""
