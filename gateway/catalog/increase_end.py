"""Ends increases of limits whose time is over: the customer's usual limits apply again."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from gateway.catalog import audit_rows, customer_rows
from gateway.catalog.audit_rows import Audited
from gateway.catalog.projector import project_customers
from gateway.clock import written
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.ledger.tables import customers

AT_ONCE = 100


def end_due(database: Database, projection: Projection, now_ms: int) -> int:
    """End every increase whose time is over; return their number. Any number of processes may do this.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable; call it again later.
    """
    due = select(customers.c.id).where(customers.c.increase_until <= now_ms).limit(AT_ONCE)
    with database.read() as connection:
        ids = list(connection.execute(due).scalars())
    ended = [customer_id for customer_id in ids if _end(database, customer_id, now_ms)]
    if ended:
        project_customers(database, projection, ended)
    return len(ended)


def _end(database: Database, customer_id: str, now_ms: int) -> bool:
    with database.write() as connection:
        row = customer_rows.find(connection, customer_id, locked=True)
        if row.increase is None or row.increase_until is None or row.increase_until > now_ms:
            return False
        customer_rows.store(connection, replace(row, increase=None, increase_until=None))
        before = {"increase": {**row.increase, "until": written(row.increase_until)}}
        audited = Audited(now_ms, "tokencap", "customer.increase_ended", customer_id, before, {"increase": None})
        audit_rows.record_all(connection, [audited])
    return True
