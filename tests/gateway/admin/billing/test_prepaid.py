"""Prepaid credit over REST: a record of its own that charges nothing, drawn by whatever is charged."""

from __future__ import annotations

import asyncio

import pytest

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoice_page import page
from gateway.ledger.book.verify import verify_chain
from tests.gateway.admin.billing.test_invoices import CLOSED, MIDDLE, OCTOBER_END, booked, call, version
from tests.gateway.admin.operator import Clock, Operator, fields_of

PAID = {"amount_nanousd": 10_000, "reason": "Transfer of 3 October"}


@pytest.fixture
def clock() -> Clock:
    return Clock(MIDDLE)


async def left(operator: Operator, customer: str) -> int:
    shown = await operator.get(f"/admin/customers/{customer}/prepaid")
    assert (shown["customer"], shown["currency"]) == (customer, "USD")
    found: int = shown["left_nanousd"]
    return found


async def test_it_is_a_record_that_charges_nothing(operator: Operator, services: AdminServices) -> None:
    """With its reason in the audit; a repetition adds nothing; no total of charges changes."""
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/prepaid"

    record = await operator.post(path, PAID, idempotency_key="once")
    again = await operator.post(path, PAID, idempotency_key="once")

    assert record == again
    assert (record["kind"], record["charge_nanousd"], record["prepaid_nanousd"]) == ("prepaid", 0, 10_000)
    assert (await operator.get(f"/admin/usage?customer={customer}"))["data"] == [record]
    [row] = (await operator.get(f"/admin/audit?target={customer}&action=customer.prepaid"))["data"]
    assert row["after"] == {"id": record["id"], "amount_nanousd": 10_000, "reason": PAID["reason"], "record": None}
    [total] = (await operator.get("/admin/totals?by=kind&period=2026-10"))["data"]
    assert (total["kind"], total["calls"], total["charge_nanousd"]) == ("prepaid", 0, 0)
    assert await left(operator, customer) == 10_000
    assert verify_chain(services.database).is_sound


async def test_an_invoice_says_what_was_drawn_and_what_is_due(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    """A draft at once, the final one for ever; the next month begins with what is left, and a credit note credits the total."""
    menu = await version(operator)
    customer = await operator.customer()
    await operator.post(f"/admin/customers/{customer}/prepaid", PAID)
    booked(services, call(1, customer, menu))
    path = f"/admin/invoices/inv_2026-10_{customer}"
    draft = await operator.get(path)
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    final = await operator.get(path)
    booked(services, call(2, customer, menu, OCTOBER_END + 5))
    named = {"amount_nanousd": 1_000, "reason": "x", "invoice": final["id"]}
    await operator.post(f"/admin/customers/{customer}/credits", named)
    following = await operator.get(f"/admin/invoices/inv_2026-11_{customer}")

    assert draft["prepaid"] == final["prepaid"]
    assert list(final["prepaid"].values()) == [0, 10_000, 7_900, 2_100, 0]
    assert (final["total_nanousd"], {line["kind"] for line in final["lines"]}) == (7_900, {"conversations", "output"})
    assert final["records"] == 2
    assert list(following["prepaid"].values()) == [2_100, 0, 2_100, 0, 4_800]
    assert following["total_nanousd"] == 6_900
    assert await operator.get(path) == final
    assert await left(operator, customer) == 0
    assert [text in page(final) for text in ("Paid from prepaid credit", "0.0000021 USD", "Due")] == [True] * 3


async def test_what_is_paid_is_left_where_the_zone_names_a_closed_month(
    operator: Operator, services: AdminServices, clock: Clock
) -> None:
    """The month that is open is the one after the last closed one, also where it is still that one in the customer's new zone."""
    customer = await operator.customer(timezone="Pacific/Kiritimati")
    clock.ms = OCTOBER_END - 13 * 3_600_000
    await operator.post("/admin/periods/2026-10/close")
    await operator.patch(f"/admin/customers/{customer}", {"timezone": "Pacific/Pago_Pago"})

    await operator.post(f"/admin/customers/{customer}/prepaid", {"amount_nanousd": 700, "reason": "Paid"})

    assert (await operator.get(f"/admin/customers/{customer}/prepaid"))["left_nanousd"] == 700


async def test_payments_of_several_open_months_all_count(operator: Operator, clock: Clock) -> None:
    """Also the one of a month before the latest payment."""
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/prepaid"
    for month, amount in enumerate((700, 20, 3)):
        clock.ms = MIDDLE + month * 31 * 86_400_000
        await operator.post(path, {"amount_nanousd": amount, "reason": "Paid"})

    assert await left(operator, customer) == 723


async def test_who_has_none_is_told_so(operator: Operator, services: AdminServices) -> None:
    menu = await version(operator)
    customer = await operator.customer()
    booked(services, call(1, customer, menu))

    invoice = await operator.get(f"/admin/invoices/inv_2026-10_{customer}")

    assert invoice["prepaid"] is None
    assert "Prepaid" not in page(invoice)
    assert await left(operator, customer) == 0
    assert (await operator.refused("GET", "/admin/customers/cus_none/prepaid"))["status"] == 404


async def test_a_fee_gives_it_back(operator: Operator) -> None:
    """What a customer gets back is charged as a fee, which draws it."""
    customer = await operator.customer()
    await operator.post(f"/admin/customers/{customer}/prepaid", PAID)

    await operator.post(f"/admin/customers/{customer}/fees", {"amount_nanousd": 9_999, "reason": "Paid back"})

    assert await left(operator, customer) == 1


async def test_payments_at_once_all_count(operator: Operator) -> None:
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/prepaid"

    await asyncio.gather(*(operator.post(path, PAID) for _ in range(8)))

    assert await left(operator, customer) == 80_000


async def test_what_is_no_amount_is_refused(operator: Operator) -> None:
    customer = await operator.customer()
    path = f"/admin/customers/{customer}/prepaid"
    for amount in (0, -1, 1.5, 2**53):
        refused = await operator.refused("POST", path, {**PAID, "amount_nanousd": amount})
        assert fields_of(refused) == {"amount_nanousd"}
    assert (await operator.refused("POST", "/admin/customers/cus_none/prepaid", PAID))["status"] == 404
    assert await left(operator, customer) == 0


async def test_erasing_the_customer_leaves_it(operator: Operator, services: AdminServices) -> None:
    customer = await operator.customer()
    await operator.post(f"/admin/customers/{customer}/prepaid", PAID)

    await operator.delete(f"/admin/customers/{customer}?erase=true")

    invoice = await operator.get(f"/admin/invoices/inv_2026-10_{customer}")
    assert invoice["prepaid"]["left_nanousd"] == 10_000
    assert verify_chain(services.database).is_sound
