"""The time of day as this gateway counts it, and how times are written and read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: later times cannot be written."""

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)([Zz]|[+ -]\d\d:\d\d))?")
_NO_MOMENT = "A time is RFC 3339, as in 2026-11-01T00:00:00Z, or whole milliseconds since 1970."


def written(ms: int) -> str:
    """Return a time as RFC 3339 in UTC, to the millisecond."""
    return (EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def understood(value: Any) -> int:
    """Return a time in milliseconds since 1970. A date without a time is its first millisecond in UTC.

    A ``+`` that a query string turned into a space is read as ``+``.

    Raises:
        ValueError: the value is neither RFC 3339 nor whole milliseconds, or is outside the years 1970 to 9999.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= len(str(LAST_MS)):
        ms = int(value)
    elif isinstance(value, str) and (match := _RFC_3339.fullmatch(value)):
        ms = _calendar(*match.groups())
    elif isinstance(value, int) and not isinstance(value, bool):
        ms = value
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


APART_MS = 5_000
"""The largest difference of two clocks that agree, and the largest step of a clock that is not a jump."""

_APART_NS = APART_MS * 1_000_000

SETTLED_S = 600
"""How long a clock that has jumped must run evenly before it is followed."""

_uptime_ns = partial(time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""The time since the machine's start, which cannot be set; it includes sleep where the system counts sleep."""


class SteadyClock:
    """The time of day, ms since 1970, UTC, which does not jump when the machine's clock does.

    It equals the machine's clock for as long as that clock runs evenly. If the machine's clock is set by more than
    ``APART_MS`` at once, this clock runs on as before, by the time since the machine's start. It follows the machine's
    clock after that clock has run evenly for ten minutes.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, uptime_ns: Callable[[], int] = _uptime_ns) -> None:
        self._wall_ns = wall_ns
        self._uptime_ns = uptime_ns
        self._ahead_ns = wall_ns() - uptime_ns()
        """By how much the time of day is ahead of the time since the machine's start."""
        self._jump: tuple[int, int] | None = None
        """By how many ns the machine's clock is ahead of the uptime since it jumped, and the uptime at the jump."""

    def now_ms(self) -> int:
        wall, uptime = self._wall_ns(), self._uptime_ns()
        ahead = wall - uptime
        if -_APART_NS <= ahead - self._ahead_ns <= _APART_NS:
            self._ahead_ns, self._jump = ahead, None
            return wall // 1_000_000
        return self._after_jump(ahead, uptime)

    def _after_jump(self, ahead: int, uptime: int) -> int:
        if self._jump is None or abs(ahead - self._jump[0]) > _APART_NS:
            self._jump = ahead, uptime
        elif uptime - self._jump[1] >= SETTLED_S * 10**9:
            self._ahead_ns, self._jump = ahead, None
        return (uptime + self._ahead_ns) // 1_000_000


now_ms = SteadyClock().now_ms
"""The time of day for every part of this process."""


def now_s() -> float:
    """Return the machine's time of day in seconds since 1970, UTC, jumps included, to compare it with other machines'."""
    return time.time()
