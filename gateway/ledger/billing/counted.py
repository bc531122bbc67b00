"""Reads records by the period in which they count, page by page: the period of their time, or a later one if closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import merge
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, exists, select

from gateway.ledger.billing.closings import UTC_ZONE, CustomerMonth, bounds_of, months_of
from gateway.ledger.billing.dropped_months import refuse_dropped
from gateway.ledger.billing.late_rows import IS_LATE, late_rows
from gateway.ledger.book.dropped import dropped_until
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Position, Span
from gateway.ledger.rows import COLUMNS, AnyRow, record_of
from gateway.ledger.tables import usage_records
from pricing.usage import UsageRecord

book = usage_records.c

BY_TIME = itemgetter(0)
AT_ONCE = 5_000
"""Rows in one short transaction."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A row and the time at which it counts."""

    at: int
    row: AnyRow
    is_late: bool
    """Whether the row was booked after the period of its time was closed."""
    is_before: bool
    """Whether the row does not count, and is yielded because it comes shortly before the rows that count."""


class Month:
    """A month of all customers, each in its own zone, or of one customer."""

    def __init__(self, database: Database, month: str, only: str | None = None) -> None:
        self.month = month
        self.customers: dict[str, CustomerMonth] = {
            customer_month.customer: customer_month for customer_month in months_of(database, month, only)
        }
        self._else = bounds_of(month, UTC_ZONE)

    @property
    def is_closed(self) -> bool:
        """Whether the month is closed for every customer that existed in it."""
        due = [month for month in self.customers.values() if month.is_due]
        return bool(due) and all(month.is_closed for month in due)

    def bounds(self, customer: str) -> tuple[int, int]:
        """Return the start and end of a customer's month."""
        month = self.customers.get(customer)
        return self._else if month is None else (month.start, month.end)

    @property
    def since(self) -> int:
        """When the month begins for the customer for whom it begins first."""
        return min([self._else[0], *(month.start for month in self.customers.values())])

    @property
    def until(self) -> int:
        """When the month ends for the customer for whom it ends last."""
        return max([self._else[1], *(month.end for month in self.customers.values())])


def counted_in(
    database: Database,
    columns: Sequence[ColumnElement[Any]],
    span: Span,
    month: Month | None = None,
    *,
    before_ms: int = 0,
    gone: Mapping[str, int] | None = None,
    page: int = AT_ONCE,
) -> Iterator[Counted]:
    """Yield the rows that count in a span, oldest first by (time, id), holding one page in memory.

    Args:
        columns: must begin with ``time``, ``id`` and ``customer``, in this order.
        month: replaces the span's bounds by the month's bounds in each customer's own zone.
        before_ms: rows from this long before the span, except late rows, are yielded too, marked ``is_before``.
        gone: for each customer the time up to which retention has dropped its records; None looks this up.
    """
    if gone is None:
        with database.read() as connection:
            gone = dropped_until(connection, None if span.customer is None else [span.customer])
    since, until = (span.since, span.until) if month is None else (month.since, month.until)
    widened = Span(span.customer, since and since - before_ms, until, span.end_user, span.kind, span.tier, span.key_id)
    on_time = ((row[:2], row[0], False, row) for row in _on_time(database, columns, widened, page))
    late = late_rows(database, columns, replace(span, since=since, until=until), page)
    after = ((row[:2], row[-1], True, row) for row in late)
    start, end = since, until
    for _, at, is_late, row in merge(on_time, after, key=BY_TIME):
        if month is not None:
            start, end = month.bounds(row[2])
        if gone and at < gone.get(row[2], 0):
            continue
        is_before = start is not None and at < start
        if (end is None or at < end) and not (is_before and (is_late or at < (start or 0) - before_ms)):
            yield Counted(at, row, is_late, is_before)


def records_counted_in(database: Database, span: Span, month: Month | None = None) -> Iterator[UsageRecord]:
    """Yield the records that count in a span, oldest first by (time, id).

    Raises:
        RecordsDropped: some of the records are dropped, from the first step.
    """
    gone = refuse_dropped(database, span, None if month is None else month.month)
    first = (book.time, book.id, book.customer)
    width = len(COLUMNS)
    for counted in counted_in(database, (*first, *COLUMNS), span, month, gone=gone):
        yield record_of(counted.row[3 : 3 + width])  # type: ignore[arg-type]


def _on_time(database: Database, columns: Sequence[ColumnElement[Any]], span: Span, page: int) -> Iterator[AnyRow]:
    """Yield the rows of a span that were booked before their period was closed, oldest first by (time, id)."""
    query = select(*columns).where(~exists().where(IS_LATE)).order_by(book.time, book.id).limit(page)
    after: Position | None = None
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(*span.conditions(after))).all()
        yield from rows
        if len(rows) < page:
            return
        after = rows[-1][0], rows[-1][1]
