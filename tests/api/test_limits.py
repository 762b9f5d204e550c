"""The model pool: bounded, fair, and never blocking the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from api import sse
from api.errors import Busy, TooManyRequests
from api.limits import ModelPool

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_work_runs_beside_the_event_loop_and_results_and_errors_come_back() -> None:
    pool = ModelPool(1, 4, 4, 5)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    assert await pool.run("a", lambda: (time.sleep(0.2), threading.current_thread().name)[1]) == "model_0"
    assert ticks > 5
    with pytest.raises(ZeroDivisionError):
        await pool.run("a", lambda: 1 // 0)
    assert await pool.run("a", lambda: 7) == 7
    ticking.cancel()


async def test_a_full_queue_refuses_with_retry_after_and_recovers() -> None:
    pool = ModelPool(1, 1, 10, 5)
    gate = threading.Event()
    first = asyncio.create_task(pool.run("a", gate.wait))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(pool.run("b", lambda: 2))
    await asyncio.sleep(0.05)
    assert pool.waiting == 1
    with pytest.raises(Busy) as refused:
        await pool.run("c", lambda: 3)
    assert refused.value.status == 503
    assert refused.value.retry_after >= 1
    gate.set()
    assert await first is True
    assert await second == 2
    assert await pool.run("c", lambda: 3) == 3


async def test_one_client_cannot_take_the_whole_queue() -> None:
    pool = ModelPool(1, 10, 2, 5)
    gate = threading.Event()
    running = [asyncio.create_task(pool.run("a", gate.wait)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(TooManyRequests) as refused:
        await pool.run("a", lambda: 1)
    assert refused.value.status == 429
    other = asyncio.create_task(pool.run("b", lambda: 5))
    gate.set()
    assert await other == 5
    await asyncio.gather(*running)
    await asyncio.sleep(0.05)
    assert await pool.run("a", lambda: 1) == 1


async def test_a_wait_that_is_too_long_or_given_up_frees_its_place() -> None:
    pool = ModelPool(1, 10, 10, 0.1)
    gate = threading.Event()
    first = asyncio.create_task(pool.run("a", gate.wait))
    await asyncio.sleep(0.02)
    with pytest.raises(Busy, match="waited too long"):
        await pool.run("b", lambda: 1)
    given_up = asyncio.create_task(pool.run("b", lambda: 1))
    await asyncio.sleep(0.02)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert pool.waiting == 0
    gate.set()
    await first
    assert await pool.run("b", lambda: 1) == 1


async def test_a_client_that_leaves_keeps_the_slot_until_its_work_has_ended() -> None:
    pool = ModelPool(1, 10, 10, 5)
    gate = threading.Event()
    left = asyncio.create_task(pool.run("a", gate.wait))
    await asyncio.sleep(0.05)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    waiting = asyncio.create_task(pool.run("b", lambda: 1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    gate.set()
    assert await waiting == 1


async def _read(response: object) -> AsyncIterator[bytes]:
    async for chunk in response.body_iterator:  # type: ignore[attr-defined]
        yield chunk


async def test_a_stream_beats_while_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    pool = ModelPool(1, 1, 1, 5)

    def work(emit: sse.Emitter) -> None:
        time.sleep(0.18)
        emit.send(sse.event("delta", {"text": "好\n"}, "1"))

    response = sse.stream(await pool.slot("a"), work)
    chunks = [chunk async for chunk in _read(response)]
    assert chunks[0] == b": ok\n\n"
    assert chunks.count(b": ping\n\n") >= 2
    assert chunks[-1] == 'id: 1\nevent: delta\ndata: {"text":"好\\n"}\n\n'.encode()
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    await asyncio.sleep(0.05)
    assert await pool.run("a", lambda: 1) == 1


async def test_work_stops_when_the_reader_goes() -> None:
    pool = ModelPool(1, 1, 1, 5)
    stopped = threading.Event()

    def work(emit: sse.Emitter) -> None:
        try:
            for _ in range(1000):
                emit.send(b"x")
                time.sleep(0.01)
        finally:
            stopped.set()

    response = sse.stream(await pool.slot("a"), work)
    iterator = response.body_iterator
    await anext(iterator)  # type: ignore[arg-type]
    await anext(iterator)  # type: ignore[arg-type]
    await iterator.aclose()  # type: ignore[union-attr]
    assert await asyncio.to_thread(stopped.wait, 2)
