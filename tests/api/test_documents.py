"""Documents by API: upload as a job, list, read with passages, replace, delete."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import ingestion
from api.ingestion import ORPHAN_AGE, safe_name, uploads
from ingest.jobs import get_job
from ingest.pipeline import submit
from rag.errors import InvalidInput
from rag.service import Service
from rag.settings import Settings
from tests.api.conftest import HANDBOOK, running

pytestmark = pytest.mark.anyio


async def upload(client: httpx.AsyncClient, files: dict[str, bytes], kb: str = "", **fields: str) -> dict[str, Any]:
    """Sends files and waits for their job."""
    parts = [("file", (name, content)) for name, content in files.items()]
    response = await client.post("/v1/documents", files=parts, data={"kb": kb, **fields} if kb else fields)
    assert response.status_code == 202, response.text
    location = response.headers["location"]
    assert location == f"/v1/jobs/{response.json()['job_id']}"
    for _ in range(600):
        job: dict[str, Any] = (await client.get(location)).json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job does not end: {job}")


async def test_upload_and_ask(asked: httpx.AsyncClient, settings: Settings) -> None:
    job = await upload(asked, {"报销制度.md": "# 报销制度\n\n差旅报销须在返回后三十日内提交。\n".encode()})
    assert job["status"] == "succeeded"
    (row,) = job["documents"]
    assert (row["path"], row["status"], row["error"]) == ("报销制度.md", "indexed", None)
    assert row["chunks"] >= 1
    answer = (await asked.post("/v1/ask", json={"question": "差旅报销多少日内提交？"})).json()
    assert "三十日内" in answer["answer"]
    assert answer["citations"][0]["document_id"] == row["document_id"]
    await asyncio.sleep(0.1)
    assert list(uploads(settings.home).glob("*")) == []  # nothing is left behind


async def test_a_bad_file_is_listed_and_the_rest_is_indexed(asked: httpx.AsyncClient) -> None:
    job = await upload(asked, {"a.txt": "食堂在一楼。".encode(), "b.pdf": b"no pdf", "c.exe": b"MZ", "d.txt": b""})
    assert job["status"] == "failed"
    rows = {row["path"]: row for row in job["documents"]}
    assert rows["a.txt"]["status"] == "indexed"
    assert rows["b.pdf"]["status"] == "failed"
    assert rows["c.exe"]["status"] == "failed"
    assert rows["d.txt"]["status"] in ("skipped", "failed")
    assert all(rows[name]["error"] for name in ("b.pdf", "c.exe", "d.txt"))
    assert "/" not in json.dumps([row["error"] for row in rows.values() if row["error"]])  # no server path


async def test_same_bytes_are_skipped_and_changed_ones_replace(asked: httpx.AsyncClient) -> None:
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    again = await upload(asked, {"员工手册.txt": HANDBOOK.encode()})
    assert again["documents"][0]["status"] == "skipped"
    assert again["documents"][0]["document_id"] == listed["id"]
    forced = await upload(asked, {"员工手册.txt": HANDBOOK.encode()}, force="true")
    assert forced["documents"][0]["status"] == "indexed"
    assert forced["documents"][0]["document_id"] == listed["id"]
    changed = await upload(asked, {"员工手册.txt": HANDBOOK.replace("十五天", "二十天").encode()})
    assert changed["documents"][0]["document_id"] == listed["id"]
    (now,) = (await asked.get("/v1/documents")).json()["data"]
    assert now["version_id"] != listed["version_id"]
    answer = (await asked.post("/v1/ask", json={"question": "年假有几天？"})).json()
    assert "二十天" in answer["answer"]
    assert "十五天" not in json.dumps(answer, ensure_ascii=False)


async def test_another_knowledge_base_is_made_by_the_upload(asked: httpx.AsyncClient) -> None:
    await upload(asked, {"a.txt": "仓库在二楼。".encode()}, kb="depot")
    assert [d["path"] for d in (await asked.get("/v1/documents?kb=depot")).json()["data"]] == ["a.txt"]
    assert [d["path"] for d in (await asked.get("/v1/documents")).json()["data"]] == ["员工手册.txt"]
    bases = {kb["slug"]: kb for kb in (await asked.get("/v1/knowledge_bases")).json()["data"]}
    assert bases["depot"]["documents"] == 1
    assert bases["depot"]["chunks"] >= 1
    assert (await asked.delete("/v1/knowledge_bases/depot")).status_code == 204
    assert (await asked.post("/v1/ask", json={"question": "仓库在几楼？", "kb": "depot"})).status_code == 404
    assert (await asked.get("/v1/documents?kb=depot")).status_code == 404


async def test_delete(asked: httpx.AsyncClient) -> None:
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    assert (await asked.delete(f"/v1/documents/{listed['id']}")).status_code == 204
    assert (await asked.get(f"/v1/documents/{listed['id']}")).status_code == 404
    assert (await asked.get(f"/v1/documents/{listed['id']}/text")).status_code == 404
    assert (await asked.delete(f"/v1/documents/{listed['id']}")).status_code == 404
    answer = (await asked.post("/v1/ask", json={"question": "年假有几天？"})).json()
    assert answer["answerable"] is False
    assert (await asked.post("/v1/search", json={"question": "年假"})).json()["results"] == []


async def test_text_and_passages(asked: httpx.AsyncClient) -> None:
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    shown = (await asked.get(f"/v1/documents/{listed['id']}")).json()
    assert shown["title"]
    assert shown["media_type"] == "text/plain"
    whole = (await asked.get(f"/v1/documents/{listed['id']}/text")).json()
    assert whole["total_chars"] == len(whole["text"]) == shown["chars"]
    for passage in whole["passages"]:
        part = await asked.get(
            f"/v1/documents/{listed['id']}/text",
            params={"start": passage["char_start"], "end": passage["char_end"]},
        )
        assert part.json()["text"] == whole["text"][passage["char_start"] : passage["char_end"]]
    for params in ({"start": 9_999}, {"start": 5, "end": 5}, {"start": 9, "end": 3}, {"start": -1}):
        assert (await asked.get(f"/v1/documents/{listed['id']}/text", params=params)).status_code == 422
    past = await asked.get(f"/v1/documents/{listed['id']}/text", params={"version": 999})
    assert past.status_code == 404


async def test_pages_of_documents(asked: httpx.AsyncClient) -> None:
    await upload(asked, {f"{name}.txt": f"第{name}篇的内容。".encode() for name in "abc"})
    first = (await asked.get("/v1/documents", params={"limit": 3})).json()
    assert [row["path"] for row in first["data"]] == ["a.txt", "b.txt", "c.txt"]
    assert first["has_more"]
    rest = (await asked.get("/v1/documents", params={"after": first["last_id"]})).json()
    assert [row["path"] for row in rest["data"]] == ["员工手册.txt"]
    found = (await asked.get("/v1/documents", params={"q": "手册"})).json()
    assert [row["path"] for row in found["data"]] == ["员工手册.txt"]


async def test_jobs(asked: httpx.AsyncClient) -> None:
    job = await upload(asked, {"a.txt": "车库在地下。".encode()})
    listed = (await asked.get("/v1/jobs")).json()["data"]
    assert listed[0]["id"] == job["id"]
    assert "documents" not in listed[0]
    events = (await asked.get(f"/v1/jobs/{job['id']}/events")).text
    assert "event: progress" in events
    assert events.rstrip().splitlines()[-2] == "event: done"
    ended = await asked.delete(f"/v1/jobs/{job['id']}")
    assert ended.status_code == 409


async def test_wrong_uploads(asked: httpx.AsyncClient) -> None:
    assert (await asked.post("/v1/documents", data={"kb": "default"}, files=[])).status_code in (415, 422)
    twice = [("file", ("a.txt", b"1")), ("file", ("x/a.txt", b"2"))]
    assert (await asked.post("/v1/documents", files=twice)).status_code == 422
    bad = await asked.post("/v1/documents", files=[("file", ("a.txt", b"1"))], data={"kb": "../x"})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["field"] == "kb"


def test_names_of_uploads() -> None:
    assert safe_name("../../etc/passwd") == "passwd"
    assert safe_name("C:\\Users\\王\\报告.docx") == "报告.docx"
    assert safe_name("a\x00\n\u202eb.txt") == "ab.txt"
    long = safe_name("字" * 300 + ".pdf")
    assert long.endswith("字.pdf")
    assert len(long.encode()) <= 210
    for nothing in ("", None, "/", "..", " . ", "\x00"):
        with pytest.raises(InvalidInput):
            safe_name(nothing)


async def test_a_job_that_a_killed_process_left_behind_is_taken_up(
    settings: Settings, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "车库.txt"
    file.write_text("车库在地下二层。", encoding="utf-8")
    left = submit(service, [file])
    young = submit(service, [file])
    with service.database.session() as session:
        get_job(session, left).created_at -= 2 * ORPHAN_AGE
        get_job(session, young).created_at += 10 * ORPHAN_AGE  # however slow this machine
    forgotten = uploads(settings.home) / "old"
    forgotten.mkdir(parents=True)
    os.utime(forgotten, (0, 0))
    monkeypatch.setattr(ingestion, "SWEEP_S", 0.05)
    async with running(settings, service) as client:
        for _ in range(400):
            if (await client.get(f"/v1/jobs/{left}")).json()["status"] == "succeeded" and not forgotten.exists():
                break
            await asyncio.sleep(0.05)
        assert (await client.get(f"/v1/jobs/{left}")).json()["status"] == "succeeded"
        assert (await client.get(f"/v1/jobs/{young}")).json()["status"] == "queued"  # its process may yet come to it
        assert not forgotten.exists()
        assert (await client.delete(f"/v1/jobs/{young}")).json()["status"] == "cancelled"


async def test_another_page_can_neither_write_nor_read(asked: httpx.AsyncClient) -> None:
    evil = {"Origin": "https://evil.example"}
    sent = await asked.post("/v1/documents", files=[("file", ("a.txt", b"x"))], headers=evil)
    assert sent.status_code == 403
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    assert (await asked.delete(f"/v1/documents/{listed['id']}", headers=evil)).status_code == 403
    read = await asked.get("/v1/documents", headers=evil)
    assert "access-control-allow-origin" not in read.headers
    rebound = await asked.get("/v1/documents", headers={"Host": "evil.example:8000"})
    assert rebound.status_code == 403
    form = await asked.post("/v1/ask", content=b'{"question": "x"}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert len((await asked.get("/v1/documents")).json()["data"]) == 1


async def test_tags_and_metadata_of_an_upload(asked: httpx.AsyncClient) -> None:
    parts = [
        ("file", ("a.txt", "食堂在一楼。".encode())),
        ("file", ("b.txt", "车库在地下。".encode())),
        ("file", ("b.txt.meta.yaml", "tags: [车库]\ndate: 2024-05-06".encode())),
    ]
    sent = await asked.post("/v1/documents", files=parts, data={"tags": "后勤，公告", "meta": '{"level": 2}'})
    assert sent.status_code == 202
    for _ in range(600):
        job = (await asked.get(sent.headers["location"])).json()
        if job["status"] == "succeeded":
            break
        await asyncio.sleep(0.05)
    assert {row["path"] for row in job["documents"]} == {"a.txt", "b.txt"}
    rows = {row["path"]: row for row in (await asked.get("/v1/documents")).json()["data"]}
    assert (rows["a.txt"]["tags"], rows["a.txt"]["meta"]) == (["后勤", "公告"], {"level": 2})
    assert (rows["b.txt"]["tags"], rows["b.txt"]["date"]) == (["车库"], "2024-05-06")
    assert rows["a.txt"]["fidelity"]["encoding"] == "utf-8"
    tagged = (await asked.get("/v1/documents", params={"tag": ["后勤", "公告"]})).json()["data"]
    assert [row["path"] for row in tagged] == ["a.txt"]
    for wrong in ("{", "[1]"):
        bad = await asked.post("/v1/documents", files=parts[:1], data={"meta": wrong})
        assert bad.status_code == 422


async def test_history_and_near_duplicates(asked: httpx.AsyncClient) -> None:
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    await upload(asked, {"员工手册.txt": HANDBOOK.replace("十五天", "二十天").encode(), "副本.txt": HANDBOOK.encode()})
    first, second = (await asked.get(f"/v1/documents/{listed['id']}/versions")).json()["data"]
    assert (first["number"], second["number"]) == (1, 2)
    assert first["replaced_at"]
    assert second["replaced_at"] is None
    assert first["sha256"] != second["sha256"]
    shown = (await asked.get(f"/v1/documents/{listed['id']}")).json()
    assert [twin["path"] for twin in shown["near_duplicates"]] == ["副本.txt"]
    await asked.delete(f"/v1/documents/{listed['id']}")
    (_, last) = (await asked.get(f"/v1/documents/{listed['id']}/versions")).json()["data"]
    assert last["replaced_at"]


async def test_purge_leaves_no_word_of_the_document(asked: httpx.AsyncClient, settings: Settings) -> None:
    conversation = (await asked.post("/v1/conversations", json={})).json()["id"]
    body = {"question": "年假有几天？", "conversation_id": conversation}
    assert "十五天" in (await asked.post("/v1/ask", json=body)).json()["answer"]
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    assert (await asked.delete(f"/v1/documents/{listed['id']}")).status_code == 204
    kept = (await asked.get(f"/v1/conversations/{conversation}/messages")).text
    assert "十五天" in kept, "a deleted document's quotes stay with their conversations"
    assert (await asked.delete(f"/v1/documents/{listed['id']}?purge=true")).status_code == 204
    blank = (await asked.get(f"/v1/conversations/{conversation}/messages")).json()["data"]
    assert "十五天" not in json.dumps(blank, ensure_ascii=False)
    assert "彻底清除" in blank[-1]["content"]
    assert blank[-1]["citations"][0]["quote"] == ""
    assert (await asked.delete("/v1/documents/none?purge=true")).status_code == 404
    for file in settings.home.glob("chatgglm.db*"):
        assert "百分之一百五十".encode() not in file.read_bytes(), file.name
    await upload(asked, {"员工手册.txt": HANDBOOK.encode()})
    assert "十五天" in (await asked.post("/v1/ask", json={"question": "年假有几天？"})).json()["answer"]


async def test_a_failed_job_is_tried_again(asked: httpx.AsyncClient, settings: Settings) -> None:
    job = await upload(asked, {"a.txt": "食堂在一楼。".encode(), "b.pdf": b"no pdf"})
    assert job["status"] == "failed"
    (folder,) = uploads(settings.home).glob("*")
    (folder / "b.pdf").rename(folder / "gone.pdf")
    again = await asked.post(f"/v1/jobs/{job['id']}/retry", json={})
    assert again.status_code == 202
    assert again.json()["status"] == "queued"
    for _ in range(600):
        now = (await asked.get(f"/v1/jobs/{job['id']}")).json()
        if now["status"] == "failed":
            break
        await asyncio.sleep(0.05)
    assert [row["error"] for row in now["documents"]] == [None, "no such file"]
    assert (await asked.post("/v1/jobs/none/retry", json={})).status_code == 404
