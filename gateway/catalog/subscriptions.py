"""Opens the paid periods of subscriptions as they fall due: the fee goes into the book, the customer keeps its menu."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import redis
from sqlalchemy import or_, select

from gateway.billing.postings import posting
from gateway.catalog import customer_rows, menu_rows
from gateway.catalog.customer_rows import CustomerRow, folded
from gateway.catalog.projector import project_customers
from gateway.holds.periods import period_at
from gateway.holds.store.projection import Projection
from gateway.holds.terms import Subscription, Timeline, standing
from gateway.ledger.book.appender import book
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.tables import OWN_PERIOD_PRICE, customers, menus
from pricing.menus.menu import Menu, Tier, own_prices
from pricing.usage import UsageRecord

AT_ONCE = 100


def open_due(database: Database, client: redis.Redis, projection: Projection, now_ms: int, currency: str) -> int:
    """Open the period of every active customer whose tier has a period's price and who has not paid for this one.

    Row and fee are one transaction, and the fee's id is made of customer, period and tier: any number of processes may
    do this, at any time, and each fee is charged once. A period that nobody kept the books in is not charged later.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable; call it again later.
    """
    with database.read() as connection:
        timeline = menu_rows.still_needed(menu_rows.read_timeline(connection))
        versions = timeline.versions
        bodies = connection.execute(select(menus.c.body).where(menus.c.version.in_(versions))).scalars().all()
    published = {menu.version: menu for menu in (Menu.from_json(json.loads(body)) for body in bodies)}
    names = {tier.name for menu in published.values() for tier in menu.tiers if tier.period_price_nanousd is not None}
    if names:
        names |= {old for publication in timeline.publications for old in publication.moves}
    opened, watermark = 0, Watermark(client)
    for ids in _due(database, names, now_ms):
        done = [
            customer_id
            for customer_id in ids
            if _open(database, watermark, customer_id, timeline, published, now_ms, currency)
        ]
        project_customers(database, projection, done)
        opened += len(done)
    return opened


def _due(database: Database, names: set[str], now_ms: int) -> Iterator[list[str]]:
    """Yield ids of customers that may have a period to pay for, some at a time."""
    last = ""
    until = customers.c.subscription_until
    query = (
        select(customers.c.id)
        .where(customers.c.status == "active", or_(until.is_(None), until <= now_ms))
        .where(
            or_(customers.c.tier.in_(names), customers.c.next_tier.in_(names), OWN_PERIOD_PRICE)
            if names
            else OWN_PERIOD_PRICE
        )
        .order_by(customers.c.id)
        .limit(AT_ONCE)
    )
    while True:
        with database.read() as connection:
            ids = list(connection.execute(query.where(customers.c.id > last)).scalars())
        if not ids:
            return
        yield ids
        last = ids[-1]


def _open(
    database: Database,
    watermark: Watermark,
    customer_id: str,
    timeline: Timeline,
    published: dict[str, Menu],
    now_ms: int,
    currency: str,
) -> bool:
    with database.write() as connection:
        menu_rows.hold_still(connection)
        row = folded(customer_rows.find(connection, customer_id, locked=True), now_ms)
        if row.status != "active" or (row.subscription is not None and row.subscription.is_open(now_ms)):
            return False
        stands = standing(row.terms(), timeline, now_ms)
        menu = published.get(stands.version or "")
        base, own = menu, own_prices(row.overrides)
        menu = None if base is None else base.with_prices(own)
        tier = menu.tier(stands.tier) if menu and stands.tier else None
        if base is None or menu is None or tier is None or tier.period_price_nanousd is None:
            return False
        start, until = period_at(row.period, row.timezone, now_ms)
        customer_rows.store(connection, row.subscribed(Subscription(tier.name, base.version, now_ms, until)))
        if tier.period_price_nanousd:
            booked = book(connection, [fee(row, menu, tier, start, now_ms, currency)])
            watermark.rise(booked)
        return True


def fee(row: CustomerRow, menu: Menu, tier: Tier, start: int, now_ms: int, currency: str) -> UsageRecord:
    """Return the record of one period's fee."""
    which = hashlib.sha256(f"{row.id}:{start}:{tier.name}".encode()).hexdigest()
    return posting(
        "fee",
        record_id=f"fee_{which[:40]}",
        customer=row.id,
        charge_nanousd=tier.period_price_nanousd or 0,
        currency=currency,
        now_ms=now_ms,
        tier=tier.name,
        menu_version=menu.version,
    )
