"""Final invoices: written once, numbered without a gap in the transaction that makes them final, never changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from gateway.ledger.billing.closings import CustomerMonth
from gateway.ledger.billing_tables import closings, invoices
from gateway.ledger.book.seals import seal_covering
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, customers, menus
from pricing.menus.menu import Menu, Tier, split_version

Invoice = dict[str, Any]
"""An invoice as it is shown; the table has the customer's names in columns of their own."""


def finalise(
    database: Database, month: CustomerMonth, body: Invoice | None, *, numbered: Callable[[int], str], now_ms: int
) -> bool:
    """Make a closed month's invoice final with the next number; return whether it was not final before.

    ``body`` is None for a month without an invoice. A second call changes nothing, even if both began at once: both
    lock the chain's head, as closing a month does.
    """
    mine = (closings.c.customer == month.customer, closings.c.month == month.month)
    with database.write() as connection:
        connection.execute(select(chains.c.seq).with_for_update()).all()
        if connection.execute(select(closings.c.is_invoiced).where(*mine)).scalar_one_or_none() is not False:
            return False
        if body is not None:
            _insert(connection, month, body, numbered, now_ms)
        connection.execute(update(closings).where(*mine).values(is_invoiced=True))
    return True


def _insert(
    connection: Connection, month: CustomerMonth, body: Invoice, numbered: Callable[[int], str], now_ms: int
) -> None:
    last = connection.execute(select(func.max(invoices.c.number))).scalar_one_or_none() or 0
    names = select(customers.c.name, customers.c.external_id).where(customers.c.id == month.customer)
    name, external_id = connection.execute(names).one()
    seal = seal_covering(connection, body["ledger"]["last_seq"])
    ledger = {**body["ledger"], "seal": None if seal is None else {"seq": seal.seq, "hash": seal.hash}}
    numbers = {"number": numbered(last + 1), "status": "final", "created": now_ms, "ledger": ledger}
    final = {**body, **numbers}
    row = {
        **{"id": body["id"], "number": last + 1, "customer": month.customer, "month": month.month},
        **{"total": str(body["total_nanousd"]), "name": name, "external_id": external_id},
        "body": json.dumps(final, separators=(",", ":")),
    }
    connection.execute(insert(invoices), [row])


def invoice_of(database: Database, invoice_id: str) -> Invoice | None:
    """Return a final invoice, or None where none has this id."""
    with database.read() as connection:
        row = connection.execute(select(invoices).where(invoices.c.id == invoice_id)).one_or_none()
    return None if row is None else _shown(row)


def invoices_in(
    database: Database, *, customer: str | None = None, month: str | None = None, after: int = 0, limit: int
) -> list[tuple[int, Invoice]]:
    """Return final invoices with their places in the order of their numbers."""
    query = select(invoices).where(invoices.c.number > after).order_by(invoices.c.number).limit(limit)
    if customer is not None:
        query = query.where(invoices.c.customer == customer)
    if month is not None:
        query = query.where(invoices.c.month == month)
    with database.read() as connection:
        return [(row.number, _shown(row)) for row in connection.execute(query)]


def invoiced(database: Database, month: str) -> tuple[int, int]:
    """Return the number of final invoices of a month and their total, nano-units."""
    with database.read() as connection:
        totals = connection.execute(select(invoices.c.total).where(invoices.c.month == month)).scalars().all()
    return len(totals), sum(map(int, totals))


def last_left(connection: Connection, customer: str, month: str) -> tuple[str, int] | None:
    """Return the month of a customer's last final invoice before a month, and the prepaid credit left after it.

    None where the customer had no prepaid credit by then.
    """
    earlier = (invoices.c.customer == customer, invoices.c.month < month)
    last = select(invoices.c.month, invoices.c.body).where(*earlier).order_by(invoices.c.month.desc()).limit(1)
    row = connection.execute(last).one_or_none()
    prepaid = None if row is None else json.loads(row.body).get("prepaid")
    return None if row is None or prepaid is None else (row.month, prepaid["left_nanousd"])


def erase_names(connection: Connection, customer: str) -> None:
    """Remove a customer's names from its invoices; their charges stay."""
    connection.execute(update(invoices).where(invoices.c.customer == customer).values(name="", external_id=None))


class Terms:
    """The tiers of menus, each menu read once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._menus: dict[str, Menu | None] = {}

    def __call__(self, version: str | None, tier: str | None) -> Tier | None:
        """Return a tier of a menu version, or None where there is none."""
        if version is None or tier is None:
            return None
        if version not in self._menus:
            base, own = split_version(version)
            with self._database.read() as connection:
                body = connection.execute(select(menus.c.body).where(menus.c.version == base)).scalar_one_or_none()
            self._menus[version] = None if body is None else Menu.from_json(json.loads(body)).with_prices(own)
        menu = self._menus[version]
        return None if menu is None else menu.tier(tier)


def _shown(row: Any) -> Invoice:
    return {**json.loads(row.body), "name": row.name, "external_id": row.external_id}


def names_of(database: Database, customer: str) -> tuple[str, str | None]:
    """Return a customer's present name and the operator's id for it."""
    with database.read() as connection:
        query = select(customers.c.name, customers.c.external_id).where(customers.c.id == customer)
        row = connection.execute(query).one_or_none()
    return ("", None) if row is None else (row[0], row[1])
