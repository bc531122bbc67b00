"""Credits, fees and prepaid credit entered by hand: why they are in the book, how much of a record is creditable."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, update

from gateway.ledger.billing_tables import adjustments
from gateway.ledger.tables import chains, usage_records

book = usage_records.c


@dataclass(frozen=True, slots=True)
class Creditable:
    """A record that a credit is for, and the part of its charge that is not credited yet."""

    kind: str
    tier: str | None
    menu_version: str | None
    key_id: str | None
    corrected: str | None
    """The record that this record corrects: credits for both are together at most the charges of both."""
    left_nanousd: int


NO_RECORD = Creditable("", None, None, None, None, 0)
"""Replaces the record of a credit that names no record."""


def creditable(connection: Connection, customer: str, record_id: str) -> Creditable | None:
    """Return a record of this customer and the part of its charge that is left, or None where there is no such record.

    The charge includes the correction of the record's count, less every credit for the record. The chain's head is
    locked from here to the end of the transaction, so of two concurrent credits the second sees the first.
    """
    connection.execute(select(chains.c.seq).with_for_update()).all()
    named = select(book.kind, book.tier, book.menu_version, book.key_id, book.corrects, book.charge_nanousd)
    found = connection.execute(named.where(book.id == record_id, book.customer == customer)).one_or_none()
    if found is None:
        return None
    corrected = select(book.charge_nanousd).where(book.corrects == record_id, book.id == f"{record_id}.1")
    credited = select(book.charge_nanousd).join(adjustments, adjustments.c.id == book.id)
    amounts = connection.execute(corrected.union_all(credited.where(adjustments.c.record == record_id))).scalars()
    return Creditable(*found[:5], left_nanousd=found.charge_nanousd + sum(amounts))


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Why a credit or a fee is in the book. ``id`` is its record's, ``record`` the record it is for, ``at`` in ms."""

    id: str
    customer: str
    record: str | None
    reason: str
    actor: str
    at: int


def note(connection: Connection, adjustment: Adjustment) -> None:
    """Store why a record is in the book, in the transaction that books it."""
    connection.execute(insert(adjustments), [asdict(adjustment)])


def first_prepaid(connection: Connection, customer: str) -> int | None:
    """Return when a customer first paid in advance, by the stored records; None where it never has."""
    mine = select(book.time).join(adjustments, adjustments.c.id == book.id)
    mine = mine.where(adjustments.c.customer == customer, book.kind == "prepaid")
    return connection.execute(mine.order_by(adjustments.c.at, adjustments.c.id).limit(1)).scalar_one_or_none()


def erase_reasons(connection: Connection, customer: str) -> None:
    """Remove the reasons of a customer's credits, fees and prepaid credit, which may name the customer."""
    connection.execute(update(adjustments).where(adjustments.c.customer == customer).values(reason=None))
