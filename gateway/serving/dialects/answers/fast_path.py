"""Recognises events of a stream that differ from an earlier event only in their text, by bytes, without parsing."""

from __future__ import annotations

import re

import orjson

_BEGINS = re.compile(rb'"content": ?"')
_TEXT = re.compile(rb'(?!\Z)[^"\\\x00-\x1f]*(?:\\["\\/bfnrt][^"\\\x00-\x1f]*)*')
"""The inside of a JSON string of plain text, without escapes that could be half of a character."""


class FastPath:
    """The bytes around the text in events of one kind, and in the events that the caller is sent for them."""

    __slots__ = ("_after", "_before", "_shown_after", "_shown_before", "_sizes", "index")

    def __init__(self, data: tuple[bytes, bytes], shown: tuple[bytes, bytes], index: int) -> None:
        self._before, self._after = data
        self._shown_before, self._shown_after = shown
        self._sizes = len(self._before), len(self._after)
        self.index = index

    def run(self, events: list[bytes], start: int, most: int) -> tuple[int, str, bytes]:
        """Take at most ``most`` events from ``start`` on that differ only in their text.

        Returns:
            The number of events, their joined text, and the bytes for the caller.
        """
        before, after = self._before, self._after
        first, last = self._sizes
        texts: list[bytes] = []
        for data in events[start : start + most]:
            if not (data.startswith(before) and data.endswith(after)):
                break
            text = data[first:-last]
            if not _TEXT.fullmatch(text):
                break
            texts.append(text)
        if not texts:
            return 0, "", b""
        between = self._shown_after + self._shown_before
        shown = b"%b%b%b" % (self._shown_before, between.join(texts), self._shown_after)
        joined = b"".join(texts)
        try:
            return len(texts), orjson.loads(b'"%b"' % joined) if b"\\" in joined else joined.decode(), shown
        except ValueError:
            return 0, "", b""


def fast_path_of(data: bytes, shown: bytes, index: int) -> FastPath | None:
    """Return the fast path for events of choice ``index`` like ``data``, for which the caller was sent ``shown``.

    None where either has no single plain text.
    """
    parts, shown_parts = _around_text(data), _around_text(shown)
    if parts is None or shown_parts is None:
        return None
    return FastPath(parts, shown_parts, index)


def _around_text(data: bytes) -> tuple[bytes, bytes] | None:
    match = _BEGINS.search(data)
    if match is None or _BEGINS.search(data, begin := match.end()):
        return None
    text = _TEXT.match(data, begin)
    if text is None or data[(end := text.end()) : end + 1] != b'"':
        return None
    return data[:begin], data[end:]
