"""The clients of the upstream, and ways to read an answer, for the tests that both clients must pass."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.deadlines import Deadlines
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.httpx_transport import Proxied
from gateway.serving.upstream.pool import Pool
from gateway.serving.upstream.transport import Reply, Transport
from tests.gateway.serving.endpoint import Far

Make = Callable[[str], Transport]

BODY = b'{"model":"aligned-1"}'
HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
PATIENCE_S = 20.0
SHORT_S = 0.3


def pool(url: str) -> Transport:
    return Pool(Endpoint.of(url, "secret"), ssl.create_default_context(), Deadlines(0.05))


def httpx(url: str) -> Transport:
    return Proxied(Endpoint.of(url, "secret"), None)


@asynccontextmanager
async def client(make: Make, far: Far) -> AsyncIterator[Transport]:
    transport = make(far.url)
    try:
        yield transport
    finally:
        await transport.aclose()


async def post(transport: Transport, body: bytes = BODY, patience_s: float = PATIENCE_S) -> Reply:
    return await transport.post("/chat/completions", body, "req_1", {"x-own": "yes"}, patience_s)


async def all_of(reply: Reply) -> bytes:
    parts = []
    while (chunk := await reply.chunk(PATIENCE_S)) is not None:
        parts.append(chunk)
    await reply.aclose()
    return b"".join(parts)


async def poured(reply: Reply) -> bytes:
    """Return a whole answer that is poured into a sink, which refuses more for a moment after every third piece."""
    parts: list[bytes] = []

    def take(piece: bytes) -> bool:
        parts.append(piece)
        return len(parts) % 3 > 0

    while not await reply.pour(take, PATIENCE_S, PATIENCE_S):
        await asyncio.sleep(0)
    await reply.aclose()
    return b"".join(parts)


Read = Callable[[Reply], Awaitable[bytes]]
