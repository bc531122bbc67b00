"""Tiers typed by hand: each change is a new menu, in force at once, that claims nothing of a mechanism."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import select

from gateway.admin.api.routes import AdminServices
from gateway.admin.menus.tiers import TierShown
from gateway.catalog import menu_rows
from gateway.ledger.database import Database
from gateway.ledger.tables import menus, publications
from pricing.menus.menu import Tier
from pricing.money import MOST
from tests.gateway.admin.operator import MONDAY, NOON, Clock, Hot, Operator, fields_of

CAPPED = {"conversation_tokens_max": 300, "price_nanousd": 2_000_000}


async def names(operator: Operator) -> list[str]:
    return [tier["name"] for tier in (await operator.get("/admin/tiers"))["data"]]


async def test_before_the_first_tier_there_is_none(operator: Operator) -> None:
    assert await operator.get("/admin/tiers") == {"data": [], "next_cursor": None, "menu_version": None}
    assert (await operator.refused("GET", "/admin/tiers/basic"))["code"] == "not_found"


async def test_a_tier_is_in_force_at_once(operator: Operator, hot: Hot, database: Database) -> None:
    shown = await operator.put("/admin/tiers/basic", CAPPED)

    version = shown["menu_version"]
    (publication,) = hot.timeline().publications
    assert (publication.version, publication.at, publication.effective) == (version, NOON, "now")
    assert hot.menu(version)["tiers"] == [{"name": "basic", **CAPPED}]
    assert hot.menu(version)["bill"] == "conversation"
    assert await operator.get("/admin/tiers/basic") == shown
    with database.read() as connection:
        assert connection.execute(select(menus.c.version, menus.c.source)).all() == [(version, "manual")]


async def test_a_tier_is_shown_with_all_that_it_may_have(operator: Operator) -> None:
    everything = {
        "conversation_tokens_max": 1,
        "price_nanousd": 2,
        "period_tokens_max": 3,
        "period_price_nanousd": 4,
        "included_conversations": 5,
        "conversation_input_tokens_max": 6,
        "input_nanousd_per_mtok": 7,
        "output_nanousd_per_mtok": 8,
        "requests_per_minute": 9,
        "concurrency_max": 10,
        "spend_nanousd_max": MOST,
        "end_user_period_tokens_max": 11,
        "hangup_bills": "timed",
    }
    shown = await operator.put("/admin/tiers/all", everything)

    assert shown == {"name": "all", **everything, "menu_version": shown["menu_version"]}
    assert set(TierShown.model_fields) - {"menu_version"} == set(Tier.__dataclass_fields__)


async def test_a_fee_for_each_period_makes_the_menu_a_subscription(operator: Operator, hot: Hot) -> None:
    shown = await operator.put("/admin/tiers/monthly", {**CAPPED, "period_price_nanousd": 10**10})

    assert hot.menu(shown["menu_version"])["bill"] == "subscription"


async def test_each_change_is_a_version_of_its_own_also_where_the_same_tiers_come_back(
    operator: Operator, database: Database
) -> None:
    versions = [
        (await operator.put("/admin/tiers/basic", {**CAPPED, "price_nanousd": price}))["menu_version"]
        for price in (1, 2, 1)
    ]

    assert len(set(versions)) == 3
    assert all(version.startswith("manual-") and len(version) == len("manual-") + 12 for version in versions)
    with database.read() as connection:
        published = connection.execute(select(publications.c.version).order_by(publications.c.seq)).scalars().all()
    assert published == versions


async def test_typing_a_tier_as_it_is_changes_nothing(operator: Operator, hot: Hot) -> None:
    first = await operator.put("/admin/tiers/basic", CAPPED)

    second = await operator.put("/admin/tiers/basic", {**CAPPED, "name": "basic"})

    assert second == first
    assert len(hot.timeline().publications) == 1
    audit = (await operator.get("/admin/audit"))["data"]
    assert [row["action"] for row in audit].count("tier.put") == 1


async def test_a_changed_tier_keeps_its_place(operator: Operator) -> None:
    for name in ("small", "medium", "large"):
        await operator.put(f"/admin/tiers/{name}", CAPPED)

    await operator.put("/admin/tiers/medium", {"conversation_tokens_max": None})

    assert await names(operator) == ["small", "medium", "large"]
    assert (await operator.get("/admin/tiers/medium"))["conversation_tokens_max"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"price_nanousd": -1}, "price_nanousd"),
        ({"price_nanousd": None}, "price_nanousd"),
        ({"price_nanousd": 0.5}, "price_nanousd"),
        ({"price_nanousd": MOST + 1}, "price_nanousd"),
        ({"conversation_tokens_max": "300"}, "conversation_tokens_max"),
        ({"concurrency_max": 0}, "concurrency_max"),
        ({"requests_per_minute": False}, "requests_per_minute"),
        ({"name": "other"}, "name"),
        ({"price": 1}, "price"),
        ({"certificate": {}}, "certificate"),
    ],
)
async def test_a_tier_refuses_what_it_does_not_understand(operator: Operator, body: Any, field: str) -> None:
    assert fields_of(await operator.refused("PUT", "/admin/tiers/basic", body)) == {field}
    assert await names(operator) == []


@pytest.mark.parametrize("name", ["a%20b", "-a", "x" * 65])
async def test_a_tiers_name_fits_into_a_header(operator: Operator, name: str) -> None:
    assert fields_of(await operator.refused("PUT", f"/admin/tiers/{name}", CAPPED)) == {"name"}


async def test_a_name_of_what_is_not_printed_is_none(operator: Operator) -> None:
    """Not every database can look for it."""
    assert fields_of(await operator.refused("PUT", "/admin/tiers/%00", CAPPED)) == {"name"}


async def test_a_tier_that_nobody_has_can_be_withdrawn(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", CAPPED)
    await operator.put("/admin/tiers/pro", CAPPED)

    await operator.delete("/admin/tiers/pro")

    assert await names(operator) == ["basic"]
    assert (await operator.refused("DELETE", "/admin/tiers/pro"))["code"] == "not_found"


async def test_a_tier_stays_for_who_is_blocked_or_will_have_it(operator: Operator) -> None:
    """Not for a customer that is deleted."""
    for name in ("basic", "pro"):
        await operator.put(f"/admin/tiers/{name}", CAPPED)
    blocked, coming, deleted = [await operator.customer(tier=tier) for tier in ("basic", None, "basic")]
    await operator.patch(f"/admin/customers/{blocked}", {"status": "blocked"})
    await operator.put(f"/admin/customers/{coming}/tier", {"tier": "pro", "effective": "next_period"})
    await operator.delete(f"/admin/customers/{deleted}")

    refusals = [await operator.refused("DELETE", f"/admin/tiers/{name}") for name in ("basic", "pro")]

    assert [refusal["tiers"] for refusal in refusals] == [
        *({"basic": {"count": 1, "customers": [blocked]}}, {"pro": {"count": 1, "customers": [coming]}}),
    ]


async def test_a_tier_that_customers_have_stays_and_they_are_named(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", CAPPED)
    customers = [await operator.customer(tier="basic") for _ in range(12)]

    refusal = await operator.refused("DELETE", "/admin/tiers/basic")

    assert (refusal["status"], refusal["code"]) == (409, "tier_in_use")
    assert refusal["tiers"]["basic"]["count"] == 12
    assert set(refusal["tiers"]["basic"]["customers"]) < set(customers)
    assert "12 customers have the tier 'basic'" in refusal["detail"]
    assert "and 2 more" in refusal["detail"]
    assert await names(operator) == ["basic"]


async def test_a_tier_that_a_customer_will_have_stays(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", CAPPED)
    await operator.put("/admin/tiers/pro", CAPPED)
    customer = await operator.customer(tier="basic")
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "pro", "effective": "next_period"})

    refusal = await operator.refused("DELETE", "/admin/tiers/pro")

    assert refusal["tiers"] == {"pro": {"count": 1, "customers": [customer]}}


async def test_deleted_customers_do_not_keep_a_tier(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", CAPPED)
    await operator.delete(f"/admin/customers/{await operator.customer(tier='basic')}")

    await operator.delete("/admin/tiers/basic")

    assert await names(operator) == []


async def test_tiers_typed_at_the_same_moment_are_all_there(operator: Operator, hot: Hot) -> None:
    wanted = {f"tier-{number}" for number in range(8)}

    await asyncio.gather(*(operator.put(f"/admin/tiers/{name}", CAPPED) for name in wanted))

    assert set(await names(operator)) == wanted
    last = hot.timeline().publications[-1]
    assert {tier["name"] for tier in hot.menu(last.version)["tiers"]} == wanted


async def test_a_tier_is_not_withdrawn_while_it_is_being_given(operator: Operator) -> None:
    """Whichever comes first, no customer is left with a tier that is not sold."""
    await operator.put("/admin/tiers/basic", CAPPED)
    customers = [await operator.customer() for _ in range(4)]

    body = [operator.send("PUT", f"/admin/customers/{customer}/tier", {"tier": "basic"}) for customer in customers]
    *answers, withdrawn = await asyncio.gather(*body, operator.send("DELETE", "/admin/tiers/basic"))

    has_tier = [(await operator.get(f"/admin/customers/{customer}"))["tier"] == "basic" for customer in customers]
    assert [answer.status_code for answer in answers] == [200 if has else 422 for has in has_tier]
    assert withdrawn.status_code == (409 if any(has_tier) else 204)


async def test_a_menu_typed_over_a_computed_one_claims_nothing_of_it(
    operator: Operator, services: AdminServices, database: Database
) -> None:
    computed = {
        "version": "computed-1",
        "created": "2026-11-01T00:00:00.000Z",
        "currency": "USD",
        "bill": "conversation",
        "tiers": [{"name": "t1", "expected": {"share": 0.5}, **CAPPED}],
        "assignment": [],
        "certificate": {"worst": 0},
    }
    with services.database.write() as connection:
        menu_rows.hold_still(connection, to_publish=True)
        menu = menu_rows.add_menu(connection, computed, source="mechanism", created=NOON)
        menu_rows.publish(connection, menu, now_ms=NOON)
    assert await names(operator) == ["t1"]

    shown = await operator.put("/admin/tiers/t2", CAPPED)

    with database.read() as connection:
        row = connection.execute(select(menus).where(menus.c.version == shown["menu_version"])).one()
    assert row.source == "manual"
    assert set(json.loads(row.body)) == {"version", "created", "currency", "bill", "tiers"}
    assert await names(operator) == ["t1", "t2"]


async def test_the_menu_in_force_is_the_one_that_waited_for_the_period(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    await operator.put("/admin/tiers/now", CAPPED)
    coming = {"version": "v2", "created": "x", "currency": "USD", "bill": "conversation", "tiers": [{"name": "later"}]}
    with services.database.write() as connection:
        menu_rows.hold_still(connection, to_publish=True)
        menu = menu_rows.add_menu(connection, coming, source="manual", created=NOON)
        menu_rows.publish(connection, menu, now_ms=NOON, effective="next_period")

    before = await names(operator)
    clock.ms = MONDAY + 30 * 86_400_000

    assert before == ["now"]
    assert await names(operator) == ["later"]
