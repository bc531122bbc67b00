"""Compares final invoices and credit notes with their records, some in each transaction that sees one moment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, tuple_

from gateway.ledger.billing.late_rows import IS_LATE
from gateway.ledger.billing_tables import (
    closings,
    credit_notes,
    dropped_months,
    dropped_totals,
    invoices,
    late_records,
)
from gateway.ledger.database import Database
from gateway.ledger.read.queries import summed, whole_sum
from gateway.ledger.rows import AnyRow
from gateway.ledger.sums.sum_check import WrongTotal
from gateway.ledger.tables import usage_records

AT_ONCE = 50
"""Invoices that are compared in one transaction."""

book, late, of, bills = usage_records.c, late_records.c, closings.c, invoices.c

COUNT_AND_CHARGE = (func.count(), *whole_sum(book.charge_nanousd))


def wrong_invoices(database: Database) -> Iterator[WrongTotal]:
    """Yield each final invoice whose stored totals differ from the records that count in its closed month.

    The order is by customer and month. A dropped month has no records: its invoice is compared with the totals that
    retention stored in their place. Missing invoices, and invoices without a closed month, are yielded, too.
    """
    beside = and_(bills.customer == of.customer, bills.month == of.month)
    columns = (of.customer, of.month, of.start, of.end, bills.id, bills.total, bills.body)
    query = select(*columns).outerjoin(invoices, beside).where(of.is_invoiced).order_by(of.customer, of.month)
    last = "", ""
    while True:
        with database.unchanging() as connection:
            rows = connection.execute(query.where(tuple_(of.customer, of.month) > last).limit(AT_ONCE)).all()
            found = [fault for row in rows for fault in _of_invoice(connection, row)]
        yield from found
        if len(rows) < AT_ONCE:
            break
        last = rows[-1].customer, rows[-1].month
    yield from _without_closing(database)


def wrong_notes(database: Database) -> Iterator[WrongTotal]:
    """Yield each credit note whose amount is not the amount that its credit's record deducts."""
    query = (
        select(credit_notes.c.id, credit_notes.c.customer, credit_notes.c.amount, book.charge_nanousd)
        .join(usage_records, book.id == credit_notes.c.id)
        .where(credit_notes.c.amount != -book.charge_nanousd)
        .order_by(credit_notes.c.number)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    for row in rows:
        yield WrongTotal(row.customer, f"credit note {row.id}", "amount", row.amount, -row.charge_nanousd)


def _of_invoice(connection: Connection, row: AnyRow) -> Iterator[WrongTotal]:
    records, charge = _counted(connection, row)
    if row.id is None:
        if records:
            yield WrongTotal(row.customer, f"invoice of {row.month}", "total_nanousd", None, charge)
        return
    body = json.loads(row.body)
    lines = sum(line["amount_nanousd"] for line in body["lines"])
    stored = (("total", int(row.total), charge), ("total_nanousd", body["total_nanousd"], charge))
    for column, kept, right in (*stored, ("lines", lines, charge), ("records", body["records"], records)):
        if kept != right:
            yield WrongTotal(row.customer, f"invoice {row.id}", column, kept, right)


def _counted(connection: Connection, row: AnyRow) -> tuple[int, int]:
    """Return how many records count in a closed month, and the sum of their charges."""
    this = (dropped_months.c.customer == row.customer, dropped_months.c.month == row.month)
    dropped = connection.execute(select(dropped_months.c.rows).where(*this)).scalar_one_or_none()
    if dropped is not None:
        mine = (dropped_totals.c.customer == row.customer, dropped_totals.c.month == row.month)
        totals = connection.execute(select(dropped_totals.c.sums).where(*mine)).scalars()
        return dropped, sum(json.loads(sums)[-1] for sums in totals)  # the charge is the last of the sums
    in_month = (book.customer == row.customer, book.time >= row.start, book.time < row.end)
    records, charge = _summed(connection, in_month)
    if connection.execute(select(late.seq).where(late.customer == row.customer).limit(1)).first() is not None:
        elsewhere = _summed(connection, (late.customer == row.customer, *in_month), is_late=True)
        added = (late.customer == row.customer, late.counts >= row.start, late.counts < row.end)
        here = _summed(connection, added, is_late=True)
        return records - elsewhere[0] + here[0], charge - elsewhere[1] + here[1]
    return records, charge


def _summed(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], *, is_late: bool = False
) -> tuple[int, int]:
    """Return the number of records that meet conditions and the sum of their charges; ``is_late``: of late records."""
    query: Any = select(*COUNT_AND_CHARGE)
    query = query.select_from(late_records.join(usage_records, IS_LATE)) if is_late else query
    count, high, low = connection.execute(query.where(*conditions)).one()
    return count, summed(high, low)


def _without_closing(database: Database) -> Iterator[WrongTotal]:
    """Yield the invoices of months that are not closed or not invoiced: no invoice is made for such a month."""
    mine = and_(of.customer == bills.customer, of.month == bills.month, of.is_invoiced)
    query = select(bills.id, bills.customer, bills.total).outerjoin(closings, mine).where(of.customer.is_(None))
    with database.read() as connection:
        rows = connection.execute(query.order_by(bills.number)).all()
    for row in rows:
        yield WrongTotal(row.customer, f"invoice {row.id}", "total", int(row.total), None)
