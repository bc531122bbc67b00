"""Paid periods: each fee once, and, where it is prorated, for the seconds for which a customer has its tier."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Select, insert, select

from gateway.admin.api.routes import AdminServices
from gateway.billing.charges import prorated
from gateway.billing.invoices import Issuer, drafted, finalised
from gateway.catalog.subscriptions import AT_ONCE, Subscriptions
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.tables import customers
from gateway.settings import Settings
from tests.gateway.admin.operator import NOON, Clock, Operator
from tests.gateway.ledger.records import customer_row

DAY_MS = 86_400_000
START = NOON - DAY_MS // 2
"""2026-11-01T00:00:00Z: November has 30 days."""
MONTH_MS = 30 * DAY_MS
PRICES = {"basic": 30_000_000_000, "pro": 90_000_000_001, "free": None}


@pytest.fixture
async def tiers(operator: Operator, clock: Clock) -> None:
    clock.ms = START - DAY_MS
    for name, price in PRICES.items():
        await operator.put(f"/admin/tiers/{name}", {"price_nanousd": 1, "period_price_nanousd": price})


def turn(services: AdminServices, clock: Clock, *, prorates: bool = True) -> int:
    settings = Settings(proration="time" if prorates else "none")
    return Subscriptions(services.database, services.redis, services.projection, settings).turn(clock.ms)


async def rows(operator: Operator, customer: str) -> list[tuple[str, str | None, int]]:
    found = (await operator.get(f"/admin/usage?customer={customer}&limit=1000"))["data"]
    return sorted((row["kind"], row["tier"], row["charge_nanousd"]) for row in found)


@pytest.mark.parametrize(("prorates", "due"), [(True, 7_000_000_000), (False, 30_000_000_000)])
async def test_a_subscription_that_begins_on_the_24th_pays_its_share(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None, prorates: bool, due: int
) -> None:
    """Where fees are prorated; from its next period on it pays the whole price, however late the period is opened."""
    clock.ms = START + 23 * DAY_MS
    customer = await operator.customer(tier="basic")
    first = [turn(services, clock, prorates=prorates) for _ in range(2)]
    clock.ms = START + MONTH_MS + 3_700
    second = [turn(services, clock, prorates=prorates) for _ in range(2)]

    assert (first, second) == ([1, 0], [1, 0])
    assert await rows(operator, customer) == [("fee", "basic", due), ("fee", "basic", 30_000_000_000)]


async def test_every_customer_pays_however_many_there_are(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    clock.ms = START
    names = [f"cus_{number:03}" for number in range(AT_ONCE + 1)]
    with services.database.write() as connection:
        connection.execute(insert(customers), [customer_row(name) | {"tier": "basic"} for name in names])

    assert [turn(services, clock) for _ in range(2)] == [len(names), 0]
    [total] = (await operator.get("/admin/totals?by=kind&period=2026-11"))["data"]
    assert (total["kind"], total["charge_nanousd"]) == ("fee", 30_000_000_000 * len(names))


async def test_a_change_of_tier_credits_what_is_left(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    """To the second, naming the fee; the new tier costs its share, and what was had of the old one stays paid."""
    clock.ms = START
    customer = await operator.customer(tier="basic")
    turn(services, clock)
    clock.ms = START + 10 * DAY_MS + 500
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "pro"})
    clock.ms += 1_700  # the bookkeeper is a little later
    assert [turn(services, clock) for _ in range(2)] == [1, 0]

    left_s = 20 * 86_400 - 1
    assert await rows(operator, customer) == [
        ("credit", "basic", -(30_000_000_000 * left_s // (30 * 86_400))),
        ("fee", "basic", 30_000_000_000),
        ("fee", "pro", 90_000_000_001 * left_s // (30 * 86_400)),
    ]
    found = (await operator.get(f"/admin/usage?customer={customer}"))["data"]
    credit = next(row for row in found if row["kind"] == "credit")
    fee = next(row for row in found if row["charge_nanousd"] == 30_000_000_000)
    assert credit["corrects"] == fee["id"]
    audited = (await operator.get(f"/admin/audit?target={customer}"))["data"][0]
    assert (audited["action"], audited["actor"]) == ("customer.credit", "tokencap")
    assert audited["after"]["reason"] == f"{left_s} of {30 * 86_400} seconds of a paid period are left."


@pytest.mark.parametrize("prorates", [True, False])
async def test_going_back_and_forth_pays_for_what_was_had(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None, prorates: bool
) -> None:
    """Without proration each tier is paid once a period, as often as it is taken, and nothing is credited."""
    clock.ms = START
    customer = await operator.customer(tier="basic")
    turn(services, clock, prorates=prorates)
    for tier in ("pro", "basic", "free"):
        clock.ms += DAY_MS
        await operator.put(f"/admin/customers/{customer}/tier", {"tier": tier})
        turn(services, clock, prorates=prorates)

    found = await rows(operator, customer)
    if prorates:
        assert sum(amount for *_, amount in found) == 1_000_000_000 + 3_000_000_000 + 1_000_000_000
        assert sorted(kind for kind, *_ in found) == ["credit"] * 3 + ["fee"] * 3
    else:
        assert found == [("fee", "basic", 30_000_000_000), ("fee", "pro", 90_000_000_001)]
    with services.database.read() as connection:
        assert connection.execute(select(customers.c.ended)).scalars().all() == [None]


class Slow(Subscriptions):
    """One that has found who is due when another process has already seen to them."""

    def __init__(self, services: AdminServices, clock: Clock) -> None:
        settings = Settings(proration="time")
        super().__init__(services.database, services.redis, services.projection, settings)
        self._others = partial(turn, services, Clock(clock.ms - 1_500))

    def _paged(self, query: Select[Any]) -> Iterator[list[str]]:
        for ids in super()._paged(query):
            self._others()
            yield ids


async def test_of_two_processes_that_see_the_same_customer_one_opens_its_period(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    clock.ms = START + 23 * DAY_MS
    customer = await operator.customer(tier="basic")
    clock.ms += 1_500

    assert Slow(services, clock).turn(clock.ms) == 0
    assert await rows(operator, customer) == [("fee", "basic", 7_000_000_000)]


async def test_what_was_credited_by_hand_is_not_credited_again(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    clock.ms = START
    customer = await operator.customer(tier="basic")
    turn(services, clock)
    fee = (await operator.get(f"/admin/usage?customer={customer}"))["data"][0]["id"]
    credit = {"amount_nanousd": 25_000_000_000, "reason": "Outage", "record": fee}
    await operator.post(f"/admin/customers/{customer}/credits", credit)
    clock.ms += DAY_MS
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": None})
    turn(services, clock)

    assert sum(amount for *_, amount in await rows(operator, customer)) == 0


async def test_a_fee_by_hand_is_not_taken_for_the_periods_fee(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    """The rest of a paid period is of the fee that paid for it, whatever else was charged since."""
    clock.ms = START
    customer = await operator.customer(tier="basic")
    turn(services, clock)
    clock.ms += DAY_MS
    await operator.post(f"/admin/customers/{customer}/fees", {"amount_nanousd": 500, "reason": "Set-up"})
    clock.ms = START + MONTH_MS // 2
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "free"})
    turn(services, clock)

    records = (await operator.get(f"/admin/usage?customer={customer}"))["data"]
    assert [(one["kind"], one["tier"], one["charge_nanousd"]) for one in records] == [
        *(("fee", "basic", 30_000_000_000), ("fee", None, 500), ("credit", "basic", -15_000_000_000)),
    ]


async def test_a_tier_of_the_next_period_is_paid_for_once_it_begins(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    clock.ms = START
    customer = await operator.customer(tier="free")
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "basic", "effective": "next_period"})
    before = turn(services, clock)
    clock.ms = START + MONTH_MS

    assert (before, turn(services, clock)) == (0, 1)
    assert await rows(operator, customer) == [("fee", "basic", 30_000_000_000)]


@pytest.mark.parametrize(("credited", "due"), [(0, 15_000_000_000), (29_000_000_000, 1_000_000_000)])
async def test_the_rest_of_an_invoiced_period_is_credited_with_a_note(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None, credited: int, due: int
) -> None:
    """At most what is left of the invoice; the note has the reason."""
    clock.ms = START
    customer = await operator.customer(tier="basic")
    turn(services, clock)
    clock.ms = START + MONTH_MS // 2
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "free"})
    clock.ms = START + MONTH_MS + DAY_MS
    with services.database.write() as connection:
        close(connection, list(months_of(services.database, "2026-11", customer)), clock.ms)
    [month] = months_of(services.database, "2026-11", customer)
    finalised(services.database, month, Issuer((), (), "", "USD"), Terms(services.database), clock)
    if credited:
        body = {"amount_nanousd": credited, "reason": "Outage", "invoice": f"inv_2026-11_{customer}"}
        await operator.post(f"/admin/customers/{customer}/credits", body)
    turn(services, clock)

    note = (await operator.get("/admin/credit-notes"))["data"][-1]
    assert (note["invoice"]["month"], note["amount_nanousd"]) == ("2026-11", due)
    assert note["reason"].startswith("1296000 of 2592000 seconds")


async def test_random_changes_cost_what_the_seconds_of_each_tier_cost(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    """By fractions, each row is less than one nano-unit off; the draft of the month adds up to the same."""
    draw = random.Random(7)
    due: dict[str, Fraction] = {}
    for _ in range(4):
        clock.ms = START
        tier = draw.choice(list(PRICES))
        customer, since = await operator.customer(tier=tier), START
        turn(services, clock)
        exact = Fraction(0)
        for moment in [*sorted(draw.sample(range(START + 1, START + MONTH_MS), 8)), START + MONTH_MS]:
            seconds = (START + MONTH_MS - since) // 1000 - (START + MONTH_MS - moment) // 1000
            exact += Fraction((PRICES[tier] or 0) * seconds, MONTH_MS // 1000)
            if moment < START + MONTH_MS:
                clock.ms = moment
                tier, since = draw.choice([name for name in PRICES if name != tier]), moment
                await operator.put(f"/admin/customers/{customer}/tier", {"tier": tier})
                turn(services, clock)
        due[customer] = exact

    for month in months_of(services.database, "2026-11"):
        found = await rows(operator, month.customer)
        invoice = drafted(services.database, month, Issuer((), (), "", "USD"), Terms(services.database))
        assert invoice is not None
        assert abs(sum(amount for *_, amount in found) - due[month.customer]) < len(found)
        assert invoice["total_nanousd"] == sum(amount for *_, amount in found)
        units = {line["unit"] for line in invoice["lines"] if line["kind"] == "subscription"}
        assert units <= {"period", "part of a period"}
    assert verify_chain(services.database) is not None


@pytest.mark.parametrize(
    ("part_ms", "due"), [(0, 0), (999, 0), (1_000, 3), (1_999, 3), (2_000, 6), (3_000, 10), (3_999, 10)]
)
def test_a_share_is_of_whole_seconds_and_rounded_down(part_ms: int, due: int) -> None:
    assert prorated(10, part_ms, 3_000) == due


async def test_a_line_says_that_it_is_for_part_of_a_period(
    operator: Operator, services: AdminServices, clock: Clock, tiers: None
) -> None:
    clock.ms = START + 23 * DAY_MS
    customer = await operator.customer(tier="basic")
    turn(services, clock)
    month = next(one for one in months_of(services.database, "2026-11") if one.customer == customer)
    invoice: Any = drafted(services.database, month, Issuer((), (), "", "USD"), Terms(services.database))

    assert [(line["unit"], line["unit_nanousd"]) for line in invoice["lines"]] == [("part of a period", 7_000_000_000)]
