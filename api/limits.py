"""Bounds: how much model work runs and waits, and how large a body may be."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Busy, TooLarge, TooManyRequests
from api.problems import response_for

P = ParamSpec("P")
R = TypeVar("R")


class ModelPool:
    """A fixed number of threads for model work, with a bounded queue in front.

    The event loop never computes: it waits for a `Slot` and hands the work to the slot's thread.
    """

    def __init__(self, workers: int, queue: int, per_client: int, timeout_s: float) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="model")
        self._free = asyncio.Semaphore(workers)
        self._queue = queue
        self._per_client = per_client
        self._timeout_s = timeout_s
        self._clients: Counter[str] = Counter()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._waiting

    async def slot(self, client: str) -> Slot:
        """A slot for ``client``; whoever gets it must `submit` to it or `release` it.

        Raises:
            TooManyRequests: the client has its share under way.
            Busy: the queue is full, or the wait took too long.
        """
        if self._clients[client] >= self._per_client:
            raise TooManyRequests("You have too many requests under way. Wait for one to finish.", 1)
        if self._free.locked() and self._waiting >= self._queue:
            raise Busy("The server is busy. Try again in a few seconds.", 2)
        self._clients[client] += 1
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError:
            self._forget(client)
            raise Busy("The server is busy and this request waited too long. Try again later.", 5) from None
        except BaseException:
            self._forget(client)
            raise
        finally:
            self._waiting -= 1
        return Slot(self, client)

    async def run(self, client: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``function`` in a slot's thread. Raises what `slot` raises and what the function raises."""
        slot = await self.slot(client)
        return await asyncio.wrap_future(slot.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Lets running work finish and drops what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, client: str) -> None:
        self._clients[client] -= 1
        if self._clients[client] <= 0:
            del self._clients[client]

    def _release(self, client: str) -> None:
        self._forget(client)
        self._free.release()


class Slot:
    """The right to use one model thread, given back when its work ends (not when its client goes)."""

    def __init__(self, pool: ModelPool, client: str) -> None:
        self._pool = pool
        self._client = client
        self._loop = asyncio.get_running_loop()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Starts the work; the slot is given back when it ends, however it ends."""
        try:
            future = self._pool._threads.submit(function, *args, **kwargs)
        except RuntimeError:
            self.release()
            raise Busy("The server is shutting down.", 5) from None
        future.add_done_callback(self._done)
        return future

    def release(self) -> None:
        """Gives an unused slot back."""
        self._pool._release(self._client)

    def _done(self, _: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            self._loop.call_soon_threadsafe(self.release)


class BodyLimit:
    """ASGI middleware: refuses bodies over the limit, by their announced or their real length."""

    def __init__(self, app: ASGIApp, json_bytes: int, upload_bytes: int) -> None:
        self.app = app
        self.json_bytes = json_bytes
        self.upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        upload = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        limit = self.upload_bytes if upload else self.json_bytes
        error = TooLarge(f"The body is larger than {limit // 1024} KB, the most that this server accepts.")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            await response_for(scope, error)(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _OverLimit
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _OverLimit:
            if not started:
                await response_for(scope, error)(scope, receive, send)


class _OverLimit(BaseException):
    """Passes through handlers that catch `Exception` (FastAPI would call it a bad body)."""
