"""Apps are served on inherited sockets; at the end running calls finish, up to a deadline."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.runtime import sockets
from gateway.runtime.http.server import serve
from gateway.runtime.sockets import files_allowed

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Slow:
    """An app whose answer waits until ``go`` is set, and which knows how its one call ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.was_cancelled = False
        self.is_shut_down = False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.is_shut_down = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@asynccontextmanager
async def one_call(app: Slow, shutdown_s: float) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[httpx.Response]]]:
    """Serve ``app`` and have one call running; yield what stops the server, and the call."""
    listener = sockets.listen("127.0.0.1", 0)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve([(app, listener)], stop.wait(), shutdown_s))
    async with httpx.AsyncClient(timeout=20) as client:
        call = asyncio.create_task(client.get(sockets.url_of(listener)))
        await app.began.wait()
        yield stop, call
        await serving


async def test_a_running_call_is_finished_before_the_end() -> None:
    """The caller gets the whole answer although the server was told to stop before it was ready."""
    app = Slow()

    async with one_call(app, shutdown_s=20) as (stop, call):
        stop.set()
        app.go.set()
        response = await call

    assert response.text == "done"
    assert app.is_shut_down
    assert not app.was_cancelled


async def test_a_call_that_takes_too_long_is_cancelled() -> None:
    """After the time for running calls the app is told, and is still shut down in order."""
    app = Slow()

    async with one_call(app, shutdown_s=1) as (stop, call):
        stop.set()
        response = await call

    assert response.status_code == 503
    assert app.was_cancelled
    assert app.is_shut_down


async def test_a_stopped_server_listens_no_more() -> None:
    """The socket is closed, so that another may have the port."""
    app = Slow()
    listener = sockets.listen("127.0.0.1", 0)
    url = sockets.url_of(listener)
    over = asyncio.Event()
    over.set()

    await serve([(app, listener)], over.wait(), shutdown_s=1)

    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_server_has_as_many_connections_as_the_system_allows() -> None:
    """Most systems let a process have 1,024 files open until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    over = asyncio.Event()
    over.set()
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_allowed() - 1, hard))
    try:
        await serve([(Slow(), sockets.listen("127.0.0.1", 0))], over.wait(), shutdown_s=1)
        found, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert found == files_allowed()
