"""Limits that are raised for a time: above what they are, until a moment, with a reason; then they are as before."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from gateway.admin.api.routes import AdminServices
from gateway.catalog.increase_end import end_due
from gateway.catalog.projector import CatalogProjector
from gateway.ledger.tables import customers
from tests.gateway.admin.operator import NOON, Clock, Hot, Operator, fields_of

DAY_MS = 86_400_000
UNTIL = NOON + DAY_MS
RAISED = {"period_tokens_max": 2_000, "until": UNTIL, "reason": "Launch of Acme"}


@pytest.fixture
async def acme(operator: Operator) -> str:
    """A customer whose tier limits the tokens of a period, and which itself limits its spend."""
    await operator.put("/admin/tiers/small", {"period_tokens_max": 1_000})
    return await operator.customer(name="Acme", tier="small", overrides={"spend_nanousd_max": 500})


def limits(hot: Hot, customer: str, moment: int = NOON) -> dict[str, int]:
    """Return the limits of a customer's own that the serving path has, and those that are raised at a moment."""
    found = hot.customer(customer)
    assert found is not None
    return found.overrides | found.raised(moment)


async def test_raised_limits_hold_until_their_end(
    operator: Operator, services: AdminServices, hot: Hot, clock: Clock, acme: str
) -> None:
    """The serving path has them at once, and its own again when the time is over."""
    shown = await operator.put(f"/admin/customers/{acme}/increase", {**RAISED, "spend_nanousd_max": 900})
    raised = limits(hot, acme)
    clock.ms = UNTIL - 1
    before = (end_due(services.database, services.projection, clock.ms), limits(hot, acme, UNTIL - 1))
    clock.ms = UNTIL
    over = (limits(hot, acme, UNTIL), (await operator.get(f"/admin/customers/{acme}"))["increase"])
    after = (end_due(services.database, services.projection, clock.ms), limits(hot, acme))

    assert shown["increase"] == {
        **{"limits": {"period_tokens_max": 2_000, "spend_nanousd_max": 900}, "reason": RAISED["reason"]},
        "until": "2026-11-02T12:00:00.000Z",
    }
    assert shown["overrides"] == {"spend_nanousd_max": 500}
    assert raised == {"period_tokens_max": 2_000, "spend_nanousd_max": 900}
    assert (before, after) == ((0, raised), (1, {"spend_nanousd_max": 500}))
    assert over == ({"spend_nanousd_max": 500}, None)
    rows = (await operator.get(f"/admin/audit?target={acme}"))["data"]
    assert [row["action"] for row in rows[:2]] == ["customer.increase_ended", "customer.increase"]


async def test_an_increase_can_be_ended_and_replaced(operator: Operator, hot: Hot, acme: str) -> None:
    path = f"/admin/customers/{acme}/increase"
    await operator.put(path, RAISED)
    await operator.put(path, {**RAISED, "period_tokens_max": 1_500})
    replaced = limits(hot, acme)
    for _ in range(2):
        await operator.delete(path)

    assert replaced == {"period_tokens_max": 1_500, "spend_nanousd_max": 500}
    assert limits(hot, acme) == {"spend_nanousd_max": 500}


async def test_a_change_of_the_customer_leaves_the_increase(operator: Operator, hot: Hot, acme: str) -> None:
    await operator.put(f"/admin/customers/{acme}/increase", RAISED)
    await operator.patch(f"/admin/customers/{acme}", {"overrides": {"concurrency_max": 3}})

    assert limits(hot, acme) == {"period_tokens_max": 2_000, "concurrency_max": 3}


async def test_a_redis_that_lost_everything_is_told_of_it_again(
    operator: Operator, services: AdminServices, hot: Hot, acme: str
) -> None:
    await operator.put(f"/admin/customers/{acme}/increase", RAISED)
    services.redis.flushall()

    CatalogProjector(services.database, services.projection).write_customers([acme])

    assert limits(hot, acme) == {"period_tokens_max": 2_000, "spend_nanousd_max": 500}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({"period_tokens_max": 1_000}, "period_tokens_max"), ({"spend_nanousd_max": 500}, "spend_nanousd_max")),
        *(({"concurrency_max": 5}, "concurrency_max"), ({"until": NOON}, "until"), ({"reason": ""}, "reason")),
        *(({"period_tokens_max": None}, ""), ({"price_nanousd": 5}, "price_nanousd")),
    ],
)
async def test_what_raises_nothing_is_refused(
    operator: Operator, acme: str, change: dict[str, Any], field: str
) -> None:
    assert fields_of(await operator.refused("PUT", f"/admin/customers/{acme}/increase", RAISED | change)) == {field}


async def test_an_increase_is_of_a_customer_that_is_there(operator: Operator, acme: str) -> None:
    assert (await operator.refused("PUT", "/admin/customers/cus_x/increase", RAISED))["status"] == 404
    assert (await operator.refused("DELETE", "/admin/customers/cus_x/increase"))["status"] == 404
    await operator.delete(f"/admin/customers/{acme}")
    assert (await operator.refused("PUT", f"/admin/customers/{acme}/increase", RAISED))["code"] == "customer_deleted"


async def test_erasing_forgets_the_reason(operator: Operator, services: AdminServices, acme: str) -> None:
    await operator.put(f"/admin/customers/{acme}/increase", RAISED)

    await operator.delete(f"/admin/customers/{acme}?erase=true")

    rows = (await operator.get(f"/admin/audit?target={acme}"))["data"]
    assert "Acme" not in str(rows)
    with services.database.read() as connection:
        assert connection.execute(select(customers.c.increase, customers.c.increase_until)).one() == (None, None)
