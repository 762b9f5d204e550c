"""Conversations: stored, paged, searched, exported, rated, deleted."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api import conversations as store
from api.models import Conversation, Feedback, Message, MessageCitation
from rag.store.documents import NewChunk, NewVersion, replace_version
from rag.store.kbs import get_or_create_kb
from rag.store.session import Database

pytestmark = pytest.mark.anyio


def answer(version: int, document: str) -> dict[str, Any]:
    """The document of an answer, as `rag.wire` makes it."""
    citation = {
        "marker": 1,
        "document_id": document,
        "version_id": version,
        "title": "员工手册",
        "path": "手册.txt",
        "page": None,
        "char_start": 0,
        "char_end": 5,
        "quote": "年假十五天",
        "answer_start": 0,
        "answer_end": 5,
        "kind": "copied",
        "score": 0.9,
    }
    return {
        "question": "年假几天？",
        "standalone_question": "年假几天？",
        "answer": "年假十五天",
        "display": "年假十五天 [1]",
        "answerable": True,
        "p_answerable": 0.9,
        "reason": "answered",
        "citations": [citation],
        "passages": [],
        "model": "test",
        "generation": 1,
        "run_id": "run",
        "timings_ms": {"total": 1.0},
        "generated": [],
    }


@pytest.fixture
def document(database: Database) -> tuple[int, str]:
    """A stored version and its document's id."""
    with database.session() as session:
        kb = get_or_create_kb(session, "default")
        new = NewVersion("0" * 64, "text/plain", 18, "年假十五天。")
        row, version, _ = replace_version(session, kb, "手册.txt", "员工手册", new, [NewChunk(0, 6)])
        return version.id, row.id


async def talk(client: httpx.AsyncClient, database: Database, document: tuple[int, str], *questions: str) -> str:
    """A conversation of complete exchanges."""
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    for question in questions:
        with database.session(write=True) as session:
            ident = store.begin(session, session.get_one(Conversation, made), question)
        with database.session(write=True) as session:
            store.finish(session, ident, answer(*document))
    return str(made)


async def test_an_exchange_is_stored_with_its_citations(
    client: httpx.AsyncClient, database: Database, document: tuple[int, str]
) -> None:
    ident = await talk(client, database, document, "年假几天？")
    shown = (await client.get(f"/v1/conversations/{ident}")).json()
    assert shown["title"] == "年假几天？"
    assert shown["messages"] == 2
    question, reply = (await client.get(f"/v1/conversations/{ident}/messages")).json()["data"]
    assert (question["role"], question["content"]) == ("user", "年假几天？")
    assert reply["status"] == "complete"
    assert reply["content"] == "年假十五天 [1]"
    assert reply["answer"] == "年假十五天"
    (citation,) = reply["citations"]
    assert citation == answer(*document)["citations"][0]


async def test_an_answer_is_interrupted_until_it_is_complete(client: httpx.AsyncClient, database: Database) -> None:
    with database.session() as session:
        get_or_create_kb(session, "default")
    made = (await client.post("/v1/conversations", json={})).json()["id"]
    with database.session(write=True) as session:
        ident = store.begin(session, session.get_one(Conversation, made), "问？")
    rows = (await client.get(f"/v1/conversations/{made}/messages")).json()["data"]
    assert [row["status"] for row in rows] == ["complete", "interrupted"]
    with database.session(write=True) as session:
        store.interrupt(session, ident, "说到一")
    rows = (await client.get(f"/v1/conversations/{made}/messages")).json()["data"]
    assert (rows[1]["content"], rows[1]["status"]) == ("说到一", "interrupted")
    with database.session() as session:
        assert store.history(session, session.get_one(Conversation, made)) == []


async def test_history_is_the_last_complete_exchanges(
    client: httpx.AsyncClient, database: Database, document: tuple[int, str]
) -> None:
    ident = await talk(client, database, document, *[f"第{i}问" for i in range(10)])
    with database.session() as session:
        turns = store.history(session, session.get_one(Conversation, ident))
    assert len(turns) == store.HISTORY_TURNS
    assert turns[-2].content == "第9问"
    assert (turns[-1].role, turns[-1].content) == ("assistant", "年假十五天")  # the bare answer, without the quote


async def test_a_citation_outlives_its_document(
    client: httpx.AsyncClient, database: Database, document: tuple[int, str]
) -> None:
    ident = await talk(client, database, document, "年假几天？")
    with database.session() as session:
        kb = get_or_create_kb(session, "default")
        replace_version(session, kb, "手册.txt", "员工手册", NewVersion("1" * 64, "text/plain", 3, "改了。"), [])
    old = await client.get(f"/v1/documents/{document[1]}/text", params={"version": document[0]})
    assert old.json()["text"] == "年假十五天。"
    assert old.json()["current"] is False
    assert (await client.get(f"/v1/documents/{document[1]}/text")).json()["text"] == "改了。"
    with database.session() as session:
        kb = get_or_create_kb(session, "default")
        session.delete(kb)
    reply = (await client.get(f"/v1/conversations/{ident}/messages")).json()["data"][1]
    assert reply["citations"][0]["quote"] == "年假十五天"
    assert reply["citations"][0]["version_id"] is None


async def test_pages_and_search(client: httpx.AsyncClient, database: Database, document: tuple[int, str]) -> None:
    made = [await talk(client, database, document, f"问题{i}") for i in range(5)]
    seen: list[str] = []
    after = None
    while True:
        params = {"limit": "2"} | ({"after": after} if after else {})
        page = (await client.get("/v1/conversations", params=params)).json()
        assert len(page["data"]) <= 2
        assert page["first_id"] == page["data"][0]["id"]
        seen += [row["id"] for row in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert sorted(seen) == sorted(made)
    found = (await client.get("/v1/conversations", params={"q": "问题3"})).json()["data"]
    assert [row["id"] for row in found] == [made[3]]
    assert (await client.get("/v1/conversations", params={"q": "%"})).json()["data"] == []
    assert (await client.get("/v1/conversations", params={"after": "nothing"})).status_code == 404
    assert (await client.get("/v1/conversations", params={"limit": 0})).status_code == 422
    messages = (await client.get(f"/v1/conversations/{made[0]}/messages", params={"limit": 1})).json()
    assert messages["has_more"]
    rest = await client.get(f"/v1/conversations/{made[0]}/messages", params={"after": messages["last_id"]})
    assert [row["role"] for row in rest.json()["data"]] == ["assistant"]


async def test_rename_and_delete(client: httpx.AsyncClient, database: Database, document: tuple[int, str]) -> None:
    ident = await talk(client, database, document, "一")
    other = await talk(client, database, document, "二")
    assert (await client.patch(f"/v1/conversations/{ident}", json={"title": "假期"})).json()["title"] == "假期"
    assert (await client.delete(f"/v1/conversations/{ident}")).status_code == 204
    gone = await client.get(f"/v1/conversations/{ident}")
    assert gone.status_code == 404
    assert gone.headers["content-type"] == "application/problem+json"
    with database.session() as session:
        assert {row.conversation_id for row in session.scalars(select(Message))} == {other}
        assert len(list(session.scalars(select(MessageCitation)))) == 1


async def test_export(client: httpx.AsyncClient, database: Database, document: tuple[int, str]) -> None:
    ident = await talk(client, database, document, "年假几天？")
    whole = await client.get(f"/v1/conversations/{ident}/export")
    assert whole.headers["content-disposition"].startswith("attachment")
    assert [m["role"] for m in whole.json()["messages"]] == ["user", "assistant"]
    text = await client.get(f"/v1/conversations/{ident}/export", params={"format": "markdown"})
    assert text.text == (
        "# 年假几天？\n\n## 问：年假几天？\n\n年假十五天 [1]\n\n- [1] 员工手册（手册.txt）：「年假十五天」\n"
    )


async def test_feedback(client: httpx.AsyncClient, database: Database, document: tuple[int, str]) -> None:
    ident = await talk(client, database, document, "年假几天？")
    question, reply = (await client.get(f"/v1/conversations/{ident}/messages")).json()["data"]
    body = {"message_id": reply["id"], "rating": "down", "comment": "过时了"}
    assert (await client.post("/v1/feedback", json=body)).status_code == 201
    assert (await client.post("/v1/feedback", json={"message_id": reply["id"], "rating": "up"})).status_code == 201
    with database.session() as session:
        (row,) = session.scalars(select(Feedback))
        assert (row.rating, row.comment) == ("up", "")
    (listed,) = (await client.get("/v1/feedback")).json()["data"]
    assert listed["answer"] == "年假十五天 [1]"
    shown = (await client.get(f"/v1/conversations/{ident}/messages")).json()["data"][1]
    assert shown["feedback"]["rating"] == "up"
    assert (await client.post("/v1/feedback", json={**body, "rating": "5"})).status_code == 422
    assert (await client.post("/v1/feedback", json={**body, "message_id": question["id"]})).status_code == 404
    assert (await client.delete(f"/v1/feedback/{reply['id']}")).status_code == 204
    assert (await client.delete(f"/v1/feedback/{reply['id']}")).status_code == 404
