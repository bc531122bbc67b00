"""Customers: what the operator says of them is what the serving path finds, at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from gateway.clock import written
from gateway.ledger.database import Database
from gateway.ledger.tables import metadata
from pricing.money import MOST
from tests.gateway.admin.operator import MONDAY, NOON, Clock, Hot, Operator, fields_of

CAPPED = {"conversation_tokens_max": 300}


@pytest.fixture
async def tiers(operator: Operator) -> None:
    await operator.put("/admin/tiers/basic", CAPPED)
    await operator.put("/admin/tiers/pro", CAPPED)


async def test_a_customer_needs_only_a_name(operator: Operator) -> None:
    created = await operator.post("/admin/customers", {"name": "Acme"})

    assert created.pop("id").startswith("cus_")
    assert created == {
        "name": "Acme",
        "tier": None,
        "status": "active",
        "period": "month",
        "timezone": "UTC",
        "external_id": None,
        "overrides": {},
        "certificate_withdrawn": False,
        "notice_percents": None,
        "increase": None,
        "created": "2026-11-01T12:00:00.000Z",
        "menu_version": None,
        "next": None,
    }


@pytest.mark.usefixtures("tiers")
async def test_the_serving_path_finds_a_new_customer_at_once(operator: Operator, hot: Hot) -> None:
    created = await operator.post(
        "/admin/customers",
        {
            "name": "Acme",
            "tier": "pro",
            "period": "week",
            "timezone": "Europe/Berlin",
            "overrides": {"concurrency_max": 2, "period_tokens_max": 0, "spend_nanousd_max": None},
        },
    )

    found = hot.customer(created["id"])
    assert found is not None
    assert (found.status, found.tier, found.period, found.timezone) == ("active", "pro", "week", "Europe/Berlin")
    assert found.overrides == created["overrides"] == {"concurrency_max": 2, "period_tokens_max": 0}
    assert await operator.get(f"/admin/customers/{created['id']}") == created


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 7}, "name"),
        ({"name": None}, "name"),
        ({"name": "Acme", "nmae": "x"}, "nmae"),
        ({"name": "Acme", "id": "cus_mine"}, "id"),
        ({"name": "Acme", "status": "deleted"}, "status"),
        ({"name": "Acme", "period": "year"}, "period"),
        ({"name": "Acme", "timezone": "Mars/Olympus"}, "timezone"),
        ({"name": "Acme", "timezone": "../etc/passwd"}, "timezone"),
        ({"name": "Acme", "timezone": "America"}, "timezone"),
        ({"name": "Acme", "tier": "no such name!"}, "tier"),
        ({"name": "Acme", "tier": "gold"}, "tier"),
        ({"name": "Acme", "external_id": ""}, "external_id"),
        ({"name": "Acme", "overrides": {"price": 1}}, "overrides.price"),
        ({"name": "Acme", "overrides": {"period_tokens_max": -1}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"period_tokens_max": 1.5}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"period_tokens_max": 1.0}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"period_tokens_max": "1"}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"period_tokens_max": True}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"period_tokens_max": MOST + 1}}, "overrides.period_tokens_max"),
        ({"name": "Acme", "overrides": {"concurrency_max": 0}}, "overrides.concurrency_max"),
        ({"name": "Acme", "overrides": []}, "overrides"),
        ([], ""),
    ],
)
async def test_a_field_that_is_not_what_it_has_to_be_is_named(operator: Operator, body: Any, field: str) -> None:
    refusal = await operator.refused("POST", "/admin/customers", body)

    assert fields_of(refusal) == {field}
    assert (await operator.get("/admin/customers"))["data"] == []


@pytest.mark.usefixtures("tiers")
async def test_a_tier_that_is_not_sold_is_refused_naming_those_that_are(operator: Operator) -> None:
    refusal = await operator.refused("POST", "/admin/customers", {"name": "Acme", "tier": "gold"})

    assert refusal["code"] == "tier_not_found"
    assert refusal["detail"] == "tier: The menu in force has no tier 'gold'; its tiers: basic, pro."


@pytest.mark.parametrize("path", ["/admin/customers/cus_none", "/admin/customers/%00", "/admin/customers/%F0%9F%A6%84"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_customer_is_not_found(operator: Operator, method: str, path: str) -> None:
    refusal = await operator.refused(method, path, {} if method == "PATCH" else None)

    assert (refusal["status"], refusal["code"]) == (404, "not_found")


async def test_an_external_id_names_one_customer_until_it_is_deleted(operator: Operator) -> None:
    first = await operator.customer(external_id="crm-1")
    other = await operator.customer(external_id="crm-2")

    for method, path, body in (
        ("POST", "/admin/customers", {"name": "Other", "external_id": "crm-1"}),
        ("PATCH", f"/admin/customers/{other}", {"external_id": "crm-1"}),
    ):
        assert (await operator.refused(method, path, body))["code"] == "already_exists"
    await operator.delete(f"/admin/customers/{first}")
    await operator.patch(f"/admin/customers/{other}", {"external_id": "crm-1"})

    found = (await operator.get("/admin/customers?external_id=crm-1&status=active"))["data"]
    assert [customer["id"] for customer in found] == [other]


@pytest.mark.usefixtures("tiers")
async def test_a_change_leaves_alone_what_it_does_not_name(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer(tier="basic", external_id="crm-1", overrides={"concurrency_max": 2})
    before = await operator.get(f"/admin/customers/{customer}")

    after = await operator.patch(f"/admin/customers/{customer}", {"status": "blocked"})

    assert after == before | {"status": "blocked"}
    found = hot.customer(customer)
    assert found is not None
    assert found.status == "blocked"


@pytest.mark.usefixtures("tiers")
async def test_null_takes_away_what_may_be_missing_and_nothing_else(operator: Operator) -> None:
    customer = await operator.customer(tier="basic", external_id="crm-1", overrides={"concurrency_max": 2})
    path = f"/admin/customers/{customer}"

    for field in ("name", "status", "period", "timezone"):
        assert fields_of(await operator.refused("PATCH", path, {field: None})) == {field}
    after = await operator.patch(path, {"tier": None, "external_id": None, "overrides": None})

    assert (after["tier"], after["external_id"], after["overrides"]) == (None, None, {})


async def test_changing_nothing_writes_nothing(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer()
    before = hot.customer(customer)

    await operator.patch(f"/admin/customers/{customer}", {})
    await operator.patch(f"/admin/customers/{customer}", {"name": "Acme", "tier": None})

    assert hot.customer(customer) == before
    assert len((await operator.get(f"/admin/audit?target={customer}"))["data"]) == 1


@pytest.mark.usefixtures("tiers")
async def test_a_tier_holds_from_now_on(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer(tier="basic")

    shown = await operator.put(f"/admin/customers/{customer}/tier", {"tier": "pro"})

    found = hot.customer(customer)
    assert found is not None
    assert (shown["tier"], shown["next"]) == ("pro", None)
    assert (found.tier, found.next_tier_at) == ("pro", None)


@pytest.mark.usefixtures("tiers")
async def test_a_tier_waits_for_the_customers_own_next_period(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer(tier="basic", period="week", timezone="America/New_York")

    shown = await operator.put(f"/admin/customers/{customer}/tier", {"tier": "pro", "effective": "next_period"})

    five_hours = 5 * 3_600_000
    found = hot.customer(customer)
    assert found is not None
    assert shown["tier"] == "basic"
    assert shown["next"]["tier"] == "pro"
    assert shown["next"]["effective"] == written(MONDAY + five_hours)
    assert (found.tier, found.next_tier, found.next_tier_at) == ("basic", "pro", MONDAY + five_hours)


@pytest.mark.usefixtures("tiers")
async def test_a_tier_set_now_drops_the_one_that_was_waiting(operator: Operator, clock: Clock) -> None:
    customer = await operator.customer(period="day")
    path = f"/admin/customers/{customer}/tier"
    await operator.put(path, {"tier": "pro", "effective": "next_period"})

    shown = await operator.put(path, {"tier": "basic", "effective": "now"})

    assert (shown["tier"], shown["next"]) == ("basic", None)
    clock.ms = MONDAY
    assert (await operator.get(f"/admin/customers/{customer}"))["tier"] == "basic"


@pytest.mark.usefixtures("tiers")
@pytest.mark.parametrize("effective", ["now", "next_period"])
async def test_choosing_the_present_tier_drops_the_one_that_was_waiting(operator: Operator, effective: str) -> None:
    customer = await operator.customer(tier="basic", period="day")
    path = f"/admin/customers/{customer}/tier"
    await operator.put(path, {"tier": "pro", "effective": "next_period"})

    shown = await operator.put(path, {"tier": "basic", "effective": effective})

    assert (shown["tier"], shown["next"]) == ("basic", None)


@pytest.mark.usefixtures("tiers")
async def test_a_tier_that_waited_is_kept_by_the_next_change(operator: Operator, clock: Clock, hot: Hot) -> None:
    customer = await operator.customer(tier="basic", period="day")
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": "pro", "effective": "next_period"})
    clock.ms = MONDAY + 1

    shown = await operator.patch(f"/admin/customers/{customer}", {"name": "Acme Ltd"})

    found = hot.customer(customer)
    assert found is not None
    assert (shown["tier"], shown["next"]) == ("pro", None)
    assert (found.tier, found.tier_since, found.next_tier, found.next_tier_at) == ("pro", MONDAY, None, None)


@pytest.mark.usefixtures("tiers")
async def test_a_waiting_tier_moves_with_the_period(operator: Operator) -> None:
    customer = await operator.customer(tier="basic", period="month")
    await operator.put(f"/admin/customers/{customer}/tier", {"tier": None, "effective": "next_period"})

    shown = await operator.patch(f"/admin/customers/{customer}", {"period": "day"})

    assert shown["next"]["tier"] is None
    assert shown["next"]["effective"] == written(MONDAY)


async def test_blanks_around_a_name_are_not_part_of_it(operator: Operator) -> None:
    created = await operator.post("/admin/customers", {"name": " Acme "})

    assert created["name"] == "Acme"


async def test_a_deleted_customers_keys_are_dead_at_once(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer()
    key_ids = [(await operator.post(f"/admin/customers/{customer}/keys"))["key_id"] for _ in range(3)]

    await operator.delete(f"/admin/customers/{customer}")

    listed = (await operator.get(f"/admin/customers/{customer}/keys"))["data"]
    found = hot.customer(customer)
    assert {key["key_id"] for key in listed if key["revoked"]} == set(key_ids)
    assert not list(hot.redis.scan_iter(match="*:key:*", count=1000))
    assert found is not None
    assert found.status == "deleted"


async def test_deleting_again_changes_nothing(operator: Operator) -> None:
    customer = await operator.customer()

    await operator.delete(f"/admin/customers/{customer}")
    await operator.delete(f"/admin/customers/{customer}")

    shown = await operator.get(f"/admin/customers/{customer}")
    audited = (await operator.get(f"/admin/audit?target={customer}"))["data"]
    assert (shown["status"], shown["name"]) == ("deleted", "Acme")
    assert [row["action"] for row in audited] == ["customer.delete", "customer.create"]


@pytest.mark.usefixtures("tiers")
async def test_a_deleted_customer_stays_deleted(operator: Operator) -> None:
    customer = await operator.customer()
    await operator.delete(f"/admin/customers/{customer}")

    for method, path, body in (
        ("PATCH", f"/admin/customers/{customer}", {"status": "active"}),
        ("PUT", f"/admin/customers/{customer}/tier", {"tier": "basic"}),
        ("POST", f"/admin/customers/{customer}/keys", {}),
    ):
        refusal = await operator.refused(method, path, body)
        assert (refusal["status"], refusal["code"]) == (409, "customer_deleted")


async def test_an_erased_customers_name_is_nowhere_in_the_ledger(operator: Operator, database: Database) -> None:
    named = {"name": "Ada Lovelace", "external_id": "ada@example.org"}
    customer = (await operator.post("/admin/customers", named, Idempotency_Key="once"))["id"]
    await operator.patch(f"/admin/customers/{customer}", {"name": "Ada King"})
    await operator.delete(f"/admin/customers/{customer}")
    assert "Ada" in everything_in(database)

    await operator.delete(f"/admin/customers/{customer}?erase=true")

    assert "Ada" not in everything_in(database)
    assert "ada@" not in everything_in(database)
    shown = await operator.get(f"/admin/customers/{customer}")
    repeated = await operator.post("/admin/customers", named, Idempotency_Key="once")
    assert (shown["name"], shown["external_id"]) == ("", None)
    assert (repeated["id"], repeated["name"]) == (customer, "")


def everything_in(database: Database) -> str:
    with database.read() as connection:
        return repr([connection.execute(select(table)).all() for table in metadata.sorted_tables])


async def test_a_list_comes_page_by_page_in_the_order_of_creation(operator: Operator, clock: Clock) -> None:
    created = []
    for number in range(7):
        clock.ms = NOON + number // 3  # some in the same millisecond
        created.append(await operator.customer(name=f"customer {number}"))

    pages, cursor = [], ""
    while cursor is not None:
        page = await operator.get(f"/admin/customers?limit=3{cursor and '&cursor=' + cursor}")
        pages.append([customer["id"] for customer in page["data"]])
        cursor = page["next_cursor"]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert {customer for page in pages for customer in page} == set(created)
    names = (await operator.get("/admin/customers"))["data"]
    assert [row["created"] for row in names] == sorted(row["created"] for row in names)


@pytest.mark.usefixtures("tiers")
async def test_a_list_is_filtered_by_status_and_tier(operator: Operator) -> None:
    basic = await operator.customer(tier="basic")
    blocked = await operator.customer(tier="pro", status="blocked")

    async def found(query: str) -> list[str]:
        return [customer["id"] for customer in (await operator.get(f"/admin/customers?{query}"))["data"]]

    assert await found("status=blocked") == [blocked]
    assert await found("tier=basic") == [basic]
    assert await found("tier=basic&status=blocked") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=WyJhIiwxXQ", "cursor"),
        ("cursor=WzEsIlx1MDAwMCJd", "cursor"),
        ("cursor=%00", "cursor"),
        ("status=gone", "status"),
        ("external_id=%00", "external_id"),
    ],
)
async def test_a_list_refuses_what_it_does_not_understand(operator: Operator, query: str, field: str) -> None:
    assert fields_of(await operator.refused("GET", f"/admin/customers?{query}")) == {field}


@pytest.mark.usefixtures("tiers")
async def test_changes_at_the_same_moment_lose_nothing(operator: Operator, hot: Hot) -> None:
    customer = await operator.customer()
    changes: list[dict[str, Any]] = [
        {"name": "Acme Ltd"},
        {"status": "blocked"},
        {"period": "day"},
        {"timezone": "Asia/Tokyo"},
        {"external_id": "crm-1"},
        {"overrides": {"concurrency_max": 3}},
        {"tier": "pro"},
    ]

    await asyncio.gather(*(operator.patch(f"/admin/customers/{customer}", change) for change in changes))

    shown, found = await operator.get(f"/admin/customers/{customer}"), hot.customer(customer)
    for change in changes:
        assert shown | change == shown
    assert found is not None
    assert (found.rev, found.tier, found.timezone) == (1 + len(changes), "pro", "Asia/Tokyo")
    assert len((await operator.get(f"/admin/audit?target={customer}"))["data"]) == 1 + len(changes)
