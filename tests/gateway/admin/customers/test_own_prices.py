"""Prices of a customer's own: in the place of its tier's, in records and invoices, and without the certificate's claim."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoices import Issuer, drafted
from gateway.catalog.projector import CatalogProjector
from gateway.catalog.subscriptions import Subscriptions
from gateway.holds.offer import HouseLimits, Offer, offer
from gateway.ledger.billing.closings import months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.appender import append
from tests.gateway.admin.operator import NOON, Clock, Hot, Operator, fields_of
from tests.gateway.ledger.records import record

OWN = {"price_nanousd": 700, "output_nanousd_per_mtok": 5_000_000}
TIER = {"price_nanousd": 900, "output_nanousd_per_mtok": 7_000_000, "conversation_tokens_max": 4_000}


async def in_force(operator: Operator) -> dict[str, Any]:
    menus = (await operator.get("/admin/menus"))["data"]
    found: dict[str, Any] = next(menu for menu in menus if menu["in_force"])
    return found


def offered(services: AdminServices, hot: Hot, customer: str, version: str) -> Offer:
    """Return the terms of a customer's next call, as the serving path works them out."""
    found = hot.customer(customer)
    assert found is not None
    tier = Terms(services.database)(version, found.tier)
    return offer(tier, version, found.overrides, HouseLimits.of(services.settings))


async def test_own_prices_are_in_the_place_of_the_tiers(operator: Operator, services: AdminServices, hot: Hot) -> None:
    """For that customer alone, at once and after Redis lost everything; the menu and the customer say so."""
    await operator.put("/admin/tiers/t1", TIER)
    customer, other = [await operator.customer(tier="t1") for _ in range(2)]
    menu = (await in_force(operator))["version"]
    shown = await operator.patch(f"/admin/customers/{customer}", {"overrides": {**OWN, "concurrency_max": 3}})
    now = offered(services, hot, customer, menu)
    services.redis.flushall()
    CatalogProjector(services.database, services.projection).write_customers([customer, other])

    assert shown["certificate_withdrawn"] and shown["overrides"] == {**OWN, "concurrency_max": 3}
    assert (now.price_nanousd, now.output_nanousd_per_mtok, now.input_nanousd_per_mtok) == (700, 5_000_000, 0)
    assert (now.version, now.conversation_tokens_max, now.concurrency_max) == (f"{menu}+c700,o5000000", 4_000, 3)
    assert offered(services, hot, customer, menu) == now
    assert offered(services, hot, other, menu).version == menu
    assert not (await operator.get(f"/admin/customers/{other}"))["certificate_withdrawn"]
    assert (await in_force(operator))["own_prices"] == 1
    whole = await operator.get(f"/admin/menus/{now.version}")
    assert (whole["version"], whole["certificate"], whole["tiers"][0]["price_nanousd"]) == (now.version, None, 700)
    assert (await operator.refused("GET", "/admin/menus/no+c700"))["status"] == 404
    audited = (await operator.get(f"/admin/audit?target={customer}"))["data"][0]
    assert (audited["before"]["certificate_withdrawn"], audited["after"]["overrides"]["price_nanousd"]) == (False, 700)
    await operator.patch(f"/admin/customers/{customer}", {"overrides": None})
    assert (await in_force(operator))["own_prices"] == 0


async def test_an_invoice_cites_the_own_unit_price(operator: Operator, services: AdminServices, hot: Hot) -> None:
    """A call that was admitted before has the price that it was admitted under, on a line of its own."""
    await operator.put("/admin/tiers/t1", TIER)
    customer = await operator.customer(tier="t1")
    menu = (await in_force(operator))["version"]
    before = offered(services, hot, customer, menu)
    await operator.patch(f"/admin/customers/{customer}", {"overrides": OWN})
    terms = [before, *(2 * [offered(services, hot, customer, menu)])]
    charges = [one.price_nanousd + one.output_nanousd_per_mtok // 1_000 for one in terms]
    calls = [
        record(
            number,
            customer=customer,
            time=NOON,
            settled=NOON + 500,
            tier="t1",
            menu_version=one.version,
            charge_nanousd=due,
            billed_output_tokens=1_000,
            conversation_is_included=None,
        )
        for number, (one, due) in enumerate(zip(terms, charges, strict=True), start=1)
    ]
    append(services.database, calls)

    month = next(one for one in months_of(services.database, "2026-11") if one.customer == customer)
    invoice = drafted(services.database, month, Issuer((), (), "", "USD"), Terms(services.database))

    assert invoice is not None
    lines = [(one["kind"], one["menu_version"], one["unit_nanousd"], one["amount_nanousd"]) for one in invoice["lines"]]
    own = f"{menu}+c700,o5000000"
    assert lines == [
        *(("conversations", menu, 900, 900), ("conversations", own, 700, 1_400)),
        *(("output", menu, 7_000_000, 7_000), ("output", own, 5_000_000, 10_000)),
    ]
    assert invoice["total_nanousd"] == sum(charges)


@pytest.mark.parametrize("tier_price", [None, 5_000])
async def test_a_price_of_its_own_for_each_period(
    operator: Operator, services: AdminServices, clock: Clock, tier_price: int | None
) -> None:
    """It takes the place of the tier's, and makes a subscription of a tier without; another is due from the next period on."""
    await operator.put("/admin/tiers/t1", {**TIER, "period_price_nanousd": tier_price})
    customer = await operator.customer(tier="t1", overrides={"period_price_nanousd": 3_000})

    def opened() -> int:
        return Subscriptions(services.database, services.redis, services.projection, services.settings).turn(clock.ms)

    first = opened()
    await operator.patch(f"/admin/customers/{customer}", {"overrides": {"period_price_nanousd": 2_000}})
    again = opened()
    clock.ms = NOON + 30 * 86_400_000
    then = opened()

    fees = (await operator.get(f"/admin/usage?customer={customer}"))["data"]
    assert (first, again, then) == (1, 0, 1)
    assert [(fee["charge_nanousd"], fee["menu_version"].partition("+")[2]) for fee in fees] == [
        *((3_000, "p3000"), (2_000, "p2000")),
    ]


@pytest.mark.parametrize(
    ("prices", "field"),
    [
        ({"price_nanousd": -1}, "overrides.price_nanousd"),
        ({"price_nanousd": 1.5}, "overrides.price_nanousd"),
        ({"included_conversations": 3}, "overrides.included_conversations"),
        (
            {
                **dict.fromkeys(("price_nanousd", "period_price_nanousd"), 10**15),
                **dict.fromkeys(("input_nanousd_per_mtok", "output_nanousd_per_mtok"), 10**15),
            },
            "overrides",
        ),
    ],
)
async def test_own_prices_are_whole_and_fit_into_a_version(
    operator: Operator, prices: dict[str, Any], field: str
) -> None:
    customer = await operator.customer()
    path = f"/admin/customers/{customer}"

    assert fields_of(await operator.refused("PATCH", path, {"overrides": prices})) == {field}
