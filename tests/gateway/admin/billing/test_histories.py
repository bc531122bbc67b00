"""Random histories of customers: whatever was bought, changed, credited and closed in whatever order, all sums are the same."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoice_book import InvoiceBook
from gateway.billing.invoices import Issuer
from gateway.billing.totals import FIELD_OF, SUMMED, totals_by
from gateway.catalog.subscriptions import Subscriptions
from gateway.exports.formats import FORMATS
from gateway.holds.offer import HouseLimits, charge, offer
from gateway.ledger.billing.closings import bounds_of
from gateway.ledger.billing.counted import Month, records_counted_in
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.read.queries import Span, usage_records_in
from gateway.settings import Settings
from tests.gateway.admin.billing.test_invoices import booked
from tests.gateway.admin.operator import Clock, Hot, Operator
from tests.gateway.ledger.records import record

HOUR_MS = 3_600_000
ZONES = ("Europe/Berlin", "Australia/Lord_Howe", "Pacific/Kiritimati", "America/New_York", "Asia/Kathmandu", "UTC")
MONTHS = ("2026-09", "2026-10", "2026-11", "2026-12")
"""In October and November clocks are set."""
TIERS = {
    "small": {"price_nanousd": 900, "output_nanousd_per_mtok": 7_777_777, "input_nanousd_per_mtok": 333_333},
    "large": {"period_price_nanousd": 86_400_000_001, "price_nanousd": 70, "included_conversations": 2},
    "huge": {"period_price_nanousd": 7, "output_nanousd_per_mtok": 1},
}
ENDINGS = ("complete", "tool_calls", "cap", "caller_limit", "context", "filtered", "period", "disconnect", "recovered")
BEGAN, STEPS = bounds_of("2026-09", "UTC")[1] - 20 * 24 * HOUR_MS, 80


class History:
    """What happens to six customers in some weeks, drawn at random."""

    def __init__(self, seed: int, operator: Operator, services: AdminServices, hot: Hot, clock: Clock) -> None:
        self.draw = random.Random(seed)
        self.operator, self.services, self.hot, self.clock = operator, services, hot, clock
        settings = Settings(proration=self.draw.choice(("none", "time")))
        self.subscriptions = Subscriptions(services.database, services.redis, services.projection, settings)
        self.calls: dict[str, list[str]] = defaultdict(list)
        self.customers: list[str] = []

    async def begin(self) -> None:
        for name, tier in TIERS.items():
            await self.operator.put(f"/admin/tiers/{name}", tier)
        for zone in ZONES:
            self.customers.append(await self.operator.customer(tier=self.draw.choice(list(TIERS)), timezone=zone))

    async def step(self) -> None:
        self.clock.ms += self.draw.choice((1, 700, HOUR_MS, 40 * HOUR_MS, 60 * HOUR_MS))
        customer = self.draw.choice(self.customers)
        happens = self.draw.choices(
            (self.call, self.upgrade, self.own, self.credit, self.fee, self.prepaid, self.close), (9, 3, 1, 3, 1, 1, 2)
        )
        await happens[0](customer)
        self.subscriptions.turn(self.clock.ms)

    async def call(self, customer: str) -> None:
        """Book a call under the terms of its admission, sometimes weeks late, and sometimes its correction."""
        found = self.hot.customer(customer)
        assert found is not None
        version = (await self.operator.get(f"/admin/customers/{customer}"))["menu_version"]
        tier = Terms(self.services.database)(version, found.tier)
        terms = offer(tier, version, found.overrides, HouseLimits.of(self.services.settings))
        tokens, input_tokens = self.draw.choice((0, 1, 999, 4_001)), self.draw.randrange(5_000)
        rates = terms.price_nanousd, terms.input_nanousd_per_mtok, terms.output_nanousd_per_mtok
        due, number = charge(*rates, tokens=tokens, input_tokens=input_tokens), len(self.calls[customer])
        is_included, pays = self.draw.choices(((True, False), (False, True), (None, False)))[0]
        at = self.clock.ms - self.draw.choice((0, 5, HOUR_MS, 0, 0, 15 * 24 * HOUR_MS))
        call = record(
            number,
            **{"id": f"{customer}-{number}", "customer": customer, "tier": terms.tier, "menu_version": terms.version},
            **{"time": at, "settled": self.clock.ms, "conversation": f"c{self.draw.randrange(3)}"},
            **{"billed_output_tokens": tokens, "output_tokens": tokens, "input_tokens": input_tokens},
            **{"charge_nanousd": due.first if pays else due.again, "conversation_is_included": is_included},
            **{"finish": self.draw.choice(ENDINGS), "end_user": self.draw.choice((None, "ann", "bob"))},
            **{"key_id": self.draw.choice(("key_1", "key_2"))},
        )
        self.calls[customer].append(call["id"])
        more = {"id": f"{call['id']}.1", "kind": "correction", "corrects": call["id"], "charge_nanousd": 3}
        booked(self.services, call, *([{**call, **more}] if self.draw.random() < 0.1 else []))

    async def upgrade(self, customer: str) -> None:
        tier = self.draw.choice((*TIERS, None))
        change = {"tier": tier, "effective": self.draw.choice(("now", "next_period"))}
        await self.operator.put(f"/admin/customers/{customer}/tier", change)

    async def own(self, customer: str) -> None:
        prices = self.draw.choice(
            ({}, {"price_nanousd": 5}, {"period_price_nanousd": 11, "output_nanousd_per_mtok": 13})
        )
        await self.operator.patch(f"/admin/customers/{customer}", {"overrides": prices})

    async def credit(self, customer: str) -> None:
        """Credit a record, an invoice or nothing by name; what is more than is left of it is refused."""
        invoice = f"inv_{self.draw.choice(MONTHS)}_{customer}"
        named = self.draw.choice(({}, {"invoice": invoice}, {"record": self.draw.choice([*self.calls[customer], "x"])}))
        body = {"amount_nanousd": self.draw.choice((1, 50, 800)), "reason": "x", **named}
        answer = await self.operator.send("POST", f"/admin/customers/{customer}/credits", body)
        assert answer.status_code in (201, 422), answer.text

    async def fee(self, customer: str) -> None:
        body = {"amount_nanousd": self.draw.randrange(1, 10**12), "reason": "x"}
        await self.operator.post(f"/admin/customers/{customer}/fees", body)

    async def prepaid(self, customer: str) -> None:
        body = {"amount_nanousd": self.draw.randrange(1, 10**11), "reason": "x"}
        await self.operator.post(f"/admin/customers/{customer}/prepaid", body)

    async def close(self, _customer: str) -> None:
        await self.operator.post(f"/admin/periods/{self.draw.choice(MONTHS)}/close")


@pytest.fixture
def clock() -> Clock:
    return Clock(BEGAN)


@pytest.mark.parametrize("seed", range(2))
async def test_all_sums_are_the_same(
    operator: Operator, services: AdminServices, hot: Hot, clock: Clock, seed: int
) -> None:
    """By record, customer, tier, key, end user, day, kind, menu version, conversation, invoice and export; what is closed stays."""
    history, database = History(seed, operator, services, hot, clock), services.database
    await history.begin()
    finals: dict[str, Any] = {}
    for _ in range(STEPS):
        await history.step()
        for one in (await operator.get("/admin/invoices?status=final&limit=1000"))["data"]:
            assert finals.setdefault(one["id"], one) == one

    records = list(usage_records_in(database, Span()))
    whole = {name: sum(one[name] for one in records) for name in SUMMED}
    months = [Month(database, name) for name in MONTHS]
    for by in FIELD_OF:
        groups = [group for month in months for group in totals_by(database, by, Span(), month)]
        assert {name: sum(group[name] for group in groups) for name in SUMMED} == whole, by
    book = InvoiceBook(database, Issuer.of(services.settings), clock)
    shown = [one for name in MONTHS for one in book.of_month(name, customer=None, status=None, after="", limit=99).data]
    assert sum(one["total_nanousd"] for one in shown) == whole["charge_nanousd"]
    assert all(sum(line["amount_nanousd"] for line in one["lines"]) == one["total_nanousd"] for one in shown)
    assert sum(one["records"] for one in shown) == len(records)
    for customer in history.customers:
        await is_carried(operator, customer, [one for one in records if one["customer"] == customer])
    exported = [
        json.loads(line)
        for month in months
        for chunk in FORMATS["jsonl"].encode(records_counted_in(database, Span(), month))
        for line in chunk.splitlines()
    ]
    assert {name: sum(one[name] for one in exported) for name in SUMMED} == whole
    numbers = sorted(int(one["number"]) for one in finals.values())
    assert numbers == list(range(1, len(numbers) + 1)) and numbers
    notes = (await operator.get("/admin/credit-notes?limit=1000"))["data"]
    assert [one["number"] for one in notes] == [f"CN-{place:06d}" for place in range(1, len(notes) + 1)]
    for final in finals.values():
        credited = sum(one["amount_nanousd"] for one in notes if one["invoice"]["id"] == final["id"])
        assert 0 <= credited <= max(final["total_nanousd"], 0)
    assert verify_chain(database).is_sound


async def is_carried(operator: Operator, customer: str, records: list[Any]) -> None:
    """Check that a customer's prepaid credit is carried from invoice to invoice, and that none is lost or made."""
    shown = (await operator.get(f"/admin/customers/{customer}/invoices"))["data"]
    invoices = sorted(shown, key=lambda one: one["period"]["month"])
    left, due = 0, 0
    for one in invoices:
        prepaid = one["prepaid"] or dict.fromkeys(("before", "added", "drawn", "left"), 0)
        of = {name.removesuffix("_nanousd"): amount for name, amount in prepaid.items()}
        assert of["before"] == left
        assert of["before"] + of["added"] == of["drawn"] + of["left"]
        left, owed = of["left"], one["total_nanousd"] - of["drawn"]
        assert one["prepaid"] is None or (owed, left * owed) == (of["due"], 0)
        due += owed
    added = sum(one.get("prepaid_nanousd", 0) for one in records)
    assert due == sum(one["charge_nanousd"] for one in records) - added + left
    assert (await operator.get(f"/admin/customers/{customer}/prepaid"))["left_nanousd"] == left
