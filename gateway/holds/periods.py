"""Calendar periods in a customer's own time zone: half-open, in milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

PeriodKind = Literal["day", "week", "month"]


def period_at(kind: PeriodKind, zone: str, now_ms: int) -> tuple[int, int]:
    """Return the start and end of the period that ``now_ms`` falls in.

    A period starts at the first instant of its first local day: where midnight does not exist (or comes twice), the
    first instant that the zone's clocks show on that day. Weeks start on Monday.
    """
    day = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(zone)).date().toordinal()
    start, end = _bounds(kind, zone, day)
    return start, end


def next_start(kind: PeriodKind, zone: str, now_ms: int) -> int:
    """Return the start of the period that follows the period of ``now_ms``."""
    return period_at(kind, zone, now_ms)[1]


@lru_cache(maxsize=4096)
def _bounds(kind: PeriodKind, zone: str, ordinal: int) -> tuple[int, int]:
    today = datetime.fromordinal(ordinal).date()
    if kind == "day":
        first, after = today, today + timedelta(days=1)
    elif kind == "week":
        first = today - timedelta(days=today.weekday())
        after = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return tuple(_instant(datetime.combine(day, time.min), ZoneInfo(zone)) for day in (first, after))  # type: ignore[return-value]


def _instant(local: datetime, zone: ZoneInfo) -> int:
    """Return the first instant at which clocks in ``zone`` show ``local`` or later."""
    aware = local.replace(tzinfo=zone, fold=0)
    utc = aware.astimezone(UTC)
    if utc.astimezone(zone).replace(tzinfo=None) != local:  # skipped by a jump forward: the jump is the first instant
        before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
        utc = _jump(before, utc, zone)
    return int(utc.timestamp()) * 1000


def _jump(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant between ``low`` and ``high`` at which the zone's offset changes, to the second."""
    offset = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high
