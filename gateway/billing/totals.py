"""Sums over the records that count in a span, by a field or by day: whole numbers that add up in every grouping."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from gateway.holds.periods import period_at
from gateway.ledger.billing.closings import Zones
from gateway.ledger.billing.counted import Counted, Month, counted_in
from gateway.ledger.billing.dropped_months import GROUPED, Conversations, Group, totals_kept
from gateway.ledger.database import Database
from gateway.ledger.read.open_conversations import DAY_MS, HOUR_MS
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import usage_records

SWEEP_EVERY = 50_000


class Begun:
    """Open conversations by customer and name. A name reused after its conversation has ended is a new conversation."""

    def __init__(self, going: Conversations | None = None) -> None:
        self.going: Conversations = {} if going is None else going
        """First call, last sign of life, and 1 once there was an output token."""
        self._seen = 0

    def is_begun_by(self, customer: str, conversation: str, time: int, settled: int, tokens: int) -> bool:
        """Return whether a call has the first output token of its conversation; calls come in the order (time, id)."""
        self._seen += 1
        if self._seen % SWEEP_EVERY == 0:
            self._project(time)
        going = self.going.get((customer, conversation))
        if going is None or time - going[0] >= DAY_MS or time - going[1] >= HOUR_MS:
            going = self.going[customer, conversation] = [time, time, 0]
        going[1] = max(going[1], time, settled)
        if tokens <= 0 or going[2]:
            return False
        going[2] = 1
        return True

    def _project(self, now: int) -> None:
        ended = [
            name for name, (first, last, _) in self.going.items() if now - first >= DAY_MS or now - last >= HOUR_MS
        ]
        for name in ended:
            del self.going[name]


FIELD_OF: Mapping[str, str | None] = MappingProxyType(
    {
        "customer": "customer",
        "tier": "tier",
        "key": "key_id",
        "end_user": "end_user",
        "day": None,
        "kind": "kind",
        "menu_version": "menu_version",
    }
)
"""The names that totals may be grouped by, each with its field of the record; a day is derived from the time."""

SUMMED = (
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "billed_output_tokens"),
    "charge_nanousd",
)
COUNTED = ("calls", "conversations", *SUMMED)
"""The sums of each group, in this order."""

book = usage_records.c

BEFORE = (book.time, book.id, book.customer, book.kind, book.conversation, book.settled, book.billed_output_tokens)
FIRST = len(BEFORE)


def totals_by(database: Database, by: str, span: Span, month: Month | None = None) -> list[dict[str, Any]]:
    """Return the sums of the records that count in a span, grouped by ``by``, in the order of the names, null last.

    A conversation counts where its first output token does, a call where it was admitted. Corrections, fees and credits
    add to the sums but count as no call. Memory grows with the groups and the conversations that are open at once.
    """
    field = FIELD_OF[by]
    grouping = [] if field is None else [book[field]]
    columns = (*BEFORE, *(book[name] for name in SUMMED), *grouping)
    dropped = totals_kept(database, span, None if month is None else month.month)
    rows = counted_in(database, columns, span, month, before_ms=DAY_MS, gone=dropped.until)
    name_of = _field(FIRST + len(SUMMED)) if field is not None else days_of(database, span, month)
    groups = added_up(rows, name_of, dropped.conversations)
    for customer, group, amounts in dropped.sums:
        name = customer if by == "customer" else group[GROUPED.index(field or "day")]
        sums = groups.setdefault(name, [0] * len(COUNTED))
        groups[name] = [total + amount for total, amount in zip(sums, amounts, strict=True)]
    ordered = sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or ""))
    return [{by: name, **dict(zip(COUNTED, sums, strict=True))} for name, sums in ordered]


def sums_to_keep(database: Database, month: Month, customer: str) -> tuple[dict[Group, list[int]], Conversations]:
    """Return a closed month's sums by all fields of totals together, and the conversations open at its end."""
    fields = GROUPED[1:]
    columns = (*BEFORE, *(book[name] for name in SUMMED), *(book[name] for name in fields))
    span, start = Span(customer), FIRST + len(SUMMED)
    dropped = totals_kept(database, span, month.month)
    rows = counted_in(database, columns, span, month, before_ms=DAY_MS, gone=dropped.until)
    day_of = days_of(database, span, month)
    groups = added_up(
        rows, lambda counted: (day_of(counted), *counted.row[start : start + len(fields)]), dropped.conversations
    )
    end = month.bounds(customer)[1]
    begun = Begun(totals_kept(database, span, month.month).conversations)
    last_day = counted_in(database, BEFORE, Span(customer, end, end), before_ms=DAY_MS, gone=dropped.until)
    for _ in _with_conversations(last_day, begun):
        pass
    return groups, {name: going for name, going in begun.going.items() if is_open(going, end)}


Name = TypeVar("Name", bound=Hashable)


def added_up(
    rows: Iterator[Counted], name_of: Callable[[Counted], Name], open_before: Conversations
) -> dict[Name, list[int]]:
    """Return the sums of rows, grouped by the name that ``name_of`` returns for each row."""
    groups: dict[Name, list[int]] = {}
    for counted, is_begun in _with_conversations(rows, Begun(open_before)):
        row, name = counted.row, name_of(counted)
        sums = groups.get(name)
        if sums is None:
            sums = groups[name] = [0] * len(COUNTED)
        sums[0] += row[3] == "usage"
        sums[1] += is_begun
        for place, amount in enumerate(row[FIRST : FIRST + len(SUMMED)], start=2):
            sums[place] += amount
    return groups


def is_open(going: list[int], at: int) -> bool:
    """Return whether a conversation is open at a moment: within a day of its first call and an hour of its last."""
    return at - going[0] < DAY_MS and at - going[1] < HOUR_MS


def _with_conversations(rows: Iterator[Counted], begun: Begun) -> Iterator[tuple[Counted, bool]]:
    """Yield the rows that count, and whether each begins a conversation. Earlier rows only show which are open."""
    for counted in rows:
        _, _, customer, kind, conversation, settled, tokens = counted.row[:FIRST]
        is_call = conversation is not None and not counted.is_late and kind in ("usage", "correction")
        is_begun = is_call and begun.is_begun_by(customer, conversation, counted.at, settled, tokens)
        if not counted.is_before:
            yield counted, is_begun


def _field(place: int) -> Callable[[Counted], str | None]:
    def name(counted: Counted) -> str | None:
        value: str | None = counted.row[place]
        return value

    return name


def days_of(database: Database, span: Span, month: Month | None) -> Callable[[Counted], str | None]:
    """Return a function that returns the day on which a record counts, in its customer's zone."""
    since = (span.since or 0) if month is None else month.since
    zones = Zones(database, since, span.customer)
    known: dict[str, tuple[int, int, str]] = {}

    def day(counted: Counted) -> str:
        zone = zones.at(counted.row[2], counted.at)
        start, end, name = known.get(zone, (0, 0, ""))
        if not start <= counted.at < end:
            start, end = period_at("day", zone, counted.at)
            name = datetime.fromtimestamp(start / 1000, ZoneInfo(zone)).date().isoformat()
            known[zone] = start, end, name
        return name

    return day
