"""Events of a stream that differ from one before them in their text only: recognised by their bytes, not parsed."""

from __future__ import annotations

import re

from gateway.serving.jsons import loads

_BEGINS = re.compile(rb'"content": ?"')
_TEXT = re.compile(rb'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])+')
"""The inside of a JSON string that says nothing but text: no escape that could be half of a character."""


class Alike:
    """What comes before and after the text in such an event, and in the bytes that its caller was sent for it."""

    __slots__ = ("_after", "_before", "_shown_after", "_shown_before", "index")

    def __init__(self, data: tuple[bytes, bytes], shown: tuple[bytes, bytes], index: int) -> None:
        self._before, self._after = data
        self._shown_before, self._shown_after = shown
        self.index = index

    def text(self, data: bytes) -> tuple[str, bytes] | None:
        """Return the text of an event, and the bytes for its caller, or None where it differs in more than that."""
        before, after = self._before, self._after
        if not (data.startswith(before) and data.endswith(after)):
            return None
        found = _TEXT.fullmatch(data, len(before), len(data) - len(after))
        if found is None:
            return None
        text = found.group()
        try:
            said = loads(b'"%b"' % text) if b"\\" in text else text.decode()
        except ValueError:
            return None
        return said, b"%b%b%b" % (self._shown_before, text, self._shown_after)


def alike(data: bytes, shown: bytes, index: int) -> Alike | None:
    """Return how to recognise the like of an event of one choice, of which the caller was sent ``shown``."""
    parts, shown_parts = _around_text(data), _around_text(shown)
    if parts is None or shown_parts is None:
        return None
    return Alike(parts, shown_parts, index)


def _around_text(data: bytes) -> tuple[bytes, bytes] | None:
    found = _BEGINS.search(data)
    if found is None or _BEGINS.search(data, found.end()):
        return None
    text = _TEXT.match(data, found.end())
    if text is None or data[text.end() : text.end() + 1] != b'"':
        return None
    return data[: found.end()], data[text.end() :]
