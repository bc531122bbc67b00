"""Reads server-sent events from bytes cut at any place, and writes events."""

from __future__ import annotations

import re

EVENT_MOST = 16 * 2**20
"""The most bytes of an unfinished event that are kept."""

END_MOST = 4
"""The most bytes of an event's end."""

LOOKED_AT_AGAIN = 4096
"""The most bytes of an unfinished event that are searched again as a whole: most events come in one piece or two."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_NAMED_ERROR = re.compile(rb"event: ?error[ \t]*")

DONE = b"data: [DONE]\n\n"


COMMENT_MOST = 1024
"""The most bytes of a comment; a longer comment is skipped."""


class EventTooLong(ValueError):
    """An event has no end within EVENT_MOST bytes."""


class NamedError(bytes):
    """The data of an event named ``error``, which is an error whatever its data contains."""


class Events:
    """Cuts a stream of bytes into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun: list[bytes] = []  # the parts of an unfinished event before ``_rest``
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that ends in ``chunk``, and its comments with their colon; skip other fields."""
        text = self._rest + chunk if self._rest else chunk
        if b"\r" in text:
            parts = _END.split(text)
        elif not self._begun and text.startswith(b"data: ") and text.endswith(b"\n\n"):
            payloads = text[6:-2].split(b"\n\ndata: ")
            if text.count(b"\n") == 2 * len(payloads):  # whole events, each of one line
                self._rest = b""
                return payloads
            parts = text.split(b"\n\n")
        else:
            parts = text.split(b"\n\n")
        rest = parts.pop()
        if parts and self._begun:
            parts[0], self._begun, self._size = b"".join([*self._begun, parts[0]]), [], 0
        self._keep(rest)
        if any(part.startswith(b":") for part in parts):
            return [piece for part in parts for piece in _comments_and_data(part)]
        return [data for part in parts if (data := _data(part)) is not None]

    def _keep(self, rest: bytes) -> None:
        """Keep an unfinished event; only a long event's last bytes, where its end may begin, are searched again."""
        if len(rest) > LOOKED_AT_AGAIN:
            self._begun.append(rest[:-END_MOST])
            self._size += len(rest) - END_MOST
            rest = rest[-END_MOST:]
        self._rest = rest
        if self._size > EVENT_MOST:
            raise EventTooLong

    def close(self) -> list[bytes]:
        """Return the comments and the data of an unfinished event, which the stream's end completes."""
        rest, self._rest, self._begun = b"".join([*self._begun, self._rest]), b"", []
        return _comments_and_data(rest)


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    if b"error" in event and (error := _error(event, lines)) is not None:
        return error
    return b"\n".join(lines) if lines else None


def _error(event: bytes, data: list[bytes]) -> NamedError | None:
    """Return the data of an event named ``error``, or the field ``error`` of llama.cpp's builds of 2024."""
    lines = _LINE.split(event)
    if any(map(_NAMED_ERROR.fullmatch, lines)):
        return NamedError(b"\n".join(data))
    error_lines = [line[6:] for line in lines if line.startswith(b"error:")]
    return NamedError(b"\n".join(error_lines)) if error_lines else None


def _comments_and_data(part: bytes) -> list[bytes]:
    """Return the comments at an event's beginning, and its data."""
    lines = _LINE.split(part) if part.startswith(b":") else ()
    comments = [line for line in lines if line.startswith(b":") and len(line) <= COMMENT_MOST]
    data = _data(part)
    return comments if data is None else [*comments, data]


def is_comment(piece: bytes) -> bool:
    """Return whether a piece is a comment. It suffices to look for a colon: no dialect's data begins with a colon."""
    return piece.startswith(b":")


def comment(text: bytes) -> bytes:
    """Return a comment of one line, which readers ignore but which shows that the stream is alive."""
    return b": " + text + b"\n\n"


def event(data: bytes) -> bytes:
    """Return one event with ``data`` of one line."""
    return b"data: " + data + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """Return one event with a name, and ``data`` of one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
