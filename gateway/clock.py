"""Time: what it is now, as everything here counts it, and how it is written and read on the outside."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: later ones cannot be written."""

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+ -]\d\d:\d\d))?")
_NO_MOMENT = "A time is RFC 3339, as in 2026-11-01T00:00:00Z, or whole milliseconds since 1970."


def written(ms: int) -> str:
    """Return a moment as RFC 3339 in UTC, to the millisecond."""
    return (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def understood(given: Any) -> int:
    """Return a moment in milliseconds since 1970; a date alone is its first instant in UTC.

    A ``+`` that a query string turned into a space is read as the ``+`` it was.

    Raises:
        ValueError: it is neither RFC 3339 nor whole milliseconds, or outside the years 1970 to 9999.
    """
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) <= len(str(LAST_MS)):
        ms = int(given)
    elif isinstance(given, str) and (match := _RFC_3339.fullmatch(given)):
        ms = _calendar(*match.groups())
    elif isinstance(given, int) and not isinstance(given, bool):
        ms = given
    else:
        raise ValueError(_NO_MOMENT)
    if not 0 <= ms <= LAST_MS:
        raise ValueError("A time lies in the years 1970 to 9999.")
    return ms


def _calendar(date: str, time: str | None, offset: str | None) -> int:
    text = date if time is None or offset is None else f"{date}T{time}{offset.upper().replace(' ', '+')}"
    try:
        moment = datetime.fromisoformat(text)
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise ValueError(_NO_MOMENT) from error


def now_ms() -> int:
    """Return the time of day, ms since 1970, UTC."""
    return time.time_ns() // 1_000_000
