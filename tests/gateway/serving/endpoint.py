"""An upstream whose behaviour on each connection a test writes, down to the byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Talk = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The far end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def request(self) -> tuple[bytes, bytes]:
        """Return the head and the body of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return head, await self.reader.readexactly(size)

    async def say(self, *parts: bytes) -> None:
        """Send the parts separately."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0.01 if len(parts) > 1 else 0)

    def reset(self) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Far:
    """An endpoint whose behaviour the test writes, and the count of its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.url = ""


@asynccontextmanager
async def endpoint(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Far]:
    far = Far()
    talking: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far.connections += 1
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            await talk(Peer(reader, writer, far.connections))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            talking.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=2**25)
    scheme = "http" if tls is None else "https"
    far.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield far
    finally:
        server.close()
        for task in list(talking):
            task.cancel()


def says(*parts: bytes, closes: bool = False) -> Talk:
    """Return a ``Talk`` that answers every request on a connection with the same bytes."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(*parts)
            if closes:
                return

    return talk
