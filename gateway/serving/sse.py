"""Server-sent events: found in bytes that come cut anywhere, and written."""

from __future__ import annotations

import re

EVENT_MOST = 16 * 2**20
"""Bytes of one event that are kept while its end has not come."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")

DONE = b"data: [DONE]\n\n"


class EventTooLong(ValueError):
    """An event has no end within EVENT_MOST bytes."""


class Events:
    """Cuts a stream of bytes into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that ends in ``chunk``; comments and other fields are passed over."""
        text = self._rest + chunk if self._rest else chunk
        is_usual = b"\r" not in text
        parts = text.split(b"\n\n") if is_usual else _END.split(text)
        self._rest = parts.pop()
        if len(self._rest) > EVENT_MOST:
            raise EventTooLong
        found = []
        for part in parts:
            is_one_line = is_usual and part.startswith(b"data: ") and b"\n" not in part
            data = part[6:] if is_one_line else _data(part)
            if data is not None:
                found.append(data)
        return found

    def close(self) -> list[bytes]:
        """Return the data of an event that the end of the stream ended."""
        rest, self._rest = self._rest, b""
        data = _data(rest)
        return [] if data is None else [data]


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def event(data: bytes) -> bytes:
    """Return one event with ``data`` of one line."""
    return b"data: " + data + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """Return one event with a name, and ``data`` of one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
