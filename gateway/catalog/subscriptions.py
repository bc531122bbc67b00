"""Opens paid periods of subscriptions when they are due: books the fee, and fixes the customer's menu for the period.

Where fees are prorated, the rest of a paid period that ended early is credited in the same transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import redis
from sqlalchemy import Connection, Select, or_, select, text

from gateway.billing.charges import prorated
from gateway.billing.credit_note_page import credit_note
from gateway.billing.invoices import Issuer
from gateway.billing.postings import posting
from gateway.catalog import audit_rows, customer_rows, menu_rows
from gateway.catalog.customer_rows import CustomerRow, folded
from gateway.catalog.projector import project_customers
from gateway.holds.periods import period_at
from gateway.holds.store.projection import Projection
from gateway.holds.terms import Subscription, Timeline, standing
from gateway.ledger.billing.adjustment_reasons import Adjustment, creditable, note
from gateway.ledger.billing.issued_notes import InvoicePending, invoice_of_record, issue
from gateway.ledger.book.appender import book
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.tables import OWN_PERIOD_PRICE, customers, menus, usage_records
from gateway.settings import Settings
from pricing.menus.menu import Menu, Tier, own_prices
from pricing.usage import UsageRecord

AT_ONCE = 100
ACTOR = "tokencap"
ENDED = text("ended IS NOT NULL")
"""Has the wording of the partial index."""


class Subscriptions:
    """Settles each customer in its own transaction: several processes may run this, and a kill loses nothing."""

    def __init__(self, database: Database, client: redis.Redis, projection: Projection, settings: Settings) -> None:
        self._database = database
        self._projection = projection
        self._watermark = Watermark(client)
        self._currency = settings.currency
        self._issuer = Issuer.of(settings)
        self._prorates = settings.proration == "time"

    def turn(self, now_ms: int) -> int:
        """Open the period of every active customer whose tier has a period price and who has not paid for this period.

        Each fee is charged once, however many processes do this, and however often. A period in which no bookkeeper ran
        is not charged later. Paid periods that ended early are settled, too. Return the number of changed customers.

        Raises:
            MeteringUnavailable: Redis or the ledger is unavailable; call this again later.
        """
        with self._database.read() as connection:
            timeline = menu_rows.still_needed(menu_rows.read_timeline(connection))
            bodies = select(menus.c.body).where(menus.c.version.in_(timeline.versions))
            listed = [Menu.from_json(json.loads(body)) for body in connection.execute(bodies).scalars()]
        published = {menu.version: menu for menu in listed}
        names = {tier.name for menu in listed for tier in menu.tiers if tier.period_price_nanousd is not None}
        if names:
            names |= {old for publication in timeline.publications for old in publication.moves}
        count = 0
        for query in (select(customers.c.id).where(ENDED), *_due(names, now_ms)):
            for ids in self._paged(query):
                settled = [
                    customer_id for customer_id in ids if self._settled(customer_id, timeline, published, now_ms)
                ]
                project_customers(self._database, self._projection, settled)
                count += len(settled)
        return count

    def _paged(self, query: Select[Any]) -> Iterator[list[str]]:
        last = ""
        while True:
            with self._database.read() as connection:
                page = query.where(customers.c.id > last).order_by(customers.c.id).limit(AT_ONCE)
                ids = list(connection.execute(page).scalars())
            if ids:
                yield ids
            if len(ids) < AT_ONCE:
                return
            last = ids[-1]

    def _settled(self, customer_id: str, timeline: Timeline, published: Mapping[str, Menu], now_ms: int) -> bool:
        try:
            return self._settle(customer_id, timeline, published, now_ms)
        except InvoicePending:  # the credit is for a month whose invoice is about to be final
            return False

    def _settle(self, customer_id: str, timeline: Timeline, published: Mapping[str, Menu], now_ms: int) -> bool:
        """Credit the rest of a customer's paid period that ended early, and open the period that is due."""
        with self._database.write() as connection:
            menu_rows.hold_still(connection)
            row = folded(customer_rows.find(connection, customer_id, locked=True), now_ms)
            postings, after = list[UsageRecord](), replace(row, ended=None)
            if row.ended is not None and self._prorates:
                postings += self._refund(connection, row, row.ended, now_ms)
            if row.status == "active" and (row.subscription is None or not row.subscription.is_open(now_ms)):
                after, fees = self._opened(row, after, timeline, published, now_ms)
                postings += fees
            if after == row:
                return False
            customer_rows.store(connection, after)
            if postings:
                self._watermark.rise(book(connection, postings))
        return True

    def _opened(
        self, row: CustomerRow, after: CustomerRow, timeline: Timeline, published: Mapping[str, Menu], now_ms: int
    ) -> tuple[CustomerRow, list[UsageRecord]]:
        """Return a customer with its period paid, and the fee; no change and no fee if its tier has no period price."""
        stands = standing(row.terms(), timeline, now_ms)
        base = published.get(stands.version or "")
        menu = None if base is None else base.with_prices(own_prices(row.overrides))
        tier = menu.tier(stands.tier) if menu and stands.tier else None
        if base is None or menu is None or tier is None or tier.period_price_nanousd is None:
            return after, []
        start, until = period_at(row.period, row.timezone, now_ms)
        begins, period_mark, due = now_ms, str(start), tier.period_price_nanousd
        if self._prorates:
            begins = _begins(row, start, now_ms)
            # A tier that was already paid and credited in this period is due again, with a fee of its own.
            period_mark = str(begins) if row.ended is None else f"{begins}:{row.rev}"
            due = prorated(due, until - begins, until - start)
        fees = [fee(row, menu, tier, period_mark, due, now_ms, self._currency)] if due else []
        return after.subscribed(Subscription(tier.name, base.version, begins, until)), fees

    def _refund(
        self, connection: Connection, row: CustomerRow, ended: Mapping[str, Any], now_ms: int
    ) -> list[UsageRecord]:
        """Return the credit for the rest of a paid period; an empty list where nothing of its fee is left to credit."""
        columns = usage_records.c
        last = (
            select(columns.id, columns.charge_nanousd)
            .where(columns.customer == row.id, columns.time >= ended["start"], columns.time < ended["until"])
            .where(columns.kind == "fee", columns.tier == ended["tier"])
            .order_by(columns.time.desc(), columns.id)
            .limit(1)
        )
        last_fee = connection.execute(last).one_or_none()
        credited = None if last_fee is None else creditable(connection, row.id, last_fee.id)
        if last_fee is None or credited is None:
            return []
        left_ms, period_ms = ended["until"] - ended["at"], ended["until"] - ended["start"]
        invoice = invoice_of_record(connection, row.id, last_fee.id)
        amount_max = credited.left_nanousd if invoice is None else min(credited.left_nanousd, invoice.left_nanousd)
        amount = min(prorated(last_fee.charge_nanousd, left_ms, period_ms), amount_max)
        if amount <= 0:
            return []
        reason = f"{left_ms // 1000} of {period_ms // 1000} seconds of a paid period are left."
        record_id = f"crd_{hashlib.sha256(last_fee.id.encode()).hexdigest()[:40]}"
        note(connection, Adjustment(record_id, row.id, last_fee.id, reason, ACTOR, now_ms))
        facts = {"id": record_id, "amount_nanousd": amount, "reason": reason, "record": last_fee.id}
        audited = audit_rows.Audited(now_ms, ACTOR, "customer.credit", row.id, None, facts)
        audit_rows.record_all(connection, [audited])
        credit = posting(
            "credit",
            record_id=record_id,
            customer=row.id,
            charge_nanousd=-amount,
            currency=self._currency,
            now_ms=now_ms,
            tier=credited.tier,
            menu_version=credited.menu_version,
            corrects=last_fee.id,
        )
        if invoice is not None:
            issue(connection, credit_note(credit, invoice, self._issuer), numbered=self._issuer.note_numbered)
        return [credit]


def _begins(row: CustomerRow, start: int, now_ms: int) -> int:
    """Return when the paid part of the period from ``start`` begins: at the end of the last paid period, or now."""
    if row.ended is not None:
        return min(max(int(row.ended["at"]), start), now_ms)
    paid = row.subscription
    return paid.until if paid is not None and start <= paid.until <= now_ms else now_ms


def _due(names: set[str], now_ms: int) -> Iterator[Select[Any]]:
    """Yield queries for customers that may have to pay for a period, by their tier and by a price of their own."""
    until = customers.c.subscription_until
    unpaid = customers.c.status == "active", or_(until.is_(None), until <= now_ms)
    if names:
        has_tier = or_(customers.c.tier.in_(names), customers.c.next_tier.in_(names))
        yield select(customers.c.id).where(*unpaid, has_tier)
    yield select(customers.c.id).where(*unpaid, OWN_PERIOD_PRICE)


def fee(
    row: CustomerRow, menu: Menu, tier: Tier, period_mark: str, amount_nanousd: int, now_ms: int, currency: str
) -> UsageRecord:
    """Return the record of a fee; ``period_mark`` distinguishes it from the customer's other fees for the tier."""
    digest = hashlib.sha256(f"{row.id}:{period_mark}:{tier.name}".encode()).hexdigest()
    return posting(
        "fee",
        record_id=f"fee_{digest[:40]}",
        customer=row.id,
        charge_nanousd=amount_nanousd,
        currency=currency,
        now_ms=now_ms,
        tier=tier.name,
        menu_version=menu.version,
    )
