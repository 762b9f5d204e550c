"""Server-sent events: blocking work in a thread, its events on the wire, with a heartbeat.

The thread owns the work from start to end, storing included. When the client goes away, the
stream is cancelled and `Emitter.cancelled` turns true; the work sees that at its next event.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse

from api.limits import Slot

HEARTBEAT_S = 15.0
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx would hold the events back
}
_END = None


def event(name: str, data: Any, ident: str = "") -> bytes:
    """One named event with JSON data. JSON escapes line breaks, so one ``data:`` line is enough."""
    head = f"id: {ident}\n" if ident else ""
    return f"{head}event: {name}\ndata: {dumps(data)}\n\n".encode()


def data_only(data: Any) -> bytes:
    """An unnamed event, as OpenAI streams them."""
    return f"data: {data if isinstance(data, str) else dumps(data)}\n\n".encode()


def dumps(data: Any) -> str:
    """Compact JSON with Chinese as it is."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Emitter:
    """What the working thread sends through. Raises `Gone` once nobody listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[bytes | None]) -> None:
        self._loop = loop
        self._queue = queue
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Says that the client has gone."""
        self._cancelled.set()

    def send(self, chunk: bytes) -> None:
        """Hands bytes to the client."""
        if self.cancelled:
            raise Gone
        self._put(chunk)

    def end(self) -> None:
        """Ends the stream."""
        self._put(_END)

    def _put(self, item: bytes | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the server is shutting down and its loop is closed
            self._cancelled.set()


class Gone(Exception):
    """The client has closed the connection."""


def response(body: AsyncIterator[bytes]) -> StreamingResponse:
    """A stream of events that proxies do not hold back."""
    return StreamingResponse(body, headers=HEADERS, media_type="text/event-stream; charset=utf-8")


def stream(slot: Slot, work: Callable[[Emitter], None]) -> StreamingResponse:
    """Runs ``work`` in ``slot``'s thread and streams what it emits; the slot is freed when the work ends."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    emitter = Emitter(loop, queue)

    def run() -> None:
        try:
            work(emitter)
        except Gone:
            pass
        finally:
            emitter.end()

    slot.submit(run)

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b": ok\n\n"  # something at once, so that proxies pass the headers on
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        chunk = await queue.get()
                except TimeoutError:
                    yield b": ping\n\n"
                    continue
                if chunk is _END:
                    return
                yield chunk
        finally:
            emitter.cancel()

    return response(body())
