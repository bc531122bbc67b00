"""Customers' months whose records retention dropped: up to when a customer has none, and the totals stored instead."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, update

from gateway.errors import RecordsDropped
from gateway.ledger.billing.closings import CustomerMonth
from gateway.ledger.billing_tables import dropped_conversations, dropped_months, dropped_totals
from gateway.ledger.book.dropped import dropped_until
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.rows import VALUES_MOST, batches

of, kept = dropped_months.c, dropped_totals.c

GROUPED = ("day", "kind", "tier", "key_id", "end_user", "menu_version")
"""The fields by which the sums of a dropped month are grouped, beside the customer."""

Group = tuple[str | None, ...]
"""A value for each field of ``GROUPED``."""

Conversations = dict[tuple[str, str], list[int]]
"""By customer and name: the time of the first call, of the last sign of life, and 1 once there was an output token."""


@dataclass(frozen=True, slots=True)
class KeptTotals:
    """The totals that replace the dropped records of a span, all read at one moment."""

    until: Mapping[str, int] = field(default_factory=dict)
    """For each customer the time, ms, before which no record counts any more."""
    conversations: Conversations = field(default_factory=dict)
    """The conversations of each of these customers that were open at that time."""
    sums: Sequence[tuple[str, Group, list[int]]] = ()
    """Customer, group and sums."""


def refuse_dropped(database: Database, span: Span, month: str | None = None) -> dict[str, int]:
    """Refuse a span or month that has dropped records; return the time before which no record of a customer counts.

    Raises:
        RecordsDropped: records that counted in the span or month are dropped.
    """
    conditions: list[ColumnElement[bool]] = [of.rows > 0]
    conditions += [of.month == month] if month is not None else _overlapping(span)
    if span.customer is not None:
        conditions.append(of.customer == span.customer)
    with database.read() as connection:
        if connection.execute(select(of.customer).where(*conditions).limit(1)).first() is not None:
            raise RecordsDropped
        return dropped_until(connection, None if span.customer is None else [span.customer])


def totals_kept(database: Database, span: Span, month: str | None = None) -> KeptTotals:
    """Return the totals that replace the dropped records that counted in a span or month.

    Raises:
        RecordsDropped: the span begins or ends within a dropped month.
    """
    mine = [] if span.customer is None else [of.customer == span.customer]
    within = [of.month == month] if month is not None else _overlapping(span)
    names = {"customer": span.customer, "end_user": span.end_user, "kind": span.kind, "tier": span.tier}
    names["key_id"] = span.key_id
    matching = [kept[name] == value for name, value in names.items() if value is not None]
    query = select(kept.customer, *(kept[name] for name in GROUPED), kept.sums).join(
        dropped_months, and_(of.customer == kept.customer, of.month == kept.month)
    )
    with database.read() as connection:
        until = dropped_until(connection, None if span.customer is None else [span.customer])
        if not until:
            return KeptTotals()
        if month is None and (cut := _cut(span)) and connection.execute(select(of.month).where(*mine, *cut)).first():
            raise RecordsDropped
        rows = connection.execute(query.where(*mine, *within, *matching).order_by(kept.id)).all()
        open_then = conversations_at_the_end(connection, span.customer)
    sums = [(row.customer, tuple(row[1:-1]), json.loads(row.sums)) for row in rows]
    return KeptTotals(until, open_then, sums)


def conversations_at_the_end(connection: Connection, customer: str | None) -> Conversations:
    """Return the conversations that were open at the end of the last dropped month, of all customers or of one."""
    query = select(dropped_conversations)
    if customer is not None:
        query = query.where(dropped_conversations.c.customer == customer)
    return {
        (row.customer, row.conversation): [row.first, row.last, int(row.is_begun)] for row in connection.execute(query)
    }


def keep(
    connection: Connection,
    month: CustomerMonth,
    rows: int,
    sums: Mapping[Group, Sequence[int]],
    open_then: Mapping[str, Sequence[int]],
    now_ms: int,
) -> None:
    """Store the totals of a month, in the caller's transaction; from then on the month's records no longer count."""
    names = {"customer": month.customer, "month": month.month}
    bounds = {"start": month.start, "end": month.end, "rows": rows, "at": now_ms, "is_done": rows == 0}
    connection.execute(insert(dropped_months), [{**names, **bounds}])
    totals: list[dict[str, Any]] = [
        {**names, **dict(zip(GROUPED, group, strict=True)), "sums": json.dumps(amounts)}
        for group, amounts in sums.items()
    ]
    for batch in batches(totals, VALUES_MOST):
        connection.execute(insert(dropped_totals), batch)
    connection.execute(delete(dropped_conversations).where(dropped_conversations.c.customer == month.customer))
    conversations = [
        {"customer": month.customer, "conversation": name, "first": first, "last": last, "is_begun": bool(is_begun)}
        for name, (first, last, is_begun) in open_then.items()
    ]
    for batch in batches(conversations, VALUES_MOST):
        connection.execute(insert(dropped_conversations), batch)


def erase_kept_words(connection: Connection, customer: str) -> None:
    """Remove a customer's stored conversations, and the end users from its stored totals; usage and charges stay."""
    connection.execute(update(dropped_totals).where(kept.customer == customer).values(end_user=None))
    connection.execute(delete(dropped_conversations).where(dropped_conversations.c.customer == customer))


def has_unfinished(connection: Connection, before_ms: int) -> bool:
    """Return whether a month that was marked by ``before_ms`` still has rows."""
    these = select(of.month).where(of.is_done.is_(False), of.at <= before_ms)
    return connection.execute(these.limit(1)).first() is not None


def unfinished(connection: Connection, before_ms: int) -> Iterator[tuple[str, str, int, int]]:
    """Yield customer, month, start and end of dropped months that still have rows, locked, oldest first."""
    these = select(dropped_months).where(of.is_done.is_(False), of.at <= before_ms)
    rows = connection.execute(these.order_by(of.at, of.customer, of.month).limit(100).with_for_update()).all()
    yield from ((row.customer, row.month, row.start, row.end) for row in rows)


def finish(connection: Connection, customer: str, month: str) -> None:
    """Record that no row of a dropped month is left."""
    this = and_(of.customer == customer, of.month == month)
    connection.execute(update(dropped_months).where(this).values(is_done=True))


def _overlapping(span: Span) -> list[ColumnElement[bool]]:
    """Return the conditions for a dropped month that overlaps a span."""
    conditions: list[ColumnElement[bool]] = [of.end > of.start]
    if span.since is not None:
        conditions.append(of.end > span.since)
    if span.until is not None:
        conditions.append(of.start < span.until)
    return conditions


def _cut(span: Span) -> list[ColumnElement[bool]]:
    """Return the conditions for a dropped month, with records, that a span has only a part of; none without bounds."""
    edges = [and_(of.start < edge, of.end > edge) for edge in (span.since, span.until) if edge is not None]
    return [of.rows > 0, edges[0] if len(edges) == 1 else edges[0] | edges[1]] if edges else []
