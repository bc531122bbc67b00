"""Uvicorn's HTTP/1.1 with less to do for a call, and an end that loses no request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import unquote
from weakref import ref

from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.serving.exchange import WRITE_NOW

WITHOUT_BODY = frozenset({204, 304})
FORBIDDEN = bytes({*range(0x20), 0x7F} - {0x09})
"""What no header's value may have: control characters but the tab."""

NAMES_MOST = 1_000

PARTING_S = 1
"""How long a kept connection is left open once the server stops: a request may be on its way."""

_names: dict[bytes, bytes] = {}
"""Names of headers that were found to be names, and how they are written."""


class OneWrite(HttpToolsProtocol):
    """What uvicorn does, but for how an answer is sent and how it ends; WebSockets are not served."""

    parting_s = PARTING_S

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        raw_path, _, query = self.url.partition(b"#")[0].partition(b"?")
        if not raw_path.startswith(b"/"):
            super().on_headers_complete()  # a URL with a host, or "*"
            return
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        before = self.cycle
        self.cycle = _Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {WRITE_NOW: {"write": partial(_write_now, ref(self.cycle))}}
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def shutdown(self) -> None:
        """Part from a caller, whom the server tells so with the next answer: hang up where no request comes soon.

        Who is hung up on in the moment it sends a request never hears of it, and may not send it again by itself.
        """
        self.timeout_keep_alive = self.parting_s
        if self.cycle is None or self.cycle.response_complete:
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(self.parting_s, self.timeout_keep_alive_handler)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False


class _Cycle(RequestResponseCycle):
    """One request and its answer.

    A head that tells the length of what follows waits for it, so that both leave in one write; any other leaves at once,
    for it may be long until a stream's first event.
    """

    _head = b""

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind, is_usual = message["type"], self.scope["method"] != "HEAD"
        if kind == "http.response.body" and is_usual and self.response_started and not self.response_complete:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        elif (
            kind == "http.response.start"
            and is_usual
            and not self.response_started
            and message["status"] not in WITHOUT_BODY
        ):
            self._begin(message["status"], message.get("headers", ()))
        else:
            await super().send(message)

    def write_now(self, body: bytes) -> bool:
        """Send bytes of the body, more of which will come, without waiting; return whether the caller keeps up."""
        if self.response_started and not self.disconnected:
            self._go_on(body, is_last=False)
        return not (self.flow.write_paused or self.disconnected)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        parts, values = [STATUS_LINE[status]], []
        closes = False
        for given, value in (*self.default_headers, *headers):
            name = _names.get(given) or _as_name(given)
            if name == b"content-length":
                self.chunked_encoding, self.expected_content_length = False, int(value)
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
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None:
            self.chunked_encoding = True
            parts.append(b"transfer-encoding: chunked\r\n")
        parts.append(b"\r\n")
        head = b"".join(parts)
        if self.chunked_encoding:
            self.transport.write(head)
        else:
            self._head = head

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if self.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                framed += b"0\r\n\r\n"
            if framed:
                self.transport.write(framed)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (is_last and self.expected_content_length):
                raise RuntimeError("An answer is as long as its Content-Length says.")
            head, self._head = self._head, b""
            if head or body:
                self.transport.write(head + body)
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _write_now(cycle: ref[_Cycle], body: bytes) -> bool:
    """Write to a request that its scope must not keep: it keeps its scope, and a circle is garbage to be collected."""
    it = cycle()
    return it is not None and it.write_now(body)


def _as_name(given: bytes) -> bytes:
    if HEADER_RE.search(given):
        raise RuntimeError("Invalid HTTP header name.")
    name = given.lower()
    if len(_names) < NAMES_MOST:
        _names[given] = name
    return name
