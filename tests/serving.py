"""ASGI apps on real ports, each in a thread of its own, for as long as a test wants them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway.runtime.http.connections import Door
from gateway.runtime.http.server import uvicorn_server
from gateway.serving.caller.exchange import Receive, Scope, Send
from tests.waiting import until


async def outlived(scope: Scope, receive: Receive, send: Send) -> bool:
    """Answer a server's start and stop to their end; return whether that was what an app was called for."""
    if scope["type"] != "lifespan":
        return False
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})
    return True


def call_id(scope: Scope) -> str:
    """Return the id of the call that an upstream is asked, as its record has it."""
    return "req_" + dict(scope["headers"])[b"x-request-id"].decode()


async def body_of(receive: Receive) -> bytes:
    """Return the whole body of a request."""
    raw, more = b"", True
    while more:
        message = await receive()
        raw, more = raw + message.get("body", b""), message.get("more_body", False)
    return raw


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve ``app`` on a free port of 127.0.0.1 and yield its address.

    Idle connections are kept as the gateway keeps them. Uvicorn's own five seconds are httpx's, too: of the calls that
    come after just that long some meet a connection that is being closed.
    """
    server = uvicorn_server(app, 5, Door())
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
