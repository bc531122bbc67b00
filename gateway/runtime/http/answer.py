"""One request and its answer, as an ASGI app sees them: the bytes from the caller, and the bytes written to it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol
from weakref import ref

from gateway.errors import HouseError, ShuttingDown, TokencapError
from gateway.runtime.http.head import Fields
from gateway.runtime.http.limits import READ_MAX
from gateway.serving.caller.exchange import WRITE_NOW

log = logging.getLogger("tokencap.server")

NOT_A_NAME = re.compile(rb'[\x00-\x20\x7f-\xff()<>@,;:\\"/\[\]?={}]')
WITHOUT_BODY = frozenset({204, 304})
FORBIDDEN = bytes({*range(0x20), 0x7F} - {0x09})
"""Bytes that no header's value may contain: control characters except the tab."""

PHRASES = {one.value: one.phrase for one in HTTPStatus}
STATUS_LINE = {status: f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode() for status in range(100, 600)}
"""Includes statuses without a standard phrase, such as the 529 of Anthropic's overload."""

NAMES_MAX = 1_000

_names: dict[bytes, bytes] = {}
"""Maps valid names of headers, as apps write them, to the same names in lower case."""


class Wire(Protocol):
    """The connection that an answer goes to."""

    is_behind: bool
    """Whether more was written than the caller has taken."""

    def write(self, data: bytes) -> None: ...
    async def caught_up(self) -> None:
        """Wait until the caller has taken most of the written bytes, or is gone."""

    def resume_body(self) -> None:
        """Continue reading: the app waits for the body."""

    def may_stay(self) -> bool:
        """Return whether the connection can continue after an answer that begins now."""

    def default_headers(self) -> Fields: ...
    def answered(self) -> None:
        """Record that the answer is complete."""

    def break_off(self) -> None:
        """End the connection because the answer cannot be completed."""

    def refuse(self, error: TokencapError) -> None:
        """Answer with an error in place of the app, and end the connection."""


class Answer:
    """A request whose answer is being written.

    A head with a content length waits for the body, so that both leave in one write; any other head leaves at once,
    because a stream's first event may take long.
    """

    def __init__(self, wire: Wire, scope: dict[str, Any], *, keep_alive: bool, has_body: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.is_gone = False
        """Whether the caller is gone."""
        self.has_begun = False
        self.is_complete = False
        self._wire = wire
        self._news: asyncio.Event | None = None
        self._body = bytearray()
        self._more_body = has_body
        self._is_body_received = False
        self._head = b""
        self._is_chunked = False
        self._has_no_body = False
        self._length: int | None = None
        self._when_gone: Callable[[], None] | None = None
        weak_self = ref(self)
        scope["extensions"] = {
            WRITE_NOW: {"write": partial(_write_now, weak_self), "when_gone": partial(_when_gone, weak_self)}
        }

    @property
    def is_written(self) -> bool:
        """Whether the caller may have received some of the answer."""
        return self.has_begun and not self._head

    async def run(self, app: Any) -> None:
        """Run the app; whatever happens in it, the caller gets an answer, or its connection ends."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail(ShuttingDown())
        except Exception:
            log.exception("The app failed.")
            self._fail(HouseError("Something went wrong on our side."))
        else:
            if not (self.is_complete or self.is_gone):
                log.error("The app ended before its answer did.")
                self._fail(HouseError("Something went wrong on our side."))

    def add_body(self, data: bytes, *, is_last: bool) -> bool:
        """Take bytes of the request's body; return whether more may be added before the app has taken these."""
        if is_last:
            self._more_body = False
        if self.is_complete:
            return True
        self._body += data
        if self._news is not None:
            self._news.set()
        return len(self._body) < READ_MAX

    def leave(self) -> None:
        """Notify the app that its caller is gone."""
        self.is_gone = True
        if self._news is not None:
            self._news.set()
        if self._when_gone is not None:
            self._when_gone()

    def notify_when_closed(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` once the caller is gone, or at once if it already is; None calls nothing."""
        self._when_gone = callback
        if callback is not None and self.is_gone:
            callback()

    async def receive(self) -> dict[str, Any]:
        while not (self.is_gone or self.is_complete):
            if self._body or not (self._more_body or self._is_body_received):
                self._is_body_received = not self._more_body
                body, self._body = bytes(self._body), bytearray()
                return {"type": "http.request", "body": body, "more_body": self._more_body}
            if self._news is None:
                self._news = asyncio.Event()
            if self._more_body:
                self._wire.resume_body()
            await self._news.wait()
            self._news.clear()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._wire.is_behind and not self.is_gone:
            await self._wire.caught_up()
        if self.is_gone:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.has_begun and not self.is_complete:
            self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
        elif kind == "http.response.start" and not self.has_begun:
            self._begin(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"An answer has no place for {kind} now.")

    def write_now(self, body: bytes) -> bool:
        """Send bytes of a body that continues, without waiting; return whether the caller keeps up."""
        if self.has_begun and not self.is_gone:
            self._go_on(body, is_last=False)
        return not (self._wire.is_behind or self.is_gone)

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._has_no_body = status in WITHOUT_BODY or self.scope["method"] == "HEAD"
        parts, values = [STATUS_LINE[status]], []
        closes = False
        for written_name, value in (*self._wire.default_headers(), *headers):
            name = _names.get(written_name) or _as_name(written_name)
            if name == b"content-length":
                self._length = int(value)
            elif name == b"connection":
                closes = b"close" in [token.strip() for token in value.lower().split(b",")]
            elif name == b"transfer-encoding":
                raise RuntimeError("The server alone decides the transfer encoding of an answer.")
            parts += (name, b": ", value, b"\r\n")
            values.append(value)
        joined = b"".join(values)
        if len(joined.translate(None, FORBIDDEN)) != len(joined):
            raise RuntimeError("Invalid HTTP header value.")
        if self._length is None and not self._has_no_body:
            if self.scope["http_version"] == "1.1":
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False
        if closes:
            self.keep_alive = False
        elif not (self.keep_alive and self._wire.may_stay()):
            self.keep_alive = False
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self.has_begun = True
        head = b"".join(parts)
        if self._length is None and not self._has_no_body:
            self._wire.write(head)
        else:
            self._head = head

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if self._is_chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                framed += b"0\r\n\r\n"
        elif self._has_no_body:
            framed = b""
        else:
            framed = body
            if self._length is not None:
                self._length -= len(body)
                if self._length < 0 or (is_last and self._length):
                    raise RuntimeError("An answer is as long as its Content-Length says.")
        if self._head:
            framed, self._head = self._head + framed, b""
        if framed:
            self._wire.write(framed)
        if is_last:
            self.is_complete = True
            if self._news is not None:
                self._news.set()
            self._wire.answered()

    def _fail(self, error: TokencapError) -> None:
        if self.is_gone or self.is_complete:
            return
        if self.is_written:
            self._wire.break_off()
        else:
            self._wire.refuse(error)


def _write_now(answer: ref[Answer], body: bytes) -> bool:
    """Write to an answer by a weak reference: its scope holds this function, so a strong reference would be a cycle."""
    live_answer = answer()
    return live_answer is not None and live_answer.write_now(body)


def _when_gone(answer: ref[Answer], callback: Callable[[], None] | None) -> None:
    live_answer = answer()
    if live_answer is not None:
        live_answer.notify_when_closed(callback)


def _as_name(written_name: bytes) -> bytes:
    if not written_name or NOT_A_NAME.search(written_name):
        raise RuntimeError("Invalid HTTP header name.")
    name = written_name.lower()
    if len(_names) < NAMES_MAX:
        _names[written_name] = name
    return name


def refusal(error: TokencapError, *, with_body: bool) -> bytes:
    """Return the server's own answer to a request that reaches no app; the connection ends after this answer."""
    body = json.dumps(error.body(), separators=(",", ":")).encode()
    headers = {**error.headers, "content-type": "application/json", "content-length": len(body), "connection": "close"}
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())
    return STATUS_LINE[error.status] + lines + b"\r\n" + (body if with_body else b"")
