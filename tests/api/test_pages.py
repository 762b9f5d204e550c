"""Pages and documentation: from this server alone, with the headers that they need."""

from __future__ import annotations

import re

import httpx
import pytest

from api.web import EMBEDDABLE, STATIC

pytestmark = pytest.mark.anyio


async def test_home_and_viewer(client: httpx.AsyncClient) -> None:
    home = await client.get("/")
    assert home.status_code == 200
    assert home.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in home.headers["content-security-policy"]
    assert home.headers["x-content-type-options"] == "nosniff"
    assert (await client.get("/viewer.html")).status_code == 200
    moved = await client.get("/view/abc", params={"start": 1, "end": 5})
    assert moved.headers["location"] == "/viewer.html?document=abc&start=1&end=5"


@pytest.mark.parametrize("name", EMBEDDABLE)
async def test_the_widget_may_be_embedded_elsewhere(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/{name}", headers={"Origin": "https://any.example"})
    assert response.status_code == 200
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "javascript" in response.headers["content-type"]


async def test_nothing_else_can_be_fetched(client: httpx.AsyncClient) -> None:
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/nothing.html"):
        response = await client.get(path)
        assert response.status_code == 404
        assert response.headers["content-type"] == "application/problem+json"
    assert (STATIC.parent.parent / "app.py").is_file()


async def test_api_documentation_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    html = (await client.get("/docs")).text
    files = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert files
    for file in files:
        assert file.startswith("/"), file
        assert (await client.get(file)).status_code == 200
    assert not re.search(r"https?://", html)


async def test_openapi(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    assert schema["info"]["title"] == "ChatGGLM"
    assert schema["paths"]["/v1/jobs/{job_id}"]["get"]["summary"] == "One job with its documents"
    for path in ("/v1/ask", "/v1/search", "/v1/chat/completions", "/v1/documents", "/v1/conversations", "/healthz"):
        assert path in schema["paths"]
    errors = {
        path: list(schema["paths"][path]["post"]["responses"]["default"]["content"])
        for path in ("/v1/ask", "/v1/embeddings")
    }
    assert errors == {"/v1/ask": ["application/problem+json"], "/v1/embeddings": ["application/json"]}
    assert "text/event-stream" in schema["paths"]["/v1/ask"]["post"]["responses"]["200"]["content"]
