"""A gateway without any metering: the same server and the same upstream client, and nothing between."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import Any

import uvloop

from gateway.deadlines import Deadlines
from gateway.runtime.http.server import serve
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.pool import Pool

PATIENCE_S = 60.0


class Floor:
    """A plain ASGI app that passes a body on and the answer back."""

    def __init__(self, upstream_port: int) -> None:
        self._pool = Pool(Endpoint(f"http://127.0.0.1:{upstream_port}"), ssl.create_default_context(), Deadlines())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        parts, has_more = [], True
        while has_more:
            message = await receive()
            parts.append(message["body"])
            has_more = message["more_body"]
        reply = await self._pool.post(scope["path"], b"".join(parts), "0", {}, PATIENCE_S)
        relayed = ("content-type", "content-length")
        headers = [(name.encode(), value.encode()) for name in relayed if (value := reply.header(name)) is not None]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        while (chunk := await reply.chunk(PATIENCE_S)) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _main(port: int, upstream_port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        await serve([(Floor(upstream_port), listener)], asyncio.Event().wait(), 1.0)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
