"""Adds records of the book to the running sums of periods and conversations, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.periods import PeriodKind, period_at
from gateway.ledger.read.open_conversations import DAY_MS, HOUR_MS
from gateway.ledger.read.queries import HALF, IS_INCLUDED, IS_SILENT, OF_CALLS, begun_in_silence, sums_of
from gateway.ledger.rows import batches, execute_many
from gateway.ledger.tables import customers, rollup_conversations, rollup_windows, usage_records
from pricing.money import MOST

AT_ONCE = 400
"""The keys in one statement; SQLite before 3.32 takes 999 parameters."""

AMOUNTS = ("tokens_high", "tokens_low", "charge_high", "charge_low", "included")
"""The sums of a window; sums that may pass 2^63 are stored as two halves of their digits."""

Period = tuple[int, int]
"""Start and end, ms."""

Place = tuple[str, int, int]
"""A period of a customer: its id, start and end, ms."""

Record = Mapping[str, Any]

book = usage_records.c
windows = rollup_windows.c

ALL_OF_A_PERIOD = select(
    *sums_of(book), *(func.sum(case((said, 1), else_=0)) for said in (IS_INCLUDED, IS_SILENT))
).where(
    book.customer == bindparam("of"),
    book.time >= bindparam("since"),
    book.time < bindparam("until"),
    book.kind.in_(OF_CALLS),
    book.seq <= bindparam("upto"),
)
ZONES_AND_WINDOWS = select(
    customers.c.id, customers.c.period, customers.c.timezone, windows.start, windows.end
).outerjoin(rollup_windows, windows.customer == customers.c.id)
MORE = (
    update(rollup_windows)
    .where(windows.customer == bindparam("of"), windows.start == bindparam("since"), windows.end == bindparam("until"))
    .values({name: windows[name] + bindparam(f"more_{name}") for name in AMOUNTS})
)


def add_to_windows(connection: Connection, records: Sequence[Record], upto: int) -> None:
    """Add each record to the period that it falls in by its customer's present zone and kind of period.

    ``upto`` is the number of the last record: a period without a sum is added up from the book up to that record.
    """
    zones: dict[str, tuple[PeriodKind, str]] = {}
    known: set[Place] = set()
    for ids in batches({record["customer"] for record in records}, AT_ONCE):
        for row in connection.execute(ZONES_AND_WINDOWS.where(customers.c.id.in_(ids))):
            zones[row.id] = row.period, row.timezone
            known.add((row.id, row.start, row.end))
    added: dict[Place, list[int]] = {}
    silent: set[Place] = set()
    latest: dict[str, Place] = {}
    for record in records:
        customer, time = record["customer"], record["time"]
        if record["kind"] not in OF_CALLS or customer not in zones:
            continue
        place = latest.get(customer)
        if place is None or not place[1] <= time < place[2]:
            place = latest[customer] = (customer, *period_at(*zones[customer], time))
        sums = added.get(place)
        if sums is None:
            sums = added[place] = [0, 0, 0]
        sums[0] += record["billed_output_tokens"]
        sums[1] += record["charge_nanousd"]
        sums[2] += bool(record["conversation_is_included"])
        if record["conversation_cap_tokens"] is None and record["conversation"] and record["billed_output_tokens"] > 0:
            silent.add(place)  # only the whole book shows whether this record's conversation was included
    anew = (added.keys() - known) | silent
    _add(connection, {place: sums for place, sums in added.items() if place not in anew})
    for place in sorted(anew):
        _add_anew(connection, place, upto)


def add_to_conversations(connection: Connection, records: Iterable[Record]) -> None:
    """Add each record to its conversation, in the order in which the records were booked."""
    rows = [
        {
            "customer": record["customer"],
            "name": record["conversation"],
            "tier": record["tier"],
            "menu_version": record["menu_version"],
            "tokens": record["billed_output_tokens"],
            "input_tokens": record["input_tokens"],
            "was_charged": record["billed_output_tokens"] > 0,
            "first": record["time"],
            "last": max(record["time"], record["settled"]),
            "cap": record["conversation_cap_tokens"],
            "ended_first": None,
            "ended_last": None,
        }
        for record in records
        if record["conversation"] is not None
    ]
    if rows:
        execute_many(connection, CONTINUED[connection.dialect.name], rows)


def added_up(connection: Connection, place: Place, upto: int) -> dict[str, Any]:
    """Return the row of a period, added up from its records."""
    customer, start, end = place
    parameters = {"of": customer, "since": start, "until": end, "upto": upto}
    *sums, included, silent = (int(amount or 0) for amount in connection.execute(ALL_OF_A_PERIOD, parameters).one())
    if silent:
        included += begun_in_silence(connection, customer, start, end, upto)
    return {"customer": customer, "start": start, "end": end, **dict(zip(AMOUNTS, (*sums, included), strict=True))}


def _add(connection: Connection, added: Mapping[Place, Sequence[int]]) -> None:
    rows = []
    for (customer, start, end), (tokens, charge, included) in sorted(added.items()):
        amounts = (*divmod(tokens, HALF), *divmod(charge, HALF), included)
        increments = {f"more_{name}": amount for name, amount in zip(AMOUNTS, amounts, strict=True)}
        rows.append({"of": customer, "since": start, "until": end, **increments})
    if rows:
        execute_many(connection, MORE, rows)


def _add_anew(connection: Connection, place: Place, upto: int) -> None:
    """Add up a period from the book; remove the sums of earlier periods, except the period directly before.

    Periods of an earlier zone that overlap this period are removed, too: nothing is added to them any more, and their
    sums would lack records if the customer returned to that zone.
    """
    customer, start, end = place
    overlaps = (windows.start < end) & (windows.end > start)
    connection.execute(delete(rollup_windows).where(windows.customer == customer, overlaps | (windows.end < start)))
    connection.execute(insert(rollup_windows), [added_up(connection, place, upto)])


def _continued(dialect: Any) -> Any:
    """Return the statement that adds a call to the conversation with its name: it begins, continues or restarts it.

    A call is booked when it is settled, so it may have been admitted before the conversation's first call. It then
    belongs to the previous conversation with that name if that was open, or else becomes the first call of the present
    conversation.
    """
    statement = dialect.insert(rollup_conversations)
    had, call = rollup_conversations.c, statement.excluded
    hour, day, most = (literal_column(str(number), BigInteger) for number in (HOUR_MS, DAY_MS, MOST))

    def is_open(first: Any, last: Any) -> Any:
        return and_(call.first - first < day, call.first - last < hour)

    is_later = call.first >= had.first
    is_anew = and_(is_later, not_(is_open(had.first, had.last)))
    is_of_the_one_before = and_(not_(is_later), had.ended_first.is_not(None), is_open(had.ended_first, had.ended_last))
    tokens, input_tokens = had.tokens + call.tokens, had.input_tokens + call.input_tokens
    joined = {
        "tier": case((is_later, had.tier), else_=call.tier),
        "menu_version": case((is_later, had.menu_version), else_=call.menu_version),
        "tokens": case((tokens > most, most), else_=tokens),
        "input_tokens": case((input_tokens > most, most), else_=input_tokens),
        "was_charged": or_(had.was_charged, call.was_charged),
        "first": case((is_later, had.first), else_=call.first),
        "last": case((call.last > had.last, call.last), else_=had.last),
        "cap": func.coalesce(call.cap, had.cap),
    }
    changes = {
        name: case((is_anew, call[name]), (is_of_the_one_before, had[name]), else_=value)
        for name, value in joined.items()
    }
    changes["ended_first"] = case((is_anew, had.first), else_=had.ended_first)
    changes["ended_last"] = case((is_anew, had.last), else_=had.ended_last)
    return statement.on_conflict_do_update(index_elements=["customer", "name"], set_=changes)


CONTINUED = {"sqlite": _continued(sqlite), "postgresql": _continued(postgresql)}
