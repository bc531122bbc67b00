"""The records of old closed months: which are no longer needed, whether they match their seals, and their deletion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select, tuple_

from gateway.holds.periods import period_at
from gateway.ledger.billing.closings import CustomerMonth
from gateway.ledger.billing.counted import Month, counted_in
from gateway.ledger.billing.dropped_months import finish, has_unfinished, unfinished
from gateway.ledger.billing.late_rows import IS_LATE
from gateway.ledger.billing_tables import closings, dropped_months, late_records
from gateway.ledger.book.chain import MAIN
from gateway.ledger.book.dropped import by_seal, mark_dropped
from gateway.ledger.book.merkle import leaf_of
from gateway.ledger.book.sealing import erased_leaves
from gateway.ledger.book.seals import last_seal, leaves_under
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.rows import COLUMNS, VALUES_MOST, AnyRow, batches, record_of
from gateway.ledger.tables import customers, erasures, rollup_read, usage_records

PAGE = 500

book, late, of, marks = usage_records.c, late_records.c, closings.c, dropped_months.c
IS_MARKED = exists().where(marks.customer == of.customer, marks.month == of.month)


class RowChanged(Exception):
    """A row that is to be dropped differs from its seal: a person has to examine it first."""


def unmarked_months(database: Database, cutoff: int) -> Iterator[CustomerMonth]:
    """Yield the closed and invoiced months that ended by ``cutoff`` and are not marked, the oldest first."""
    query = select(closings).where(of.is_invoiced, of.end <= cutoff, ~IS_MARKED)
    query = query.order_by(of.end, of.customer).limit(PAGE)
    place = (-1, "")
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(tuple_(of.end, of.customer) > place)).all()
        for row in rows:
            yield CustomerMonth(row.customer, row.month, row.start, row.end, row.timezone, 0, True, True)
        if len(rows) < PAGE:
            return
        place = rows[-1].end, rows[-1].customer


def may_go(database: Database, month: CustomerMonth, cutoff: int, now_ms: int) -> bool:
    """Return whether nothing needs the records of a month any more.

    Then all its records come before the newest seal's and are in the running sums, the months before it are marked, and
    no window, paid period, or credit or correction that is kept needs any of its records.
    """
    with database.read() as connection:
        before = select(of.month).where(of.customer == month.customer, of.end < month.end)
        if connection.execute(before.where(~IS_MARKED).limit(1)).first() is not None:
            return False
        row = connection.execute(select(customers).where(customers.c.id == month.customer)).one_or_none()
        if row is None or _is_needed_by(row, month, now_ms) or _is_named_from_outside(connection, month, cutoff):
            return False
        sealed = last_seal(connection)
        added = select(rollup_read.c.seq).where(rollup_read.c.chain == MAIN)
        upto = min(sealed.first_seq - 1 if sealed else 0, connection.execute(added).scalar_one_or_none() or 0)
        return not _has_any(connection, month, book.seq > upto)


def checked(database: Database, month: CustomerMonth, counted_month: Month, page: int) -> int:
    """Return how many records count in a month, after comparing each with its seal.

    Raises:
        RowChanged: a record differs.
    """
    count, rows = 0, list[AnyRow]()
    wanted = (book.time, book.id, book.customer, *COLUMNS)
    for counted in counted_in(database, wanted, Span(month.customer), counted_month):
        count += 1
        rows.append(counted.row[3 : 3 + len(COLUMNS)])  # type: ignore[arg-type]
        if len(rows) == page:
            with database.read() as connection:
                _check_sealed(connection, rows)
            rows = []
    with database.read() as connection:
        _check_sealed(connection, rows)
    return count


def lock_unmarked(connection: Connection, month: CustomerMonth) -> bool:
    """Return whether a month is not marked yet, and lock it until the transaction ends."""
    this = (of.customer == month.customer, of.month == month.month)
    connection.execute(select(of.month).where(*this).with_for_update()).all()
    there = (marks.customer == month.customer, marks.month == month.month)
    return connection.execute(select(marks.month).where(*there)).first() is None


def delete_some(database: Database, before_ms: int, most: int) -> int:
    """Delete some records of the oldest month that was marked by ``before_ms``; return how many.

    Raises:
        RowChanged: a record differs from its seal; no record is deleted.
    """
    with database.read() as connection:
        if not has_unfinished(connection, before_ms):
            return 0
    with database.write() as connection:
        for customer, month, start, end in unfinished(connection, before_ms):
            customer_month = CustomerMonth(customer, month, start, end, "", 0, True, True)
            for query in _rows_of(customer_month, *COLUMNS):
                if rows := connection.execute(query.limit(most)).all():
                    _drop(connection, rows)
                    return len(rows)
            finish(connection, customer, month)
    return 0


def _is_needed_by(customer: AnyRow, month: CustomerMonth, now_ms: int) -> bool:
    """Return whether a customer's window or paid period may still need a record of a month."""
    start, _ = period_at(customer.period, customer.timezone, now_ms)
    since = customer.subscription_start
    is_paid = since is not None and since < month.end and (customer.subscription_until or 0) > now_ms
    return start < month.end or is_paid or customer.ended is not None


def _rows_of(month: CustomerMonth, *columns: Any) -> tuple[Select[Any], Select[Any]]:
    """Return the queries for the rows that count in a customer's month: those booked in time, and late rows."""
    mine = select(*columns).where(book.customer == month.customer)
    on_time = mine.where(book.time >= month.start, book.time < month.end, ~exists().where(IS_LATE))
    after = mine.join(late_records, IS_LATE).where(late.counts >= month.start, late.counts < month.end)
    return on_time, after


def _has_any(connection: Connection, month: CustomerMonth, condition: ColumnElement[bool]) -> bool:
    found = (connection.execute(query.where(condition).limit(1)).first() for query in _rows_of(month, book.seq))
    return any(row is not None for row in found)


def _is_named_from_outside(connection: Connection, month: CustomerMonth, cutoff: int) -> bool:
    """Return whether a credit or correction that is itself kept names a record of the month."""
    mine = select(of.start, of.end, of.is_invoiced).where(of.customer == month.customer).order_by(of.end)
    kept_from = month.end
    for row in connection.execute(mine).all():
        if row.end > cutoff or not row.is_invoiced:
            kept_from = row.start
            break
        kept_from = row.end
    naming = (
        select(book.corrects)
        .select_from(usage_records.outerjoin(late_records, IS_LATE))
        .where(book.customer == month.customer, book.kind.in_(("credit", "correction")), book.corrects.is_not(None))
        .where(func.coalesce(late.counts, book.time) >= kept_from)
    )
    names = connection.execute(naming).scalars().all()
    return any(_has_any(connection, month, book.id.in_(some)) for some in batches(names, VALUES_MOST))


def _check_sealed(connection: Connection, rows: Sequence[AnyRow]) -> None:
    """Compare rows, which were selected by COLUMNS, with the leaves of their seals.

    Raises:
        RowChanged: a record differs.
    """
    records = {record["seq"]: record for record in map(record_of, rows)}
    for seal, seqs in by_seal(connection, records, MAIN).items():
        leaves = leaves_under(connection, seal)
        erased = erased_leaves(connection, MAIN, seal.first_seq, seal.last_seq)
        for seq in seqs:
            leaf = erased[seq] if seq in erased else leaf_of(records[seq])
            if leaf != leaves[seq - seal.first_seq]:
                raise RowChanged(
                    f"Row {seq} of chain {MAIN} is not the one that was sealed: see `tokencap ledger verify`."
                )


def _drop(connection: Connection, rows: Sequence[AnyRow]) -> None:
    _check_sealed(connection, rows)
    seqs = [record_of(row)["seq"] for row in rows]
    mark_dropped(connection, by_seal(connection, seqs, MAIN))
    for table in (erasures, late_records, usage_records):
        connection.execute(delete(table).where(table.c.chain == MAIN, table.c.seq.in_(seqs)))
