"""Credit notes as rows: written once, with the credit that they document, and numbered without a gap."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from gateway.ledger.billing_tables import adjustments, closings, credit_notes, invoices, late_records
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, customers, usage_records

CreditNote = dict[str, Any]
"""A credit note as it is shown; the customer's names and the reason are stored apart from it."""


@dataclass(frozen=True, slots=True)
class Invoiced:
    """A final invoice that a credit is for, and the part of its total that is not credited yet."""

    id: str
    number: str
    month: str
    left_nanousd: int


class InvoicePending(Exception):
    """A record's month is closed, and its invoice is not final yet."""


def invoiced(connection: Connection, customer: str, invoice_id: str) -> Invoiced | None:
    """Return a customer's final invoice, or None where none has this id.

    The chain's head is locked from here to the end of the transaction, so of two concurrent credits the second sees the
    first.
    """
    connection.execute(select(chains.c.seq).with_for_update()).all()
    query = select(invoices).where(invoices.c.id == invoice_id, invoices.c.customer == customer)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    amounts = select(credit_notes.c.amount).where(credit_notes.c.invoice == invoice_id)
    credited = sum(connection.execute(amounts).scalars())
    return Invoiced(row.id, json.loads(row.body)["number"], row.month, max(int(row.total) - credited, 0))


def invoice_of_record(connection: Connection, customer: str, record_id: str) -> Invoiced | None:
    """Return the final invoice that a record is on, or None where its month is open.

    Raises:
        InvoicePending: the record's month is closed and not invoiced yet.
    """
    book = usage_records.c
    query = (
        select(book.time, late_records.c.counts)
        .outerjoin(late_records, (late_records.c.chain == book.chain) & (late_records.c.seq == book.seq))
        .where(book.id == record_id, book.customer == customer)
    )
    connection.execute(select(chains.c.seq).with_for_update()).all()
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    counts = found.time if found.counts is None else found.counts
    closing = select(closings.c.month, closings.c.is_invoiced).where(
        closings.c.customer == customer, closings.c.start <= counts, closings.c.end > counts
    )
    month = connection.execute(closing).one_or_none()
    if month is None:
        return None
    if not month.is_invoiced:
        raise InvoicePending
    query_id = select(invoices.c.id).where(invoices.c.customer == customer, invoices.c.month == month.month)
    invoice_id = connection.execute(query_id).scalar_one_or_none()
    return None if invoice_id is None else invoiced(connection, customer, invoice_id)


def issue(connection: Connection, body: CreditNote, *, numbered: Callable[[int], str]) -> None:
    """Write the note of a credit, with the next number, in the transaction that books it, which has the head locked."""
    last = connection.execute(select(func.max(credit_notes.c.number))).scalar_one_or_none() or 0
    names = select(customers.c.name, customers.c.external_id).where(customers.c.id == body["customer"])
    name, external_id = connection.execute(names).one()
    row = {
        **{"id": body["id"], "number": last + 1, "customer": body["customer"], "invoice": body["invoice"]["id"]},
        **{"amount": body["amount_nanousd"], "name": name, "external_id": external_id},
        "body": json.dumps({**body, "number": numbered(last + 1)}, separators=(",", ":")),
    }
    connection.execute(insert(credit_notes), [row])


def notes_in(
    database: Database, *, customer: str | None = None, invoice: str | None = None, after: int = 0, limit: int
) -> list[tuple[int, CreditNote]]:
    """Return credit notes with their places in the order of their numbers."""
    query = _notes().where(credit_notes.c.number > after).order_by(credit_notes.c.number).limit(limit)
    if customer is not None:
        query = query.where(credit_notes.c.customer == customer)
    if invoice is not None:
        query = query.where(credit_notes.c.invoice == invoice)
    with database.read() as connection:
        return [(row.number, _shown(row)) for row in connection.execute(query)]


def note_of(database: Database, note_id: str) -> CreditNote | None:
    """Return a credit note, or None where none has this id."""
    with database.read() as connection:
        row = connection.execute(_notes().where(credit_notes.c.id == note_id)).one_or_none()
    return None if row is None else _shown(row)


def erase_note_names(connection: Connection, customer: str) -> None:
    """Remove a customer's names from its credit notes; the amounts stay."""
    mine = update(credit_notes).where(credit_notes.c.customer == customer)
    connection.execute(mine.values(name="", external_id=None))


def _notes() -> Any:
    return select(credit_notes, adjustments.c.reason).outerjoin(adjustments, adjustments.c.id == credit_notes.c.id)


def _shown(row: Any) -> CreditNote:
    return {**json.loads(row.body), "name": row.name, "external_id": row.external_id, "reason": row.reason}
