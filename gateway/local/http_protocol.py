"""Uvicorn's HTTP/1.1 with less to do for an answer: a head is written together with the first bytes that follow it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

WITHOUT_BODY = frozenset({204, 304})
FORBIDDEN = bytes({*range(0x20), 0x7F} - {0x09})
"""What no header's value may have: control characters but the tab."""

NAMES_MOST = 1_000

_names: dict[bytes, bytes] = {}
"""Names of headers that were found to be names, and how they are written."""


class OneWrite(HttpToolsProtocol):
    """What uvicorn does, but for how an answer is sent."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        sending = _Sending(cycle)
        cycle.send = sending.send  # type: ignore[method-assign]  # of this one request
        super()._start_asgi_task(cycle, app)


class _Sending:
    """Sends the answer to one request.

    A head that tells the length of what follows waits for it, so that both leave in one write; any other leaves at once,
    for it may be long until a stream's first event.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._as_uvicorn = type(cycle).send
        self._head = b""

    async def send(self, message: Any) -> None:
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        kind, is_usual = message["type"], cycle.scope["method"] != "HEAD"
        if kind == "http.response.body" and is_usual and cycle.response_started and not cycle.response_complete:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        elif (
            kind == "http.response.start"
            and is_usual
            and not cycle.response_started
            and message["status"] not in WITHOUT_BODY
        ):
            self._begin(message["status"], message.get("headers", ()))
        else:
            await self._as_uvicorn(cycle, message)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        parts, values = [STATUS_LINE[status]], []
        closes = False
        for given, value in (*cycle.default_headers, *headers):
            name = _names.get(given) or _as_name(given)
            if name == b"content-length":
                cycle.chunked_encoding, cycle.expected_content_length = False, int(value)
            elif name == b"connection":
                closes = b"close" in [token.strip() for token in value.lower().split(b",")]
            elif name == b"transfer-encoding":
                raise RuntimeError("How an answer is transferred is the server's to say.")
            parts += (name, b": ", value, b"\r\n")
            values.append(value)
        told = b"".join(values)
        if len(told.translate(None, FORBIDDEN)) != len(told):
            raise RuntimeError("Invalid HTTP header value.")
        if closes:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        if cycle.chunked_encoding is None:
            cycle.chunked_encoding = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        if cycle.chunked_encoding:
            cycle.transport.write(head)
        else:
            self._head = head

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        cycle = self._cycle
        if cycle.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                framed += b"0\r\n\r\n"
            if framed:
                cycle.transport.write(framed)
        else:
            cycle.expected_content_length -= len(body)
            if cycle.expected_content_length < 0 or (is_last and cycle.expected_content_length):
                raise RuntimeError("An answer is as long as its Content-Length says.")
            if self._head or body:
                cycle.transport.write(self._head + body)
                self._head = b""
        if is_last:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()


def _as_name(given: bytes) -> bytes:
    if HEADER_RE.search(given):
        raise RuntimeError("Invalid HTTP header name.")
    name = given.lower()
    if len(_names) < NAMES_MOST:
        _names[given] = name
    return name
