"""Reads answers from a connection strictly by RFC 9112, so that a byte too many or too few is noticed."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from typing import Any

STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)")
READ = 65_536


class BrokenAnswer(Exception):
    """The received bytes are no HTTP answer."""


class ConnectionEnded(Exception):
    """The connection ended, between two answers or in the middle of one."""


@dataclass(frozen=True)
class Answer:
    """A status, headers by their lower-case names, and a body."""

    status: int
    headers: dict[str, str]
    body: bytes
    closes: bool

    @property
    def json(self) -> Any:
        """The body as JSON, or None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def code(self) -> str | None:
        """The code of a refusal, in either error format."""
        parsed = self.json
        error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
        return error.get("code") if isinstance(error, dict) else None


class Answers:
    """The answers of one connection in their order; bytes beyond the current answer stay in a buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.raw = bytearray()
        """All received bytes."""

    def next(self, *, is_to_head: bool = False) -> Answer:
        """Return the next answer.

        Raises:
            ConnectionEnded: the connection ended; TimeoutError: nothing arrives; BrokenAnswer: the bytes are no answer.
        """
        head, _, self._buffer = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        if (status := STATUS.fullmatch(line)) is None:
            raise BrokenAnswer(f"a status line is not {line[:200]!r}")
        headers: dict[str, str] = {}
        for field in fields:
            if (found := FIELD.fullmatch(field)) is None:
                raise BrokenAnswer(f"a header is not {field[:200]!r}")
            name = found[1].decode().lower()
            if name in headers and name in ("content-length", "transfer-encoding"):
                raise BrokenAnswer(f"{name} comes twice")
            headers[name] = found[2].decode("latin-1").strip()
        code = int(status[1])
        body = self._body(headers) if not (is_to_head or code < 200 or code in (204, 304)) else b""
        return Answer(code, headers, body, "close" in headers.get("connection", "").lower())

    def rest(self) -> bytes:
        """Return the bytes until the connection ends.

        Raises:
            TimeoutError: the connection does not end.
        """
        while True:
            try:
                self._more()
            except ConnectionEnded:
                rest, self._buffer = self._buffer, b""
                return rest

    def waiting(self) -> bytes:
        """Return the bytes that have already arrived, without waiting for more."""
        patience_s = self._connection.gettimeout()
        self._connection.setblocking(False)
        try:
            while True:
                self._more()
        except (BlockingIOError, ConnectionEnded):
            return self._buffer
        finally:
            self._connection.settimeout(patience_s)

    def _body(self, headers: dict[str, str]) -> bytes:
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
                raise BrokenAnswer(f"the length of a body is not said by {headers}")
            return self._chunks()
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        return self.rest()

    def _chunks(self) -> bytes:
        body = b""
        while True:
            size, _, self._buffer = self._until(b"\r\n").partition(b"\r\n")
            if re.fullmatch(rb"[0-9a-fA-F]{1,8}", size) is None:
                raise BrokenAnswer(f"a chunk's size is not {size[:100]!r}")
            body += self._exactly(int(size, 16))
            if self._exactly(2) != b"\r\n":
                raise BrokenAnswer("a chunk does not end where it says")
            if int(size, 16) == 0:
                return body

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        return self._buffer

    def _more(self) -> None:
        try:
            piece = self._connection.recv(READ)
        except (ConnectionResetError, BrokenPipeError):
            piece = b""
        if not piece:
            raise ConnectionEnded(f"after {self._buffer[:200]!r}" if self._buffer else "")
        self._buffer += piece
        self.raw += piece
