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
    """Answer the lifespan messages of a server until it stops; return whether this was a lifespan call."""
    if scope["type"] != "lifespan":
        return False
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
    await send({"type": "lifespan.shutdown.complete"})
    return True


def call_id(scope: Scope) -> str:
    """Return the id of the call that an upstream received, as the usage record of the call has it."""
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

    Idle connections are kept open as the gateway keeps them. Uvicorn's default of five seconds is httpx's default, too:
    some calls that are made after exactly that time meet a connection that is being closed.
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
