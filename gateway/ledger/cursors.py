"""Cursors of lists: a row's position in its order, in an opaque form."""

from __future__ import annotations

import base64
import re
from typing import Any

import orjson

CURSOR_MOST = 1000
PART_MOST = 256
INTEGER_MOST = 2**53

_WRITTEN = re.compile(r"[A-Za-z0-9_-]+")


class NoCursor(ValueError):
    """The text is not a cursor of this gateway."""


def cursor_of(*position: str | int) -> str:
    """Return the cursor that stands for a row's position in its order."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def position_of(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """Return the position that a cursor stands for; ``kinds`` are the types of its parts.

    Raises:
        NoCursor: the text is not a cursor of this gateway.
    """
    if len(cursor) > CURSOR_MOST or not _WRITTEN.fullmatch(cursor):
        raise NoCursor
    try:
        position = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError as error:
        raise NoCursor from error
    if (
        not isinstance(position, list)
        or [type(part) for part in position] != list(kinds)
        or not all(map(_is_part, position))
    ):
        raise NoCursor
    return tuple(position)


def _is_part(part: Any) -> bool:
    if isinstance(part, int):
        return 0 <= part <= INTEGER_MOST
    return 0 < len(part) <= PART_MOST and part.isprintable()
