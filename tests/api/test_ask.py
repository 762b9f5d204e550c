"""Asking and searching over a real store and index: documents, streams, conversations."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest

from rag.service import Service
from rag.settings import Settings
from rag.wire import answer_to_dict
from tests.api.conftest import HANDBOOK, running

pytestmark = pytest.mark.anyio
QUESTION = "年假有几天？"


def parse(stream: str) -> list[tuple[str, Any]]:
    """The events of a stream, by name and data."""
    events = []
    for block in stream.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        events.append((fields["event"], json.loads(fields["data"])))
    return events


def without_figures(document: dict[str, Any]) -> dict[str, Any]:
    """What must be the same each time: not the ids and times of a run."""
    return {name: value for name, value in document.items() if name not in ("run_id", "timings_ms", "kb")}


async def test_ask_gives_the_document_of_the_command(asked: httpx.AsyncClient, service: Service) -> None:
    response = await asked.post("/v1/ask", json={"question": QUESTION, "some_new_field": 1})
    assert response.status_code == 200
    document = response.json()
    assert document["answerable"]
    assert "十五天" in document["answer"]
    for citation in document["citations"]:
        shown = await asked.get(
            f"/v1/documents/{citation['document_id']}/text",
            params={"start": citation["char_start"], "end": citation["char_end"], "version": citation["version_id"]},
        )
        assert shown.json()["text"] == citation["quote"]
        assert citation["path"] == "员工手册.txt"
    assert document["citations"]
    assert without_figures(document) == without_figures(answer_to_dict(service.answerer.ask(QUESTION)))


async def test_a_stream_ends_with_the_same_document(asked: httpx.AsyncClient) -> None:
    response = await asked.post("/v1/ask", json={"question": QUESTION, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    events = parse(response.text)
    names = [name for name, _ in events]
    assert names[:2] == ["start", "passages"]
    assert names[-2:] == ["answer", "done"]
    whole = (await asked.post("/v1/ask", json={"question": QUESTION})).json()
    (answer,) = [data for name, data in events if name == "answer"]
    assert without_figures(answer) == without_figures(whole)
    assert "".join(data["text"] for name, data in events if name == "delta") == answer["display"]
    assert names.count("delta") > 1


async def test_a_refusal_is_an_answer(asked: httpx.AsyncClient) -> None:
    document = (await asked.post("/v1/ask", json={"question": "火星上的氧气浓度是多少？"})).json()
    assert document["answerable"] is False
    assert document["answer"].startswith("资料中没有找到")
    assert document["citations"] == []


async def test_a_conversation_keeps_question_answer_and_citations(asked: httpx.AsyncClient) -> None:
    ident = (await asked.post("/v1/conversations", json={})).json()["id"]
    body = {"question": QUESTION, "conversation_id": ident}
    document = (await asked.post("/v1/ask", json=body)).json()
    assert document["conversation_id"] == ident
    streamed = parse((await asked.post("/v1/ask", json={**body, "question": "那病假呢？", "stream": True})).text)
    start = dict(streamed)["start"]
    assert start["conversation_id"] == ident
    rows = (await asked.get(f"/v1/conversations/{ident}/messages")).json()["data"]
    assert [row["role"] for row in rows] == ["user", "assistant"] * 2
    assert rows[1]["id"] == document["message_id"]
    assert rows[1]["content"] == document["display"]
    assert rows[1]["citations"] == [
        {name: value for name, value in c.items() if name in rows[1]["citations"][0]} for c in document["citations"]
    ]
    assert rows[3]["id"] == start["message_id"]
    assert rows[3]["status"] == "complete"
    assert dict(streamed)["answer"]["standalone_question"] != "那病假呢？"  # read with what was said before


async def test_history_without_a_conversation(asked: httpx.AsyncClient) -> None:
    history = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "十五天"}]
    document = (await asked.post("/v1/ask", json={"question": "那病假呢？", "history": history})).json()
    assert document["standalone_question"] != "那病假呢？"
    assert (await asked.get("/v1/conversations")).json()["data"] == []


async def test_two_questions_at_once_in_one_conversation(asked: httpx.AsyncClient) -> None:
    ident = (await asked.post("/v1/conversations", json={})).json()["id"]
    body = {"question": QUESTION, "conversation_id": ident}
    responses = await asyncio.gather(*[asked.post("/v1/ask", json=body) for _ in range(4)])
    assert [r.status_code for r in responses] == [200] * 4
    rows = (await asked.get(f"/v1/conversations/{ident}/messages")).json()["data"]
    assert [row["role"] for row in rows] == ["user", "assistant"] * 4
    assert {row["status"] for row in rows} == {"complete"}


async def test_a_reader_that_fails_midway_leaves_an_interrupted_answer(
    settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory at /secret")

    monkeypatch.setattr(service.reader, "read", broken)
    async with running(settings, service) as client:
        ident = (await client.post("/v1/conversations", json={})).json()["id"]
        body = {"question": QUESTION, "conversation_id": ident, "stream": True}
        events = parse((await client.post("/v1/ask", json=body)).text)
        assert events[-1][0] == "error"
        assert events[-1][1]["code"] == "internal_error"
        assert "secret" not in json.dumps(events, ensure_ascii=False)
        rows = (await client.get(f"/v1/conversations/{ident}/messages")).json()["data"]
        assert [row["status"] for row in rows] == ["complete", "interrupted"]


def test_a_client_that_goes_away_leaves_an_interrupted_answer(
    server: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read = service.reader.read

    def slow(*args: Any, **kwargs: Any) -> Any:
        reading.set()
        assert go_on.wait(10)
        return read(*args, **kwargs)

    monkeypatch.setattr(service.reader, "read", slow)
    ident = httpx.post(f"{server}/v1/conversations", json={}).json()["id"]
    body = {"question": QUESTION, "conversation_id": ident, "stream": True}
    with httpx.stream("POST", f"{server}/v1/ask", json=body, timeout=10) as response:
        lines = response.iter_lines()
        assert next(lines) == ": ok"
        assert reading.wait(10)
    time.sleep(0.3)  # the server sees the closed connection
    go_on.set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        rows = httpx.get(f"{server}/v1/conversations/{ident}/messages").json()["data"]
        if rows[1]["content"]:
            break
        time.sleep(0.05)
    assert rows[1]["status"] == "interrupted"
    assert "十五天" not in rows[1]["content"]
    monkeypatch.setattr(service.reader, "read", read)
    again = httpx.post(f"{server}/v1/ask", json={"question": QUESTION}, timeout=10)
    assert again.json()["answerable"]  # the slot is free again


async def test_requests_wait_for_the_models(settings: Settings, service: Service) -> None:
    loading = threading.Event()
    service.warm = lambda: loading.wait(10)  # type: ignore[method-assign, assignment, return-value]
    async with running(settings, service) as client:
        waiting = asyncio.create_task(client.post("/v1/ask", json={"question": QUESTION}))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert (await client.get("/readyz")).json()["status"] == "loading"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/conversations")).status_code == 200
        loading.set()
        assert (await waiting).json()["answerable"]
        assert (await client.get("/readyz")).status_code == 200


async def test_too_much_at_once_is_told_to_come_back(
    settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    read = service.reader.read
    monkeypatch.setattr(service.reader, "read", lambda *a, **k: (go_on.wait(10), read(*a, **k))[1])
    tight = settings.model_copy(update={"workers": 1, "queue": 1})
    async with running(tight, service) as client:
        running_now = [asyncio.create_task(client.post("/v1/ask", json={"question": QUESTION})) for _ in range(2)]
        await asyncio.sleep(0.3)
        refused = await client.post("/v1/ask", json={"question": QUESTION})
        assert refused.status_code == 503
        assert refused.json()["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
        begun = time.monotonic()
        assert (await client.get("/healthz")).status_code == 200
        assert time.monotonic() - begun < 2  # of 10 that the reader takes: the event loop is not held up
        go_on.set()
        assert [(await task).status_code for task in running_now] == [200, 200]


async def test_search(asked: httpx.AsyncClient) -> None:
    results = (await asked.post("/v1/search", json={"question": "病假 主管", "k": 2})).json()["results"]
    assert 1 <= len(results) <= 2
    first = results[0]
    assert "病假" in first["text"]
    assert {"chunk_id", "document_id", "title", "path", "page", "char_start", "char_end", "text", "score"} <= set(first)
    assert set(first["scores"]) == {"lexical", "dense", "fused", "relevance"}
    shown = await asked.get(
        f"/v1/documents/{first['document_id']}/text", params={"start": first["char_start"], "end": first["char_end"]}
    )
    assert shown.json()["text"] == first["text"]
    assert (await asked.post("/v1/search", json={"question": "病假", "k": 0})).status_code == 422
    assert (await asked.post("/v1/search", json={"question": "病假", "documents": ["none"]})).json()["results"] == []
    for given in ({"documents": ["员工手册.txt"]}, {"since": "2020-01-01"}, {"path_prefix": "员工"}):
        assert (await asked.post("/v1/search", json={"question": "病假", **given})).json()["results"], given
    for given in ({"tags": ["没有"]}, {"until": "2020-01-01"}, {"meta": {"部门": "没有"}}):
        assert (await asked.post("/v1/search", json={"question": "病假", **given})).json()["results"] == [], given
    assert (await asked.post("/v1/search", json={"question": "病假", "since": "去年"})).status_code == 422
    turned = {"question": "病假", "since": "2024-01-02", "until": "2024-01-01"}
    assert (await asked.post("/v1/search", json=turned)).status_code in (400, 422)


async def test_ask_reads_only_what_the_filter_admits(asked: httpx.AsyncClient) -> None:
    inside = (await asked.post("/v1/ask", json={"question": QUESTION, "documents": ["员工手册.txt"]})).json()
    assert inside["answerable"]
    outside = (await asked.post("/v1/ask", json={"question": QUESTION, "tags": ["没有"]})).json()
    assert not outside["answerable"]
    assert outside["citations"] == []
    assert HANDBOOK.startswith("员工手册")
