"""Marks records that are booked after the period of their time was closed, in the transaction that books them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from gateway.ledger.billing_tables import closings, late_records
from gateway.ledger.rows import VALUES_MOST, batches, insert_many
from pricing.usage import UsageRecord

of = closings.c


def mark_late(connection: Connection, appended: Sequence[UsageRecord]) -> None:
    """Mark those of the records just appended whose time is in a closed period of their customer.

    Such a record counts at the time of its settlement, or at the first time that is not closed, whichever is later: a
    closed period never gains a record. The chain's head is locked, so no period closes meanwhile.
    """
    newest = connection.execute(select(func.max(of.end))).scalar_one_or_none()
    if newest is None:
        return
    behind = [record for record in appended if record["time"] < newest]
    ends = closed_until(connection, {record["customer"] for record in behind})
    rows = [
        {
            "chain": record["chain"],
            "seq": record["seq"],
            "customer": record["customer"],
            "counts": max(ends[record["customer"]], record["settled"]),
        }
        for record in behind
        if record["time"] < ends.get(record["customer"], 0)
    ]
    if rows:
        insert_many(connection, late_records, rows)


def closed_until(connection: Connection, customers: set[str]) -> dict[str, int]:
    """Return the end of the last closed period of each of these customers that has any, ms."""
    ends: dict[str, int] = {}
    for chunk in batches(sorted(customers), VALUES_MOST):
        query = select(of.customer, func.max(of.end)).where(of.customer.in_(chunk)).group_by(of.customer)
        ends.update((row[0], row[1]) for row in connection.execute(query))
    return ends
