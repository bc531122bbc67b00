"""Requests that cost a gateway more than their sender: the bytes of a stranger on one connection until it closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

BODY = 16 * 2**20
PIECE = 64 * 2**10
CHAT = "POST /v1/chat/completions HTTP/1.1"
NO_KEY = "authorization: Bearer tc-00-" + "x" * 43

Sends = Callable[["Stranger"], AsyncIterator[bytes]]


@dataclass
class Stranger:
    """The sender on one connection: its key, if any, and how long it waits between slow bytes."""

    key: str | None = None
    slow_s: float = 1.0

    @property
    def authorization(self) -> str:
        return NO_KEY if self.key is None else f"authorization: Bearer {self.key}"


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode()


async def _head_without_end(_stranger: Stranger) -> AsyncIterator[bytes]:
    yield b"GET /livez HTTP/1.1\r\nhost: x\r\nx: "
    for _ in range(BODY // PIECE):
        yield b"x" * PIECE


async def _url_without_end(_stranger: Stranger) -> AsyncIterator[bytes]:
    yield b"GET /"
    for _ in range(BODY // PIECE):
        yield b"x" * PIECE


async def _many_headers(_stranger: Stranger) -> AsyncIterator[bytes]:
    yield b"GET /livez HTTP/1.1\r\nhost: x\r\n"
    for _ in range(BODY // PIECE):
        yield b"x: y\r\n" * (PIECE // 6)


async def _half_a_head(_: Stranger) -> AsyncIterator[bytes]:
    yield b"GET /livez HTTP/1.1\r\nhost: "


async def _slow_head(stranger: Stranger) -> AsyncIterator[bytes]:
    for byte in b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 100:
        yield bytes([byte])
        await asyncio.sleep(stranger.slow_s)


async def _half_a_body(stranger: Stranger) -> AsyncIterator[bytes]:
    yield head(CHAT, "host: x", stranger.authorization, f"content-length: {BODY}") + b'{"model": "'


async def _slow_body(stranger: Stranger) -> AsyncIterator[bytes]:
    yield head(CHAT, "host: x", stranger.authorization, f"content-length: {BODY}")
    while True:
        yield b"x"
        await asyncio.sleep(stranger.slow_s)


async def _chunks_of_a_byte(stranger: Stranger) -> AsyncIterator[bytes]:
    yield head(CHAT, "host: x", stranger.authorization, "transfer-encoding: chunked")
    for _ in range(BODY // PIECE):
        yield b"1\r\nx\r\n" * (PIECE // 6)


async def _pipelined(_: Stranger) -> AsyncIterator[bytes]:
    yield head("GET /v1/account HTTP/1.1", "host: x", NO_KEY) * 500
    yield head("GET /v1/account HTTP/1.1", "host: x", NO_KEY, "connection: close")


def _body(start: bytes, piece: bytes) -> Sends:
    """Return the sender of a body of the largest allowed size: a start, then a repeated piece."""

    async def send(stranger: Stranger) -> AsyncIterator[bytes]:
        yield head(CHAT, "host: x", stranger.authorization, f"content-length: {BODY}") + start
        remaining, repeated = BODY - len(start), piece * (PIECE // len(piece))
        while remaining > 0:
            yield repeated[:remaining]
            remaining -= len(repeated)

    return send


BODIES: dict[str, Sends] = {
    "a wide object": _body(b"{", b'"k":0,'),
    "objects": _body(b'{"a":[', b"{},"),
    "a deep list": _body(b'{"a":', b"["),
    "digits": _body(b'{"a":[', b"9" * 4000 + b","),
    "escapes": _body(b'{"a":"', b"\\u00e9"),
    "half pairs": _body(b'{"a":["', b'\\ud800","'),
}
"""Bodies that are expensive to parse."""

HEADS: dict[str, Sends] = {
    "a head without an end": _head_without_end,
    "a URL without an end": _url_without_end,
    "many headers": _many_headers,
    "chunks of a byte": _chunks_of_a_byte,
    "pipelined requests": _pipelined,
}
"""Requests that are refused, or answered, once enough of their bytes have arrived."""

HALVES: dict[str, Sends] = {
    "half a head": _half_a_head,
    "half a body": _half_a_body,
    "a slow head": _slow_head,
    "a slow body": _slow_body,
}
"""Requests that only a deadline ends."""

EVERYTHING = {**BODIES, **HEADS, **HALVES}


async def attack(port: int, send: Sends, stranger: Stranger) -> bytes:
    """Send until everything is sent or the connection is closed, and return the first bytes of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
    answer = asyncio.create_task(_heard(reader))
    try:
        async for piece in send(stranger):
            writer.write(piece)
            await writer.drain()
            if answer.done():
                break
    except ConnectionError:
        pass
    try:
        return await answer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _heard(reader: asyncio.StreamReader) -> bytes:
    """Wait for the end of the connection, and return the first bytes that arrived."""
    first = b""
    with suppress(ConnectionError):
        while piece := await reader.read(PIECE):
            first = first or piece
    return first
