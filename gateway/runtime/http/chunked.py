"""Decodes a chunked body, and drops extensions and trailers."""

from __future__ import annotations

import re

from gateway.errors import NotHttp
from gateway.runtime.http.head import is_field
from gateway.runtime.http.limits import BYTES_A_CHUNK, CHUNK_LINE_MAX, CHUNKS_FREE, TRAILER_BYTES_MAX, TRAILERS_MAX

SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
SIZE_BEGINS = re.compile(rb"(?:[0-9A-Fa-f]{1,8}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?)?\r?")


class Chunks:
    """Decodes a chunked body as it arrives; the result does not depend on how its bytes are cut."""

    def __init__(self) -> None:
        self._line_beginning = b""
        """The beginning of a line."""
        self._bytes_left = 0
        """The chunk's remaining bytes."""
        self._is_after_data = False
        self._is_in_trailers = False
        self._bytes = 0
        self._chunks = 0
        self._trailers = 0
        self._trailer_bytes = 0

    def take(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the bytes that ``data`` adds to the body, and the bytes after the body (None before the body's end).

        Raises:
            NotHttp: the bytes are not chunks, there are too many chunks for so few bytes, or too many trailers.
        """
        if self._line_beginning:
            data, self._line_beginning = self._line_beginning + data, b""
        parts: list[bytes] = []
        position = 0
        while True:
            if self._bytes_left:
                part = data[position : position + self._bytes_left]
                position += len(part)
                self._bytes_left -= len(part)
                parts.append(part)
                if self._bytes_left:
                    return b"".join(parts), None
                self._is_after_data = True
            if self._is_after_data:
                end = data[position : position + 2]
                if end != b"\r\n":
                    if end not in (b"", b"\r"):
                        raise NotHttp("A chunk is as long as it says, and ends with CR LF.")
                    self._line_beginning = end
                    return b"".join(parts), None
                position += 2
                self._is_after_data = False
            line_max = TRAILER_BYTES_MAX if self._is_in_trailers else CHUNK_LINE_MAX
            line_end = data.find(b"\r\n", position, position + line_max + 2)
            if line_end < 0:
                self._keep(data[position:], line_max)
                return b"".join(parts), None
            line, position = data[position:line_end], line_end + 2
            if not self._is_in_trailers:
                self._begin_chunk(line)
            elif line:
                self._drop_trailer(line)
            else:
                return b"".join(parts), data[position:]

    def _begin_chunk(self, line: bytes) -> None:
        match = SIZE.fullmatch(line)
        if match is None:
            raise NotHttp("A chunk begins with its length in hexadecimal digits, at most eight.")
        self._bytes_left = int(match[1], 16)
        self._is_in_trailers = self._bytes_left == 0
        self._bytes += self._bytes_left
        self._chunks += 1
        if self._chunks > CHUNKS_FREE + self._bytes // BYTES_A_CHUNK:
            raise NotHttp("The body comes in too many chunks; make them larger.")

    def _drop_trailer(self, line: bytes) -> None:
        self._trailers += 1
        self._trailer_bytes += len(line) + 2
        if not is_field(line):
            raise NotHttp("What follows the last chunk is trailers.")
        if self._trailers > TRAILERS_MAX or self._trailer_bytes > TRAILER_BYTES_MAX:
            raise NotHttp(f"A body has at most {TRAILERS_MAX} trailers, of {TRAILER_BYTES_MAX} bytes together.")

    def _keep(self, beginning: bytes, line_max: int) -> None:
        """Keep the beginning of a line, if it can still become a line."""
        if len(beginning) > line_max + 1:
            raise NotHttp("A line between the chunks of a body is too long.")
        if b"\n" in beginning or not (self._is_in_trailers or SIZE_BEGINS.fullmatch(beginning)):
            raise NotHttp("A chunk begins with its length, in a line that ends with CR LF.")
        self._line_beginning = beginning
