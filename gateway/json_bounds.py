"""Bounds on the contents and the depth of a JSON text, counted in its bytes before the text is parsed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

DEPTH_MOST = 200
"""The most lists and objects inside one another."""

PARTS_MOST = 100_000
"""The most names, objects and lists: each becomes a Python object, and nothing else runs while the parser makes them."""

VALUES_MOST = 300_000
"""The most values in lists and objects: the number of tokens in the largest request for embeddings."""

FREE = 64 * 2**10
"""A text of up to this many bytes is within all bounds except that on depth."""

SLICE = 64 * 2**10
"""The bytes that are counted without a break, which takes a few milliseconds at most."""

_OTHERS = bytes({*range(256)} - {*b"[]{}"})
_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))


class OutOfBounds(ValueError):
    """A JSON text contains too much, or is nested too deeply."""


def check(text: bytes, parts_most: int = PARTS_MOST, values_most: int = VALUES_MOST) -> None:
    """Raise OutOfBounds if a text contains too much or is nested too deeply."""
    if len(text) <= DEPTH_MOST:
        return
    if len(text) > FREE or text.count(b"[") + text.count(b"{") > DEPTH_MOST:
        for _ in survey(text, parts_most, values_most):
            pass


def survey(text: bytes, parts_most: int = PARTS_MOST, values_most: int = VALUES_MOST) -> Iterator[None]:
    """Count a text slice by slice; the caller may do other work between two slices.

    The count is right for JSON. For any other text it is right up to the place where a parser stops.

    Raises:
        OutOfBounds: the text contains too much or is nested too deeply.
    """
    census = Census()
    for start in range(0, len(text), SLICE):
        census.take(text[start : start + SLICE])
        if census.parts > parts_most:
            raise OutOfBounds(f"it has more than {parts_most:,} names, objects and lists")
        if census.values > values_most:
            raise OutOfBounds(f"it has more than {values_most:,} values")
        if census.deepest > DEPTH_MOST:
            raise OutOfBounds(f"it is nested more than {DEPTH_MOST} deep")
        yield


class Census:
    """The counts so far, and the state in which the last slice ended."""

    def __init__(self) -> None:
        self.parts = 0
        self.values = 0
        self.deepest = 0
        """The largest depth in the last slice in which a list or an object was opened or closed."""
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def take(self, piece: bytes) -> None:
        if self._is_escaped:
            piece, self._is_escaped = piece[1:], False
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
            self._is_escaped = piece.endswith(b"\\")
        if b'"' in piece:
            pieces = piece.split(b'"')
            outside = b"".join(pieces[1::2] if self._in_string else pieces[::2])
            self._in_string ^= len(pieces) % 2 == 0
        elif self._in_string:
            return
        else:
            outside = piece
        opened = outside.count(b"[") + outside.count(b"{")
        self.parts += outside.count(b":") + opened
        self.values += outside.count(b",") + opened
        steps = memoryview(outside.translate(_STEPS, _OTHERS)).cast("b")
        if len(steps):
            depths = list(accumulate(steps, initial=self._depth))
            self.deepest, self._depth = max(depths), depths[-1]
