"""One HTTP/1.1 connection to the upstream: one request at a time; httptools parses its reply as it comes."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import cast

import httptools

from gateway.deadlines import Deadlines
from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.serving.upstream.transport import Sink

HEAD_MOST = 256
"""The most header lines of a reply."""

FRAMING_MOST = 64 * 2**10
"""The most bytes of a reply that are not body, in a row: a head, the framing of chunks, trailers."""

AHEAD_MOST = 256 * 2**10
"""About the most bytes of a body that are kept before they are wanted; beyond that, reading pauses."""

STOPPED = "The upstream stopped sending."
NO_ANSWER = "The upstream closed the connection without an answer."

TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
UNACKED_AT = 24
"""The offset in ``TCP_INFO`` of the four bytes with the number of packets that the other side has not acknowledged."""


RESET_S = 0.05
"""How long a reset may follow after the end of a connection; the reset shows that the request on it was not read.

A server that shuts a connection down before it closes it sends the reset with the close.
"""


class NotRead(UpstreamUnavailable):
    """The other side gave up a connection before it had read all of the request on it."""


class WireReply:
    """One reply, filled by its connection. Bytes that came can still be read after the connection's end."""

    def __init__(self, connection: Connection, deadlines: Deadlines) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._connection: Connection | None = connection
        self._deadlines = deadlines
        self._ticks_left = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._sink: Sink | None = None
        self._idle_ticks = 0
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._is_over = False
        self._is_late = False
        deadlines.watch(self)

    def header(self, name: str) -> str | None:
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def head(self, patience_s: float) -> None:
        """Wait for the head."""
        while not self.status:
            await self._wait(patience_s, "The upstream did not answer in time.")

    async def chunk(self, patience_s: float) -> bytes | None:
        while not self._chunks:
            if self._is_over:
                return None
            await self._wait(patience_s, STOPPED)
        return self._take_unread()

    async def pour(self, sink: Sink, patience_s: float, idle_s: float) -> bool:
        self._idle_ticks = self._deadlines.within(idle_s)
        while True:
            if self._chunks:
                patience_s = idle_s
                if not sink(self._take_unread()):
                    return False
            elif self._is_over:
                return True
            else:
                self._sink = sink
                try:
                    await self._wait(patience_s, STOPPED)
                finally:
                    has_stopped, self._sink = self._sink is None, None
                if self._failure is not None:
                    raise self._failure
                if has_stopped:
                    return False

    def _take_unread(self) -> bytes:
        """Return the kept bytes, and let a paused connection go on."""
        chunks, self._chunks = self._chunks, []
        if self._size > AHEAD_MOST and self._connection is not None:
            self._connection.resume()
        self._size = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._deadlines.leave(self)
            connection.close()

    def tick(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._ticks_left -= 1
            if self._ticks_left == 0:
                self._is_late = True
                self._waiter.set_result(None)

    def take(self, data: bytes) -> None:
        """Take in bytes of the body."""
        if self._sink is not None:
            self._ticks_left = self._idle_ticks
            try:
                goes_on = self._sink(data)
            except Exception as error:  # noqa: BLE001 - the caller of ``pour`` gets it
                self._failure, goes_on = error, False
            if not goes_on:
                self._sink = None
                self._wake()
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > AHEAD_MOST and self._connection is not None:
            self._connection.pause()
        self._wake()

    def begin(self, status: int) -> None:
        self.status = status
        self._wake()

    def end(self, error: UpstreamError | None = None) -> None:
        """Note that nothing more comes; without an ``error`` the reply is complete."""
        self._connection, self._error, self._is_over = None, error, error is None
        self._deadlines.leave(self)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self, patience_s: float, message: str) -> None:
        """Wait until something has come, ``patience_s`` at most; raise the connection's error, if there is one."""
        if self._error is not None:
            raise self._error
        self._ticks_left = self._deadlines.within(patience_s)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._is_late:
            self.close()
            raise UpstreamTimeout(message)


class Connection(asyncio.Protocol):
    """A connection. ``freed`` is called when it can take another request, ``lost`` when it has ended."""

    def __init__(
        self, deadlines: Deadlines, freed: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self.idle_since = 0.0
        self._deadlines = deadlines
        self._freed = freed
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: WireReply | None = None
        self._lines: list[tuple[bytes, bytes]] = []
        self._is_head = True
        self._ends_with_connection = False
        self._is_paused = False
        self._is_unread = False
        self._framing = 0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def fileno(self) -> int:
        assert self._transport is not None
        return cast(int, self._transport.get_extra_info("socket").fileno())

    def send(self, request: bytes) -> WireReply:
        """Send a request and return its reply, of which nothing has come yet."""
        assert self._transport is not None
        reply = self._reply = WireReply(self, self._deadlines)
        self._framing = 0
        self._transport.write(request)
        return reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and self.is_open and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_open and self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.close()  # no request is open, so these bytes answer none
            return
        self._framing += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break("The upstream does not speak HTTP/1.1.")
        else:
            if self._framing > FRAMING_MOST:
                self._break("The upstream sent a head without an end.")

    def eof_received(self) -> bool:
        """Return whether the connection stays open for a moment, because a reset may follow."""
        assert self._transport is not None
        self._is_unread = self._reply is not None and _has_unread(self.fileno)
        has_begun = self._framing or self._reply is None or self._reply.status
        if has_begun or self._is_unread or self._transport.get_extra_info("sslcontext") is not None:
            return False
        asyncio.get_running_loop().call_later(RESET_S, self._end)
        return True

    def _end(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._is_unread = _has_unread(self.fileno)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._is_unread |= isinstance(error, ConnectionResetError | BrokenPipeError)
        if self._is_unread and self._reply is not None and not (self._framing or self._reply.status):
            self._finish(NotRead(NO_ANSWER))
        elif self._reply is not None and self._ends_with_connection and error is None:
            self._finish(None)
        else:
            self._break("The upstream broke off its answer." if self._reply and self._reply.status else NO_ANSWER)
        self._lost(self)

    # The parser's callbacks, in their order.

    def on_message_begin(self) -> None:
        if self._reply is None:
            self.close()  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head:
            self._lines.append((name, value))
            if len(self._lines) > HEAD_MOST:
                raise ValueError("too many header lines")

    def on_headers_complete(self) -> None:
        self._is_head = False
        status = self._parser.get_status_code()
        if self._reply is None or status < 200:
            return
        headers = self._reply.headers = {name.lower(): value for name, value in self._lines}
        self._lines = []
        self._ends_with_connection = (
            b"content-length" not in headers
            and b"chunked" not in headers.get(b"transfer-encoding", b"").lower()
            and status not in (204, 304)
        )
        self._reply.begin(status)

    def on_body(self, data: bytes) -> None:
        self._framing = 0
        if self._reply is not None:
            self._reply.take(data)

    def on_message_complete(self) -> None:
        self._is_head = True
        self._lines = []
        if self._reply is None or not self._reply.status:
            return  # "100 Continue" and its like come before the answer
        assert self._transport is not None
        can_be_kept = self._parser.should_keep_alive() and self._transport.get_write_buffer_size() == 0 and self.is_open
        self._finish(None)
        if can_be_kept:
            self.resume()
            self._freed(self)
        else:
            self.close()

    def _break(self, why: str) -> None:
        self._finish(UpstreamUnavailable(why))
        self.close()

    def _finish(self, error: UpstreamError | None) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.end(error)


def _has_unread(fileno: int) -> bool:
    """Return whether the other side, which has ended its half of a connection, has not read everything sent to it.

    It either closed the connection with unread bytes, which resets the connection, or before all of the bytes arrived.
    """
    connection = socket.socket(fileno=fileno)
    try:
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        if TCP_INFO is None:
            return False
        (unacked,) = struct.unpack_from(
            "=I", connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, UNACKED_AT + 4), UNACKED_AT
        )
        return bool(unacked)
    finally:
        connection.detach()
