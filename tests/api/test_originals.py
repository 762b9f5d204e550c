from __future__ import annotations

import io

import httpx
import pytest

from tests.api.test_documents import upload

pytestmark = pytest.mark.anyio


def pdf(lines: list[str]) -> bytes:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.setFont("STSong-Light", 12)
    for i, line in enumerate(lines):
        canvas.drawString(72, 700 - 20 * i, line)
    canvas.save()
    return buffer.getvalue()


async def test_an_original_is_a_download_that_runs_nothing(asked: httpx.AsyncClient) -> None:
    page = "<html><body><script>alert(1)</script><p>车库在地下二层，凭卡进出。</p></body></html>".encode()
    job = await upload(asked, {"车库 说明.html": page})
    answer = await asked.get(f"/v1/documents/{job['documents'][0]['document_id']}/original")
    assert answer.status_code == 200
    assert answer.content == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "%E8%BD%A6%E5%BA%93%20%E8%AF%B4%E6%98%8E.html" in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert (await asked.get("/v1/documents/none/original")).status_code == 404


async def test_highlights_and_a_picture_of_the_page(asked: httpx.AsyncClient) -> None:
    job = await upload(asked, {"车库.pdf": pdf(["车库在地下二层。", "访客请在前台登记。"])})
    ident = job["documents"][0]["document_id"]
    text = (await asked.get(f"/v1/documents/{ident}/text")).json()["text"]
    start = text.index("地下二层")
    found = (await asked.get(f"/v1/documents/{ident}/highlights", params={"start": start, "end": start + 4})).json()
    (page,) = found["pages"]
    ((left, top, right, bottom),) = page["boxes"]
    assert page["page"] == 1
    assert left == pytest.approx(72 + 3 * 12, abs=2)
    assert right == pytest.approx(72 + 7 * 12, abs=2)
    assert top < page["height"] - 700 < bottom
    shown = await asked.get(f"/v1/documents/{ident}/pages/1.png", params={"start": start, "end": start + 4})
    assert shown.headers["content-type"] == "image/png"
    assert shown.content.startswith(b"\x89PNG")
    assert (await asked.get(f"/v1/documents/{ident}/pages/9.png")).status_code == 404
    for wrong in ({"start": 5, "end": 5}, {"start": 0, "end": 10**6}, {"start": -1, "end": 2}):
        assert (await asked.get(f"/v1/documents/{ident}/highlights", params=wrong)).status_code == 422


async def test_formats_without_pages_have_no_boxes(asked: httpx.AsyncClient) -> None:
    (listed,) = (await asked.get("/v1/documents")).json()["data"]
    found = await asked.get(f"/v1/documents/{listed['id']}/highlights", params={"start": 0, "end": 5})
    assert found.json()["pages"] == []
    assert (await asked.get(f"/v1/documents/{listed['id']}/pages/1.png")).status_code == 404


async def test_preview_of_chunks_indexes_nothing(asked: httpx.AsyncClient) -> None:
    text = "# 制度\n\n" + "\n\n".join(f"## 第{i}节\n\n{'员工应当按时上下班。' * 30}" for i in range(3))
    answer = await asked.post("/v1/chunks/preview", files={"file": ("制度.md", text.encode())})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["title"] == "制度"
    assert [chunk["heading"] for chunk in found["chunks"]] == ["第0节", "第1节", "第2节"]
    assert all(0 < chunk["tokens"] <= 480 for chunk in found["chunks"])
    assert [row["path"] for row in (await asked.get("/v1/documents")).json()["data"]] == ["员工手册.txt"]
    smaller = {"chunk_target": 60, "chunk_max": 90}
    finer = await asked.post("/v1/chunks/preview", files={"file": ("制度.md", text.encode())}, params=smaller)
    assert max(chunk["tokens"] for chunk in finer.json()["chunks"]) <= 90
    wrong = await asked.post(
        "/v1/chunks/preview", files={"file": ("制度.md", text.encode())}, params={"chunk_target": 900}
    )
    assert wrong.status_code == 422
    assert "maximum" in wrong.json()["detail"]
    bad = await asked.post("/v1/chunks/preview", files={"file": ("a.pdf", b"no pdf")})
    assert bad.status_code == 422
    assert "damaged" in bad.json()["detail"]
    assert (await asked.post("/v1/chunks/preview", json={})).status_code == 415
