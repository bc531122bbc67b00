"""Credits and fees: records of the one chain, with a reason and an actor, that are no usage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from gateway.admin.api.routes import AdminServices
from gateway.catalog.projector import project_customers
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import WindowState
from gateway.ledger.billing_tables import adjustments
from gateway.ledger.book.appender import book
from gateway.ledger.book.verify import verify_chain
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.database import Database
from gateway.ledger.read.queries import begun_in, spent_in, totals
from gateway.ledger.recovery.agreement import Agreement, Period
from gateway.ledger.sums.market_rows import excluded_in
from gateway.ledger.sums.market_sums import bring_up_to_date
from gateway.ledger.sums.rollup import Rollup, windows_in
from gateway.settings import Settings
from pricing.estimate.observations.conversations import Sums
from tests.gateway.admin.conftest import admin_app, calling
from tests.gateway.admin.operator import NOON, Operator, fields_of
from tests.gateway.ledger.records import record

CREDIT = {"amount_nanousd": 3_000, "reason": "Outage of 14 October"}
FEE = {"amount_nanousd": 7_000, "reason": "Set-up"}


@pytest.fixture
async def limited(services: AdminServices, admin_token: str) -> AsyncIterator[Operator]:
    """An operator whose role may put no more than 5,000 nano-units on a bill at once."""
    settings = Settings(adjustment_nanousd_max=("admin=5000", "viewer=0"))
    async with calling(admin_app(replace(services, settings=settings)), admin_token) as operator:
        yield operator


def booked(services: AdminServices, *records: Any) -> None:
    """Append records as the bookkeeper does: Redis hears of them."""
    with services.database.write() as connection:
        Watermark(services.redis).rise(book(connection, records))


async def called(operator: Operator, services: AdminServices) -> tuple[str, str]:
    """Return a customer and the id of its one call, which was charged 5,000."""
    customer = await operator.customer()
    booked(services, record(1, customer=customer, time=NOON - 1000))
    return customer, "call-000001"


async def test_a_credit_is_a_record_with_a_negative_charge(
    operator: Operator, services: AdminServices, database: Database
) -> None:
    """It names the record that it is for and has its tier, menu version and key."""
    customer, call = await called(operator, services)

    credit = await operator.post(f"/admin/customers/{customer}/credits", {**CREDIT, "record": call})

    assert (credit["kind"], credit["charge_nanousd"], credit["corrects"]) == ("credit", -3_000, call)
    assert (credit["tier"], credit["menu_version"], credit["key_id"]) == ("t2", "m1", "key_1")
    assert credit["time"] == NOON
    assert (await operator.get(f"/admin/usage?customer={customer}"))["data"][-1] == credit
    assert verify_chain(database).is_sound


async def test_a_fee_is_a_record_with_its_amount(operator: Operator, database: Database) -> None:
    customer = await operator.customer()

    fee = await operator.post(f"/admin/customers/{customer}/fees", FEE)

    assert (fee["kind"], fee["charge_nanousd"], fee["corrects"], fee["customer"]) == ("fee", 7_000, None, customer)
    assert totals(database).charge_nanousd == 7_000


async def test_a_bill_is_in_the_currency_of_the_installation(services: AdminServices, admin_token: str) -> None:
    """Its records and its draft."""
    async with calling(admin_app(replace(services, settings=Settings(currency="EUR"))), admin_token) as operator:
        customer = await operator.customer()
        made = [
            await operator.post(f"/admin/customers/{customer}/{kind}", FEE) for kind in ("credits", "fees", "prepaid")
        ]
        draft = await operator.get(f"/admin/invoices/inv_2026-11_{customer}")

    assert {one["currency"] for one in (*made, draft)} == {"EUR"}


async def test_the_reason_and_the_actor_are_kept(operator: Operator, database: Database) -> None:
    """Beside the record, and in the audit under the customer."""
    customer = await operator.customer()
    credit = await operator.post(f"/admin/customers/{customer}/credits", CREDIT)

    row = (await operator.get(f"/admin/audit?target={customer}&action=customer.credit"))["data"][0]
    with database.read() as connection:
        kept = connection.execute(select(adjustments)).one()

    assert row["after"] == {"id": credit["id"], "amount_nanousd": 3_000, "reason": CREDIT["reason"], "record": None}
    assert (kept.id, kept.reason, kept.actor, kept.at) == (credit["id"], CREDIT["reason"], row["actor"], NOON)


async def test_credits_for_a_record_never_exceed_what_it_charged(
    operator: Operator, services: AdminServices, database: Database
) -> None:
    customer, call = await called(operator, services)
    path = f"/admin/customers/{customer}/credits"
    await operator.post(path, {**CREDIT, "record": call})

    refusal = await operator.refused("POST", path, {**CREDIT, "record": call, "amount_nanousd": 2_001})
    await operator.post(path, {**CREDIT, "record": call, "amount_nanousd": 2_000})

    assert fields_of(refusal) == {"amount_nanousd"}
    assert "2000 nano-units" in refusal["detail"]
    assert fields_of(await operator.refused("POST", path, {**CREDIT, "record": call, "amount_nanousd": 1})) == {
        "amount_nanousd"
    }
    assert totals(database).charge_nanousd == 0


async def test_a_record_is_credited_with_the_correction_of_its_count(
    operator: Operator, services: AdminServices
) -> None:
    customer, call = await called(operator, services)
    corrected = {"id": f"{call}.1", "kind": "correction", "corrects": call, "charge_nanousd": 500}
    booked(services, record(2, customer=customer, **corrected))
    path = f"/admin/customers/{customer}/credits"

    assert (await operator.refused("POST", path, {**CREDIT, "record": call, "amount_nanousd": 5_501}))["status"] == 422
    await operator.post(path, {**CREDIT, "record": call, "amount_nanousd": 5_500})


async def test_credits_of_the_same_amount_for_a_record_all_count(operator: Operator, services: AdminServices) -> None:
    customer, call = await called(operator, services)
    path, credit = f"/admin/customers/{customer}/credits", {**CREDIT, "record": call, "amount_nanousd": 2_500}
    await operator.post(path, credit)
    await operator.post(path, credit)

    assert fields_of(await operator.refused("POST", path, credit)) == {"amount_nanousd"}


async def test_a_correction_is_credited_with_its_record_and_not_once_more(
    operator: Operator, services: AdminServices, database: Database
) -> None:
    """A call and its correction have one charge between them, and so one limit of what is credited."""
    customer, call = await called(operator, services)
    corrected = {"id": f"{call}.1", "kind": "correction", "corrects": call, "charge_nanousd": 500}
    booked(services, record(2, customer=customer, **corrected))
    path = f"/admin/customers/{customer}/credits"
    await operator.post(path, {**CREDIT, "record": call, "amount_nanousd": 5_500})

    refusal = await operator.refused("POST", path, {**CREDIT, "record": f"{call}.1", "amount_nanousd": 500})

    assert fields_of(refusal) == {"record"}
    assert call in refusal["detail"]
    assert totals(database).charge_nanousd == 0


@pytest.mark.parametrize("named", ["another's", "unknown", "a credit"])
async def test_a_credit_names_a_record_of_its_customer(operator: Operator, services: AdminServices, named: str) -> None:
    _, call = await called(operator, services)
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/credits"
    about = {"another's": call, "unknown": "req_nothing"}.get(named) or (await operator.post(path, CREDIT))["id"]

    assert fields_of(await operator.refused("POST", path, {**CREDIT, "record": about})) == {"record"}


@pytest.mark.parametrize("kind", ["credits", "fees", "prepaid"])
async def test_a_repetition_books_nothing_more(operator: Operator, database: Database, kind: str) -> None:
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/{kind}"

    first = await operator.post(path, FEE, Idempotency_Key="once")
    again = await operator.send("POST", path, FEE, Idempotency_Key="once")

    assert again.json() == first
    assert again.headers["idempotency-replayed"] == "true"
    assert totals(database).records == 1


async def test_a_role_whose_limit_is_nothing_puts_nothing_on_a_bill(
    services: AdminServices, admin_token: str, database: Database
) -> None:
    settings = Settings(adjustment_nanousd_max=("admin=0",))
    async with calling(admin_app(replace(services, settings=settings)), admin_token) as operator:
        customer = await operator.customer()

        refusal = await operator.refused("POST", f"/admin/customers/{customer}/fees", {**FEE, "amount_nanousd": 1})

    assert (refusal["status"], refusal["code"]) == (403, "not_allowed")
    assert totals(database).records == 0


@pytest.mark.parametrize("kind", ["credits", "fees", "prepaid"])
async def test_a_role_has_a_limit(limited: Operator, database: Database, kind: str) -> None:
    customer = await limited.customer()
    path = f"/admin/customers/{customer}/{kind}"

    refusal = await limited.refused("POST", path, {**FEE, "amount_nanousd": 5_001})
    await limited.post(path, {**FEE, "amount_nanousd": 5_000})

    assert (refusal["status"], refusal["code"]) == (403, "not_allowed")
    assert totals(database).records == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(({**CREDIT, "amount_nanousd": 0}, "amount_nanousd"), ({**CREDIT, "amount_nanousd": -1}, "amount_nanousd")),
        *(({**CREDIT, "amount_nanousd": 1.5}, "amount_nanousd"), ({"amount_nanousd": 1}, "reason")),
        *(({**CREDIT, "reason": "two\nlines"}, "reason"), ({**CREDIT, "tier": "t1"}, "tier")),
    ],
)
async def test_what_is_no_credit_is_refused(operator: Operator, body: dict[str, Any], field: str) -> None:
    customer = await operator.customer()

    assert fields_of(await operator.refused("POST", f"/admin/customers/{customer}/credits", body)) == {field}


async def test_nobody_is_credited_whom_there_is_not(operator: Operator) -> None:
    assert (await operator.refused("POST", "/admin/customers/cus_nobody/credits", CREDIT))["status"] == 404
    assert (await operator.refused("POST", "/admin/customers/cus_nobody/fees", FEE))["status"] == 404


async def test_without_redis_nothing_is_booked(operator_without_redis: Operator, database: Database) -> None:
    """The mark of the chain's head in Redis rises with every record; without it the answer is 503 and nothing is kept."""
    body = {"name": "Acme"}
    customer = (await operator_without_redis.send("POST", "/admin/customers", body)).json()["saved"]["id"]

    refusal = await operator_without_redis.refused("POST", f"/admin/customers/{customer}/credits", CREDIT)

    assert refusal["code"] == "metering_unavailable"
    assert totals(database).records == 0


async def test_a_credit_and_a_fee_are_no_usage(operator: Operator, services: AdminServices, database: Database) -> None:
    """Window, spend, conversations, running sums, the books' check and the sums for pricing are as without them."""
    customer, call = await called(operator, services)
    month = 1_793_491_200_000, 1_796_083_200_000
    window = redis_keys.window(redis_keys.bucket_of(customer), customer, month[0])
    project_customers(database, services.projection, [customer])
    Rollup(database).bring_up_to_date(NOON)
    before = (spent_in(database, {customer: month}), dict(windows_in(database, [customer])))

    await operator.post(f"/admin/customers/{customer}/credits", {**CREDIT, "record": call})
    await operator.post(f"/admin/customers/{customer}/fees", FEE)
    Rollup(database).bring_up_to_date(NOON)
    bring_up_to_date(database, NOON)

    assert (spent_in(database, {customer: month}), dict(windows_in(database, [customer]))) == before
    assert begun_in(database, customer, *month) == 1
    assert services.redis.exists(window) == 0
    assert sum(excluded_in(database, 0, Sums()).values()) == 0
    services.redis.hset(redis_keys.state(redis_keys.bucket_of(customer)), "generation", "1")
    services.redis.hset(window, "amounts", _state(database, customer, month).to_bytes())
    verdict = Agreement(database, services.redis, lambda: "1").look_at(Period(customer, *month))
    assert verdict is None or verdict.fault is None


def _state(database: Database, customer: str, month: tuple[int, int]) -> Any:
    spent = spent_in(database, {customer: month})[customer]
    return WindowState(used=spent.tokens, spend_used=spent.charge_nanousd)


async def test_erasing_a_customer_forgets_the_reasons(operator: Operator, database: Database) -> None:
    """The record stays and proves its place; why it is there may name the customer, and goes."""
    customer = await operator.customer()
    credit = await operator.post(f"/admin/customers/{customer}/credits", {**CREDIT, "reason": "Acme asked for it"})

    await operator.delete(f"/admin/customers/{customer}?erase=true")

    with database.read() as connection:
        assert connection.execute(select(adjustments.c.reason)).scalar_one() is None
    rows = (await operator.get(f"/admin/audit?target={customer}"))["data"]
    assert "Acme" not in str(rows)
    assert (await operator.get("/admin/usage"))["data"] == [credit]
