"""Every error in its shape, with a message that says what to do, and never a traceback."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from rag.errors import IndexUnavailable
from rag.settings import Settings
from rag.store.kbs import get_or_create_kb
from rag.store.session import Database
from tests.api.conftest import StoreOnly, running

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def kb(database: Database) -> None:
    with database.session() as session:
        get_or_create_kb(session, "default")


def is_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= set(body)
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return body


def is_openai(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return error


@pytest.mark.parametrize("body", ["", "{", '{"question": }', "[1,", '{"question": "a"', "NaN nonsense"])
async def test_malformed_json(client: httpx.AsyncClient, body: str) -> None:
    problem = is_problem(await client.post("/v1/ask", content=body.encode(), headers=JSON), 400, "malformed_json")
    assert "JSON" in problem["detail"]
    is_openai(await client.post("/v1/chat/completions", content=body.encode(), headers=JSON), 400, "malformed_json")


async def test_bytes_that_are_no_text_and_json_too_deep(client: httpx.AsyncClient) -> None:
    for content in (b"\xff\xfe\x00{", b'{"question": "\xc3\x28"}', b"[" * 100_000):
        response = await client.post("/v1/ask", content=content, headers=JSON)
        assert response.status_code == 400, response.text
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "question"),
        ({"question": 5}, "question"),
        ({"question": None}, "question"),
        ({"question": "a\x00b"}, "question"),
        ({"question": "年假", "history": [{"role": "system", "content": "x"}]}, "history.0.role"),
        ({"question": "年假", "history": "x"}, "history"),
        ({"question": "年假", "kb": "../etc"}, "kb"),
        ({"question": "年假", "stream": "maybe"}, "stream"),
    ],
)
async def test_wrong_fields(client: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    problem = is_problem(await client.post("/v1/ask", json=body), 422, "invalid_request")
    assert problem["errors"][0]["field"] == field
    assert field in problem["detail"]


async def test_a_lone_surrogate_is_no_text(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/ask", content=b'{"question": "\\ud800"}', headers=JSON)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_empty_and_over_long_questions(client: httpx.AsyncClient) -> None:
    assert "空" in is_problem(await client.post("/v1/ask", json={"question": " \n"}), 422, "invalid_input")["detail"]
    long = await client.post("/v1/ask", json={"question": "问" * 2001})
    assert "2001" in is_problem(long, 422, "invalid_input")["detail"]
    body = {"model": "chatgglm", "messages": [{"role": "user", "content": "问" * 2001}]}
    error = is_openai(await client.post("/v1/chat/completions", json=body), 400, "invalid_input")
    assert error["type"] == "invalid_request_error"
    huge = await client.post("/v1/ask", json={"question": "问" * 1_000_000})
    is_problem(huge, 413, "body_too_large")


async def test_what_does_not_exist(client: httpx.AsyncClient) -> None:
    problem = is_problem(await client.post("/v1/ask", json={"question": "年假", "kb": "nothing"}), 404, "not_found")
    assert "chatgglm kb" in problem["detail"]
    is_problem(await client.post("/v1/ask", json={"question": "a", "conversation_id": "x"}), 404, "not_found")
    for path in ("documents/x", "documents/x/text", "jobs/x", "jobs/x/events", "conversations/x", "knowledge_bases/x"):
        is_problem(await client.get(f"/v1/{path}"), 404, "not_found")
    is_problem(await client.get("/v1/nothing"), 404, "not_found")
    is_problem(await client.get("/v1/ask"), 405, "method_not_allowed")


@pytest.mark.parametrize("model", ["gpt-4o", "chatgglm/nothing", "chatgglm/", "", "chatgglm/default/x", "/default"])
async def test_unknown_models(client: httpx.AsyncClient, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "年假几天？"}]}
    error = is_openai(await client.post("/v1/chat/completions", json=body), 404, "model_not_found")
    assert error["param"] == "model"
    if model and "//" not in model:
        response = await client.get(f"/v1/models/{model}")
        assert response.status_code == 404
        assert "error" in response.json()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"messages": []}, 400),
        ({"messages": [{"role": "system", "content": "x"}]}, 400),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400),
        ({"n": 2}, 400),
        ({"messages": "hello"}, 400),
    ],
)
async def test_wrong_chat_requests(client: httpx.AsyncClient, change: dict[str, Any], status: int) -> None:
    body = {"model": "chatgglm", "messages": [{"role": "user", "content": "年假几天？"}]} | change
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_an_unexpected_error_says_nothing_of_the_inside(settings: Settings, database: Database) -> None:
    class Broken(StoreOnly):
        @property
        def answerer(self) -> Any:
            raise RuntimeError("secret /path")

    async with running(settings, Broken(settings, database)) as client:
        response = await client.post("/v1/ask", json={"question": "年假几天？"})
        assert "log" in is_problem(response, 500, "internal_error")["detail"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "secret" not in response.text
        streamed = await client.post("/v1/ask", json={"question": "年假几天？", "stream": True})
        assert "event: error" in streamed.text
        assert "internal_error" in streamed.text
        assert "secret" not in streamed.text


async def test_while_loading_requests_wait_and_if_it_fails_they_say_why(settings: Settings, database: Database) -> None:
    class Failing(StoreOnly):
        def warm(self) -> None:
            raise IndexUnavailable("the index is damaged; run chatgglm kb rebuild")

    async with running(settings, Failing(settings, database)) as client:
        response = await client.post("/v1/ask", json={"question": "年假几天？"})
        assert "chatgglm kb rebuild" in is_problem(response, 503, "not_ready")["detail"]
        assert int(response.headers["retry-after"]) > 0
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["status"] == "failed"
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/v1/knowledge_bases")).status_code == 200  # the store is there
