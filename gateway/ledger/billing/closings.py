"""Customers' months: when each begins and ends in the customer's own zone, and which are closed."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.holds.periods import period_at
from gateway.ledger.billing_tables import closings, late_records
from gateway.ledger.book.chain import MAIN
from gateway.ledger.database import Database
from gateway.ledger.rows import VALUES_MOST, AnyRow, batches
from gateway.ledger.tables import chains, customers, usage_records

PAGE = 5_000
"""Customers read at a time."""

MONTH = re.compile(r"(19[7-9]\d|2\d{3})-(0[1-9]|1[0-2])", re.ASCII)

UTC_ZONE = "UTC"
"""The zone of a customer that is not in the ledger."""

of, book = closings.c, usage_records.c


@dataclass(frozen=True, slots=True)
class CustomerMonth:
    """One month of one customer: ``start`` ≤ time < ``end``, ms; ``created`` is when the customer was created."""

    customer: str
    month: str
    start: int
    end: int
    timezone: str
    created: int
    is_closed: bool
    is_invoiced: bool = False
    """Whether the month's invoice is final, or the month gets no invoice."""

    @property
    def is_due(self) -> bool:
        """Whether the customer existed in the month, so that the month has to be closed."""
        return self.is_closed or self.created < self.end


def is_month(text: str) -> bool:
    """Return whether a text names a month, like ``2026-10``."""
    return MONTH.fullmatch(text) is not None


def month_before(month: str) -> str:
    """Return the name of the month before."""
    return (datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC) - timedelta(days=1)).strftime("%Y-%m")


def month_after(month: str) -> str:
    """Return the name of the month after."""
    return (datetime.strptime(month, "%Y-%m").replace(day=28, tzinfo=UTC) + timedelta(days=4)).strftime("%Y-%m")


def bounds_of(month: str, zone: str) -> tuple[int, int]:
    """Return the start and end of a month in a zone, ms."""
    middle = datetime.strptime(month, "%Y-%m").replace(day=15, tzinfo=UTC)
    return period_at("month", zone, int(middle.timestamp()) * 1000)


def month_at(time: int, zone: str) -> str:
    """Return the name of the month that a time falls in."""
    return datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).strftime("%Y-%m")


def months_of(
    database: Database, month: str, only: str | None = None, *, among: Sequence[str] | None = None, after: str = ""
) -> Iterator[CustomerMonth]:
    """Yield the month of each customer, in the order of ids.

    A closed month has the bounds with which it was closed. A month that follows a closed month begins where the closed
    month ended, even where the customer has changed its zone since.

    Args:
        only: yields only this customer's month.
        among: yields only the months of these customers.
        after: yields only months of customers whose ids come after this id.
    """
    last = after
    query = select(customers.c.id, customers.c.timezone, customers.c.created).order_by(customers.c.id).limit(PAGE)
    if only is not None:
        query = query.where(customers.c.id == only)
    if among is not None:
        query = query.where(customers.c.id.in_(among))
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(customers.c.id > last)).all()
            closed = _closed(connection, (month, month_before(month)), [row.id for row in rows])
        yield from (_month(row, month, closed) for row in rows)
        if len(rows) < PAGE:
            return
        last = rows[-1].id


def _closed(connection: Connection, months: Sequence[str], ids: Iterable[str]) -> dict[tuple[str, str], AnyRow]:
    found: dict[tuple[str, str], AnyRow] = {}
    query = select(of.customer, of.month, of.start, of.end, of.timezone, of.is_invoiced).where(of.month.in_(months))
    for chunk in batches(ids, VALUES_MOST):
        found.update(
            ((row.customer, row.month), row) for row in connection.execute(query.where(of.customer.in_(chunk)))
        )
    return found


def _month(row: AnyRow, month: str, closed: Mapping[tuple[str, str], AnyRow]) -> CustomerMonth:
    closing = closed.get((row.id, month))
    if closing is not None:
        bounds = closing.start, closing.end, closing.timezone
        return CustomerMonth(row.id, month, *bounds, row.created, is_closed=True, is_invoiced=closing.is_invoiced)
    start, end = bounds_of(month, row.timezone)
    before = closed.get((row.id, month_before(month)))
    start = start if before is None else before.end
    return CustomerMonth(row.id, month, start, max(start, end), row.timezone, row.created, is_closed=False)


def zone_of(connection: Connection, customer: str) -> str:
    """Return a customer's present zone."""
    zone = select(customers.c.timezone).where(customers.c.id == customer)
    return connection.execute(zone).scalar_one_or_none() or UTC_ZONE


def month_in(connection: Connection, customer: str, now_ms: int) -> str:
    """Return the name of the month that a customer is in at a time.

    After a move to a zone further west the calendar may still show a month that is closed; the customer is then in the
    month after the closed month.
    """
    name = month_at(now_ms, zone_of(connection, customer))
    last = connection.execute(select(func.max(of.month)).where(of.customer == customer)).scalar_one_or_none()
    return name if last is None or last < name else month_after(last)


def all_closed_until(database: Database, until: int, only: str | None = None) -> bool:
    """Return whether all time before ``until`` is closed, for every customer that existed by then or for ``only``."""
    ended = select(of.customer, func.max(of.end).label("end")).group_by(of.customer).subquery()
    behind = (
        select(customers.c.id)
        .outerjoin(ended, ended.c.customer == customers.c.id)
        .where(customers.c.created < until, func.coalesce(ended.c.end, 0) < until)
        .limit(1)
    )
    anybody = select(of.customer).where(of.end >= until).limit(1)
    if only is not None:
        behind, anybody = behind.where(customers.c.id == only), anybody.where(of.customer == only)
    with database.read() as connection:
        return connection.execute(anybody).first() is not None and connection.execute(behind).first() is None


def open_since(database: Database, customer: str) -> tuple[int | None, str]:
    """Return the time of a customer's first record in no closed month, None if there is none, and its present zone."""
    ended = select(func.max(of.end)).where(of.customer == customer)
    first = select(book.time).where(book.customer == customer).order_by(book.time).limit(1)
    late = select(func.min(late_records.c.counts)).where(late_records.c.customer == customer)
    with database.read() as connection:
        zone = zone_of(connection, customer)
        end = connection.execute(ended).scalar_one_or_none() or 0
        found = [connection.execute(first.where(book.time >= end)).scalar_one_or_none()]
        found.append(connection.execute(late.where(late_records.c.counts >= end)).scalar_one_or_none())
    return min((time for time in found if time is not None), default=None), zone


def open_before(connection: Connection, month: CustomerMonth) -> int | None:
    """Return the time of a customer's first record before a month that is in no closed month; None if there is none."""
    ended = select(func.max(of.end)).where(of.customer == month.customer).scalar_subquery()
    first = select(book.time).where(
        book.customer == month.customer, book.time < month.start, book.time >= func.coalesce(ended, 0)
    )
    return connection.execute(first.order_by(book.time).limit(1)).scalar_one_or_none()


def close(connection: Connection, months: Sequence[CustomerMonth], now_ms: int) -> int:
    """Close months in the caller's transaction; return the number of the chain's last record.

    The chain's head is locked, so no record is booked meanwhile, and a record with a higher number is late. Closing a
    month again changes nothing.
    """
    seq = connection.execute(select(chains.c.seq).where(chains.c.chain == MAIN).with_for_update()).scalar_one_or_none()
    rows = [
        {
            **{name: getattr(month, name) for name in ("customer", "month", "start", "end", "timezone")},
            **{"chain": MAIN, "seq": seq or 0, "closed": now_ms},
        }
        for month in months
    ]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    if rows:
        connection.execute(dialect.insert(closings).on_conflict_do_nothing(), rows)
    return seq or 0


class Zones:
    """The zone of a customer's days: in a closed month the zone at its closing, otherwise the present zone."""

    def __init__(self, database: Database, since: int, only: str | None = None) -> None:
        zones = select(customers.c.id, customers.c.timezone)
        closed = select(of.customer, of.end, of.timezone).where(of.end > since).order_by(of.customer, of.end)
        if only is not None:
            zones, closed = zones.where(customers.c.id == only), closed.where(of.customer == only)
        with database.read() as connection:
            self._now: dict[str, str] = {row[0]: row[1] for row in connection.execute(zones)}
            self._ends: dict[str, list[int]] = {}
            self._zones: dict[str, list[str]] = {}
            for customer, end, zone in connection.execute(closed):
                self._ends.setdefault(customer, []).append(end)
                self._zones.setdefault(customer, []).append(zone)

    def at(self, customer: str, time: int) -> str:
        """Return the zone in which a customer's days are counted at a time."""
        ends = self._ends.get(customer)
        if ends is not None and (place := bisect_right(ends, time)) < len(ends):
            return self._zones[customer][place]
        return self._now.get(customer, UTC_ZONE)
