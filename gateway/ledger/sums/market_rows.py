"""The queries on the market sums: rows of the weeks that count, read page by page, each page in a short transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from sqlalchemy import Column, Select, Table, case, exists, func, select, tuple_

from gateway.ledger.database import Database
from gateway.ledger.sums_tables import (
    sums_ages,
    sums_customers,
    sums_excluded,
    sums_lengths,
    sums_own_lengths,
    sums_pace,
    sums_tiers,
)
from gateway.ledger.tables import audit, customers, menus
from pricing.estimate.observations.conversations import Sums, by_window
from pricing.menus.menu import Menu

PAGE = 20_000

OWN_MOST = 400_000
"""The most rows of lengths by customer that are read: some ten thousand customers, the first in the order of ids."""

Row = tuple[Any, ...]


def menus_in(database: Database) -> dict[str, Menu]:
    """Return the public part of every menu there ever was, by version."""
    with database.read() as connection:
        versions = list(connection.execute(select(menus.c.version).order_by(menus.c.created)).scalars())
    found = {}
    for version in versions:
        with database.read() as connection:
            body = connection.execute(select(menus.c.body).where(menus.c.version == version)).scalar_one()
        found[version] = Menu.from_json(json.loads(body))
    return found


def newest_computed(database: Database) -> dict[str, Any] | None:
    """Return the complete menu that was computed from a market last; None if there is none."""
    query = select(menus.c.body).where(menus.c.source == "mechanism").order_by(menus.c.created.desc()).limit(1)
    with database.read() as connection:
        found = connection.execute(query).scalar_one_or_none()
    return None if found is None else json.loads(found)


def lengths_in(database: Database, since_week: int, more: Sums, page: int = PAGE) -> Iterator[Row]:
    """Yield (menu version, tier, tokens, observed, censored) of the ledger, then the same of ``more``."""
    for _, *row in _paged(database, select(sums_lengths), sums_lengths, since_week, page):
        yield tuple(row)
    yield from ((*key[1:], *amounts) for key, amounts in more.lengths.items() if key[0] >= since_week)


def own_lengths_in(database: Database, since_week: int, more: Sums) -> Iterator[Row]:
    """Yield (week, customer, menu version, tier, even, bin, observed, censored) of the first rows, then of ``more``."""
    yield from islice(_paged(database, select(sums_own_lengths), sums_own_lengths, since_week), OWN_MOST)
    yield from ((*key, *amounts) for key, amounts in more.own_lengths.items() if key[0] >= since_week)


def tiers_in(database: Database, since_week: int, more: Sums) -> Iterator[Row]:
    """Yield (customer, menu version, tier, whether named for the conversation, conversations), then of ``more``."""
    for row in _paged(database, select(sums_tiers), sums_tiers, since_week):
        yield row[1], row[2], row[3], row[4], row[5]
    yield from ((*key[1:], *amounts) for key, amounts in more.tiers.items() if key[0] >= since_week)


def was_named(database: Database, since_week: int, more: Sums) -> bool:
    """Return whether any tier was named for a single conversation."""
    named = select(sums_tiers.c.chosen).where(sums_tiers.c.week >= since_week, sums_tiers.c.chosen).limit(1)
    with database.read() as connection:
        return connection.execute(named).first() is not None or any(key[4] for key in more.tiers)


def weeks_in(database: Database, since_week: int, more: Sums) -> tuple[int, int] | None:
    """Return the first and the last week with a conversation; None if there is none."""
    week = sums_customers.c.week
    with database.read() as connection:
        found = connection.execute(select(func.min(week), func.max(week)).where(week >= since_week)).one()
    weeks = [
        week_number
        for week_number in (*found, *(key[0] for key in more.customers if key[0] >= since_week))
        if week_number is not None
    ]
    return (int(min(weeks)), int(max(weeks))) if weeks else None


def customers_in(database: Database, since_week: int, more: Sums, windows: Sequence[int] = (0,)) -> Iterator[Row]:
    """Yield (customer, its amounts, then disconnects and ms of each window except the last), each customer once.

    The database adds up the weeks; ``windows`` has the first week of each window.
    """
    extra: dict[str, list[int]] = {}
    for (week, customer), amounts in more.customers.items():
        if week >= since_week:
            row = by_window(week, amounts, windows)
            known = extra.get(customer)
            extra[customer] = row if known is None else [a + b for a, b in zip(known, row, strict=True)]
    name, week_of = sums_customers.c.customer, sums_customers.c.week
    parts: list[Any] = [column for column in sums_customers.columns if not column.primary_key]
    for start, end in pairwise(windows):
        within = (week_of >= start) & (week_of < end)
        parts += [case((within, sums_customers.c[part]), else_=0) for part in ("disconnects", "waited_ms")]
    query = (
        select(name, *(func.sum(part) for part in parts))
        .where(week_of >= since_week)
        .group_by(name)
        .order_by(name)
        .limit(PAGE)
    )
    last = ""
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(name > last)).all()
        for customer, *found in rows:
            added = extra.pop(customer, None)
            # PostgreSQL sums whole numbers to a decimal.
            yield (customer, *(int(amount) + (added[place] if added else 0) for place, amount in enumerate(found)))
        if len(rows) < PAGE:
            break
        last = rows[-1][0]
    yield from ((customer, *found) for customer, found in extra.items())


def ages_in(database: Database, since_week: int, more: Sums) -> list[Row]:
    """Return rows of (age, waits, disconnects, ms within that second)."""
    return _added(database, sums_ages, since_week, more.ages)


def pace_in(database: Database, since_week: int, more: Sums) -> Sequence[float]:
    """Return the eight amounts of the pace."""
    rows = _added(database, sums_pace, since_week, more.pace)
    return [float(sum(amounts)) for amounts in zip(*rows, strict=True)] if rows else [0.0] * 8


def excluded_in(database: Database, since_week: int, more: Sums) -> Mapping[str, int]:
    """Return how many conversations were set aside, by reason."""
    counts: dict[str, int] = {}
    for reason, count in _added(database, sums_excluded, since_week, more.aside):
        counts[reason] = counts.get(reason, 0) + count
    return counts


def own_choices(database: Database) -> Iterator[tuple[str, int]]:
    """Yield (customer, time in ms) for every time that a customer set its own tier, oldest first."""
    last = 0
    query = select(audit.c.seq, audit.c.target, audit.c.time).where(
        audit.c.action == "customer.tier", audit.c.actor == audit.c.target
    )
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(audit.c.seq > last).order_by(audit.c.seq).limit(PAGE)).all()
        yield from ((row.target, row.time) for row in rows)
        if len(rows) < PAGE:
            return
        last = rows[-1].seq


def refusing(database: Database, version: str) -> set[str]:
    """Return the active customers that have no tier and had no conversation under this menu."""
    bought = exists().where(sums_tiers.c.customer == customers.c.id, sums_tiers.c.menu_version == version)
    query = select(customers.c.id).where(customers.c.status == "active", customers.c.tier.is_(None), ~bought)
    with database.read() as connection:
        return set(connection.execute(query).scalars())


def created_since(database: Database, since_ms: int) -> dict[str, int]:
    """Return the time of creation, ms, of each customer created from ``since_ms`` on."""
    query = select(customers.c.id, customers.c.created).where(customers.c.created >= since_ms).order_by(customers.c.id)
    last, found = "", dict[str, int]()
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(customers.c.id > last).limit(PAGE)).all()
        found |= {row.id: row.created for row in rows}
        if len(rows) < PAGE:
            return found
        last = rows[-1].id


def _added(database: Database, table: Table, since_week: int, more: dict[Row, list[int]]) -> list[Row]:
    """Return the rows of a small table without their week, followed by those of ``more``."""
    with database.read() as connection:
        rows = [tuple(row)[1:] for row in connection.execute(select(table).where(table.c.week >= since_week))]
    return rows + [(*key[1:], *amounts) for key, amounts in more.items() if key[0] >= since_week]


def _paged(database: Database, query: Select[Any], table: Table, since_week: int, page: int = PAGE) -> Iterator[Row]:
    """Yield the rows of a table in the order of its key.

    Where the key begins with the week, a page has one lower bound, the last row of the page before: given two bounds,
    SQLite uses the earlier, and passes over all earlier pages.
    """
    key: list[Column[Any]] = list(table.primary_key.columns)
    places = [list(table.columns).index(column) for column in key]
    bounds = [table.c.week >= since_week]
    query = query.order_by(*key).limit(page)
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(*bounds)).all()
        yield from (tuple(row) for row in rows)
        if len(rows) < page:
            return
        later = tuple_(*key) > tuple_(*(rows[-1][place] for place in places))
        bounds = [later] if key[0] is table.c.week else [bounds[0], later]
