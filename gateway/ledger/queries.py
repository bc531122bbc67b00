"""What is asked of the book. Everything longer than a page is read page by page, each in a short transaction."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, func, select, tuple_

from gateway.errors import BadRequest
from gateway.ledger.cursors import NoCursor, cursor_of, position_of
from gateway.ledger.database import Database
from gateway.ledger.rows import COLUMNS, AnyRow, record_of
from gateway.ledger.tables import usage_records
from pricing.usage import UsageRecord

DAY_MS = 86_400_000
PAGE = 1000
CUSTOMERS_AT_ONCE = 100
HALF = 2**27

OF_CALLS = ("usage", "correction")
"""Kinds of records that count in a window."""

Position = tuple[int, str]
"""Where a record stands in the order that everything is read in: its (time, id)."""

book = usage_records.c


@dataclass(frozen=True, slots=True)
class Span:
    """Which records: of one customer or of all, with ``since`` ≤ time < ``until``, in ms; None is no bound."""

    customer: str | None = None
    since: int | None = None
    until: int | None = None
    end_user: str | None = None
    """Of this one of the customers' own users."""

    def conditions(self) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if self.customer is not None:
            conditions.append(book.customer == self.customer)
        if self.since is not None:
            conditions.append(book.time >= self.since)
        if self.until is not None:
            conditions.append(book.time < self.until)
        if self.end_user is not None:
            conditions.append(book.end_user == self.end_user)
        return conditions


EVERYTHING = Span()


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, oldest first, and where the next page begins; None after the last."""

    records: list[UsageRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What records come to: billed output tokens and charges, corrections and credits included."""

    tokens: int = 0
    charge_nanousd: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over records, to be compared with other counts of the same calls."""

    records: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    billed_output_tokens: int = 0
    charge_nanousd: int = 0


def usage_page(database: Database, span: Span, *, limit: int, cursor: str | None = None) -> Page:
    """Return a page of usage records, oldest first by (time, id).

    Raises:
        BadRequest: ``cursor`` is not one of ours.
    """
    after = None if cursor is None else _position(cursor)
    rows = _page(database, COLUMNS, span, after, limit + 1)
    records = [record_of(row) for row in rows[:limit]]
    has_more = len(rows) > limit
    return Page(records, cursor_of(records[-1]["time"], records[-1]["id"]) if has_more else None)


def usage_records_in(database: Database, span: Span, page: int = PAGE) -> Iterator[UsageRecord]:
    """Yield usage records, oldest first by (time, id), holding one page of them in memory."""
    return (record_of(row) for row in rows_in(database, COLUMNS, span, page))


def rows_in(
    database: Database, columns: Sequence[ColumnElement[Any]], span: Span, page: int = PAGE
) -> Iterator[AnyRow]:
    """Yield rows of some columns, oldest first by (time, id); ``time`` and ``id`` must be among the columns."""
    after: Position | None = None
    while rows := _page(database, columns, span, after, page):
        yield from rows
        after = rows[-1].time, rows[-1].id


def calls_in(customer: str, start: int, end: int) -> list[ColumnElement[bool]]:
    """Return what a record fulfils that counts in a customer's window, which begins at ``start`` and ends before ``end``.

    A subscription's fee and a credit are no calls: they count in no window.
    """
    return [book.customer == customer, book.time >= start, book.time < end, book.kind.in_(OF_CALLS)]


def whole_sum(column: ColumnElement[Any]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Return what ``summed`` reads the exact sum of a column from, in two halves of its digits.

    SQLite's own sum fails where it passes 2^63, and every amount is below 2^53.
    """
    return func.sum(column // HALF), func.sum(column % HALF)


def summed(high: Any, low: Any) -> int:
    """Return the sum in two halves: PostgreSQL sums whole numbers to a decimal, and no record at all sums to null."""
    return int(high or 0) * HALF + int(low or 0)


def spent_in(database: Database, periods: Mapping[str, tuple[int, int]]) -> dict[str, Spent]:
    """Return what each customer's calls came to in its own period, in ms: the ``used`` of a lost Redis' windows."""
    spent: dict[str, Spent] = {}
    remaining = iter(periods.items())
    columns = (*whole_sum(book.billed_output_tokens), *whole_sum(book.charge_nanousd))
    while some := list(islice(remaining, CUSTOMERS_AT_ONCE)):
        with database.read() as connection:
            for customer, (start, end) in some:
                row = connection.execute(select(*columns).where(*calls_in(customer, start, end))).one()
                spent[customer] = Spent(summed(row[0], row[1]), summed(row[2], row[3]))
    return spent


def newest_times(database: Database, customers: Iterable[str]) -> dict[str, int]:
    """Return when the latest call of each of these customers was admitted, ms; one who never called is left out."""
    found: dict[str, int] = {}
    remaining = iter(customers)
    while some := list(islice(remaining, CUSTOMERS_AT_ONCE)):
        with database.read() as connection:
            for customer in some:
                newest = connection.execute(select(func.max(book.time)).where(book.customer == customer)).scalar_one()
                if newest is not None:
                    found[customer] = int(newest)
    return found


def tokens_by_end_user(database: Database, customer: str, start: int, end: int) -> dict[str | None, int]:
    """Return the billed output tokens of each of a customer's end users, in the calls of one period."""
    columns = (book.end_user, *whole_sum(book.billed_output_tokens))
    query = select(*columns).where(*calls_in(customer, start, end)).group_by(book.end_user)
    with database.read() as connection:
        return {row[0]: summed(row[1], row[2]) for row in connection.execute(query).all()}


def begun_in(database: Database, customer: str, start: int, end: int) -> int:
    """Return how many of a customer's conversations of one period its subscription included.

    Records say so themselves. Those from before they did say which conversations had their first output token in the
    period: one lasts a day at most, so one that was begun before shows in the day before.
    """
    included = select(func.count()).where(*calls_in(customer, start, end), book.conversation_is_included.is_(True))
    first = func.min(book.time)
    query = (
        select(book.conversation)
        .where(
            *calls_in(customer, start - DAY_MS, end),
            book.billed_output_tokens > 0,
            book.conversation_cap_tokens.is_(None),
        )
        .group_by(book.conversation)
        .having(first >= start)
    )
    with database.read() as connection:
        before = connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        return before + connection.execute(included).scalar_one()


def lately_counted(database: Database, most: int) -> list[tuple[float, float]]:
    """Return the tokens of a choice, and the seconds that they took, of those of the latest ``most`` records, oldest
    first, whose output the upstream counted while somebody listened."""
    latest = select(book.kind, book.usage_source, book.output_tokens, book.choices, book.duration_ms)
    latest = latest.order_by(book.time.desc(), book.id.desc()).limit(most)
    with database.read() as connection:
        rows = connection.execute(latest).all()
    return [
        (row.output_tokens / max(row.choices, 1), row.duration_ms / 1000)
        for row in reversed(rows)
        if row.kind == "usage" and row.usage_source == "upstream" and row.duration_ms is not None
    ]


def totals(database: Database, span: Span = EVERYTHING) -> Totals:
    """Return the sums over the records in a span."""
    fields = ("input_tokens", "output_tokens", "billed_output_tokens", "charge_nanousd")
    columns = (book.time, book.id, *(book[field] for field in fields))
    records, sums = 0, [0] * len(fields)
    for _time, _id, *values in rows_in(database, columns, span):
        records += 1
        sums = list(map(operator.add, sums, values))
    return Totals(records, *sums)


def _page(
    database: Database, columns: Sequence[ColumnElement[Any]], span: Span, after: Position | None, limit: int
) -> Sequence[AnyRow]:
    query = select(*columns).where(*span.conditions()).order_by(book.time, book.id).limit(limit)
    if after is not None:
        query = query.where(tuple_(book.time, book.id) > tuple_(*after))
    with database.read() as connection:
        return connection.execute(query).all()


def _position(cursor: str) -> Position:
    try:
        time, record_id = position_of(cursor, int, str)
    except NoCursor as error:
        raise BadRequest("This cursor is not one that a list gave out.", param="cursor") from error
    return time, record_id
