"""Prepaid credit of a customer: how much of a month's charges it pays, what is owed beyond that, and what is left.

Every charge of a month draws prepaid credit before anything is owed. There is no counter beside the book: the balance
is the balance on the last final invoice, updated by the records of the months since.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.ledger.billing.adjustment_reasons import first_prepaid
from gateway.ledger.billing.closings import (
    CustomerMonth,
    month_after,
    month_at,
    month_before,
    month_in,
    months_of,
    zone_of,
)
from gateway.ledger.billing.counted import counted_in
from gateway.ledger.billing.final_invoices import last_left
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import usage_records

book = usage_records.c
COLUMNS = (book.time, book.id, book.customer, book.charge_nanousd, book.prepaid_nanousd)


@dataclass(frozen=True, slots=True)
class Prepaid:
    """The prepaid credit of a customer's month: before + added = drawn + left, drawn + due = the month's charges."""

    before_nanousd: int
    added_nanousd: int
    drawn_nanousd: int
    left_nanousd: int
    due_nanousd: int


def drawn(before: int | None, added: int, charged: int) -> Prepaid | None:
    """Return the prepaid credit of a month; None where the customer has none.

    Args:
        before: the credit left when the month began; None where nothing had been paid in advance by then.
        added: the amount paid in advance in the month.
        charged: the sum of the charges of the month's records. It is negative where credits exceed charges, and then
            adds to the credit that is left.
    """
    if before is None and not added:
        return None
    available = (before or 0) + added
    taken = min(charged, available)
    return Prepaid(before or 0, added, taken, available - taken, charged - taken)


def left_before(database: Database, customer: str, month: str) -> int | None:
    """Return the prepaid credit that a customer has left when a month begins; None where it has had none by then.

    The records of earlier months without a final invoice are read.
    """
    with database.read() as connection:
        found = last_left(connection, customer, month)
        first, zone = first_prepaid(connection, customer), zone_of(connection, customer)
    if found is not None:
        name, left = month_after(found[0]), found[1]
    elif first is not None:
        name, left = month_before(month_at(first, zone)), None
    else:
        return None
    while name < month:
        for customer_month in months_of(database, name, customer):
            after = drawn(left, *_sums(database, customer_month))
            left = None if after is None else after.left_nanousd
        name = month_after(name)
    return left


def left_at(database: Database, customer: str, now_ms: int) -> int:
    """Return the prepaid credit that a customer has left, by all records in the book."""
    with database.read() as connection:
        month = month_in(connection, customer, now_ms)
    return left_before(database, customer, month_after(month)) or 0


def _sums(database: Database, month: CustomerMonth) -> tuple[int, int]:
    """Return the amount paid in advance in a month, and the sum of the charges of its records."""
    added, charged = 0, 0
    for counted in counted_in(database, COLUMNS, Span(month.customer, month.start, month.end)):
        charged += counted.row[3]
        added += counted.row[4] or 0
    return added, charged
