"""Compares the running sums with their records, a few customers in each transaction that sees one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from gateway.clock import written
from gateway.holds.periods import period_at
from gateway.ledger.book.chain import MAIN
from gateway.ledger.book.dropped import dropped_until
from gateway.ledger.database import Database
from gateway.ledger.read.queries import OF_CALLS, summed
from gateway.ledger.rows import AnyRow
from gateway.ledger.sums.running_sums import added_up
from gateway.ledger.tables import chains, customers, rollup_conversations, rollup_read, rollup_windows, usage_records
from pricing.money import MOST

CUSTOMERS_AT_ONCE = 25
"""The customers whose sums are compared in one transaction."""

ROWS_AT_ONCE = 1_000

PLACE = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN)
"""The number of the last record that is in the sums."""

book, windows, conversations = usage_records.c, rollup_windows.c, rollup_conversations.c


@dataclass(frozen=True, slots=True)
class WrongTotal:
    """A stored total that differs from the sum of its records."""

    customer: str | None
    """None where the total is over all customers."""
    of: str
    """The thing summed up: ``period 2026-10-01T00:00:00Z to …``, ``conversation …``, ``invoice …``."""
    column: str
    stored: int | None
    """None where the total is missing."""
    recounted: int | None
    """None where no such total should exist."""


def wrong_sums(database: Database) -> Iterator[WrongTotal]:
    """Yield each running sum that differs from its records, in the order of customers.

    Sums and records are read at one moment, the records up to the last one in the sums, so records booked meanwhile are
    no fault. Sums of records that retention has dropped are left out: nothing reads them.
    """
    last, page = "", [*_fault_of_place(database)]
    while True:
        yield from page
        with database.unchanging() as connection:
            place = connection.execute(PLACE).scalar_one_or_none() or 0
            some = _next_customers(connection, last, place) if place else []
            page = list(_of_customers(connection, some, place))
        if not some:
            return
        last = some[-1].id


def _fault_of_place(database: Database) -> Iterator[WrongTotal]:
    """Yield a fault where the book ends before the last record in the sums: later records would never be added."""
    head = select(chains.c.seq).where(chains.c.chain == MAIN)
    with database.read() as connection:
        place, end = connection.execute(select(PLACE.scalar_subquery(), head.scalar_subquery())).one()
    if (place or 0) > (end or 0):
        yield WrongTotal(None, "running sums", "last record", place, end or 0)


def _next_customers(connection: Connection, last: str, place: int) -> Sequence[AnyRow]:
    """Return the next customers, each with the times of its newest record and its newest call."""
    mine = (book.customer == customers.c.id, book.seq <= place)
    newest = select(book.time).where(*mine).order_by(book.time.desc()).limit(1)
    columns = (customers.c.id, customers.c.period, customers.c.timezone, customers.c.erased)
    times = (
        newest.scalar_subquery().label("record"),
        newest.where(book.kind.in_(OF_CALLS)).scalar_subquery().label("call"),
    )
    query = select(*columns, *times).where(customers.c.id > last).order_by(customers.c.id).limit(CUSTOMERS_AT_ONCE)
    return connection.execute(query).all()


def _of_customers(connection: Connection, some: Sequence[AnyRow], place: int) -> Iterator[WrongTotal]:
    ids = [row.id for row in some]
    gone = dropped_until(connection, ids)
    stored: dict[str, list[AnyRow]] = defaultdict(list)
    query = select(rollup_windows).where(windows.customer.in_(ids)).order_by(windows.start, windows.end)
    for window in connection.execute(query):
        stored[window.customer].append(window)
    query = select(conversations.customer, func.min(conversations.first)).where(conversations.customer.in_(ids))
    talking = {row[0]: row[1] for row in connection.execute(query.group_by(conversations.customer))}
    for row in some:
        for window in stored[row.id]:
            if window.start >= gone.get(row.id, 0):
                yield from _of_window(connection, window, place)
        yield from _missing(connection, row, stored[row.id], place)
        if row.id in talking and row.erased is None:
            yield from _of_conversations(connection, row.id, talking[row.id], place)


def _of_window(connection: Connection, window: AnyRow, place: int) -> Iterator[WrongTotal]:
    recounted = added_up(connection, (window.customer, window.start, window.end), place)
    pairs = {
        "tokens": (window.tokens_high, window.tokens_low, recounted["tokens_high"], recounted["tokens_low"]),
        "charge_nanousd": (window.charge_high, window.charge_low, recounted["charge_high"], recounted["charge_low"]),
        "included": (0, window.included, 0, recounted["included"]),
    }
    for column, (high, low, right_high, right_low) in pairs.items():
        kept, right = summed(high, low), summed(right_high, right_low)
        if kept != right:
            yield WrongTotal(window.customer, _period(window.start, window.end), column, kept, right)


def _missing(connection: Connection, row: AnyRow, stored: Sequence[AnyRow], place: int) -> Iterator[WrongTotal]:
    """Yield the period of a customer's latest call if no sum covers that call, nor the customer's latest record."""
    if row.call is None or any(
        window.start <= time < window.end for window in stored for time in (row.call, row.record)
    ):
        return
    start, end = period_at(row.period, row.timezone, row.call)
    sums = added_up(connection, (row.id, start, end), place)
    right = summed(sums["tokens_high"], sums["tokens_low"])
    yield WrongTotal(row.id, _period(start, end), "tokens", None, right)


def _of_conversations(connection: Connection, customer: str, since: int, place: int) -> Iterator[WrongTotal]:
    """Yield differing sums of a customer's conversations; each sums the records with its name since its first call."""
    stored = {
        row.name: row
        for row in connection.execute(select(rollup_conversations).where(conversations.customer == customer))
    }
    sums: dict[str, list[int]] = {name: [0, 0] for name in stored}
    calls = select(book.conversation, book.time, book.billed_output_tokens, book.input_tokens).where(
        book.customer == customer, book.time >= since, book.seq <= place
    )
    for name, time, tokens, input_tokens in connection.execute(calls).yield_per(ROWS_AT_ONCE):
        if name in stored and time >= stored[name].first:
            sums[name][0] += tokens
            sums[name][1] += input_tokens
    for name, row in sorted(stored.items()):
        for column, kept, right in zip(
            ("tokens", "input_tokens"), (row.tokens, row.input_tokens), sums[name], strict=True
        ):
            if kept not in (right, MOST):
                yield WrongTotal(customer, f"conversation {name}", column, kept, right)


def _period(start: int, end: int) -> str:
    return f"period {written(start)} to {written(end)}"
