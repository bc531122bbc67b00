"""Keeps connections to the upstream; each serves one call at a time."""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.deadlines import Deadlines
from gateway.errors import UpstreamTimeout, UpstreamUnavailable
from gateway.serving.upstream.endpoint import Endpoint
from gateway.serving.upstream.http11 import Connection, NotRead, WireReply
from gateway.serving.upstream.transport import OF_ALL, Sent, ignore_sent

CONNECT_S = 5.0
IDLE_MOST = 1024
IDLE_S = 4.0
"""How long an idle connection is kept: less than the five seconds after which many servers close it themselves."""

LOOKED_AT_S = 0.02
"""A connection that has been idle for this long is polled before it is used; the event loop may not have polled it."""


class Pool:
    """Speaks HTTP/1.1. The concurrency limit decides how many calls run; here a call waits only for a connection.

    Args:
        endpoint: ``http`` or ``https``.
        tls: the context that verifies an ``https`` endpoint's certificate.
    """

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext, deadlines: Deadlines) -> None:
        parts = urlsplit(endpoint.url)
        is_tls = parts.scheme == "https"
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if is_tls else 80)
        self._tls = tls if is_tls else None
        self._prefix = parts.path.rstrip("/").encode()
        self._query = f"?{parts.query}".encode() if parts.query else b""
        self._own = endpoint.headers
        lines = {"host": parts.netloc.rpartition("@")[2], "accept": "*/*", **OF_ALL, **endpoint.headers}
        self._lines = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")
        self._deadlines = deadlines
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()

    async def post(
        self,
        path: str,
        body: bytes,
        request_id: str,
        more: Mapping[str, str],
        patience_s: float,
        sent: Sent = ignore_sent,
    ) -> WireReply:
        lines = [f"{name}: {value}\r\n" for name, value in more.items() if name not in self._own] if more else ()
        request = b"POST %b%b%b HTTP/1.1\r\n%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            *(self._prefix, path.encode(), self._query),
            *(self._lines, "".join(lines).encode("latin-1"), request_id.encode(), len(body), body),
        )
        idle = self._idle_connection(asyncio.get_running_loop().time())
        if idle is not None:
            try:
                return await self._answered(idle, request, patience_s, sent)
            except NotRead:
                pass  # the other side had given the connection up without reading the request, so it is not working on it
        return await self._answered(await self._connect(min(patience_s, CONNECT_S)), request, patience_s, sent)

    @staticmethod
    async def _answered(connection: Connection, request: bytes, patience_s: float, sent: Sent) -> WireReply:
        """Send a request and return its reply once the head has come."""
        sent()
        reply = connection.send(request)
        try:
            await reply.head(patience_s)
        except BaseException:
            reply.close()
            raise
        return reply

    async def aclose(self) -> None:
        for connection in list(self._open):
            connection.close()
        await asyncio.sleep(0)  # their ends are reported in the next turn

    def _idle_connection(self, now: float) -> Connection | None:
        """Return the most recently used idle connection that is still open on both sides, or None."""
        while self._idle:
            connection = self._idle.pop()
            idle_s = now - connection.idle_since
            if connection.is_open and idle_s < IDLE_S and (idle_s < LOOKED_AT_S or not _has_news(connection.fileno)):
                return connection
            connection.close()
        return None

    async def _connect(self, patience_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(self._deadlines, self._free, self._lose)
        try:
            async with asyncio.timeout(None) as limit:
                countdown = _Countdown(self._deadlines.within(patience_s), limit)
                self._deadlines.watch(countdown)
                try:
                    await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
                finally:
                    self._deadlines.leave(countdown)
        except TimeoutError as error:
            raise UpstreamTimeout("The upstream did not answer in time.") from error
        except OSError as error:
            raise UpstreamUnavailable("The upstream cannot be reached.") from error
        except BaseException:
            connection.close()
            raise
        if not connection.is_open:
            raise UpstreamUnavailable("The upstream cannot be reached.")
        self._open.add(connection)
        return connection

    def _free(self, connection: Connection) -> None:
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while len(self._idle) > IDLE_MOST or now - self._idle[0].idle_since > IDLE_S:
            self._idle.popleft().close()

    def _lose(self, connection: Connection) -> None:
        self._open.discard(connection)


class _Countdown:
    """Ends a timeout after a number of ticks."""

    def __init__(self, ticks: int, limit: asyncio.Timeout) -> None:
        self._ticks_left = ticks
        self._limit = limit

    def tick(self) -> None:
        self._ticks_left -= 1
        if self._ticks_left == 0:
            self._limit.reschedule(asyncio.get_running_loop().time())


def _has_news(fileno: int) -> bool:
    """Return whether unread bytes, or the end of the connection, have come from the other side."""
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))
