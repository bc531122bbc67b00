"""Credit notes: numbered documents of credits for what a final invoice charges, which itself never changes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admin.api.routes import AdminServices
from gateway.ledger.billing.closings import close, months_of
from tests.gateway.admin.billing.test_invoices import CLOSED, MIDDLE, OCTOBER_END, booked, call, version
from tests.gateway.admin.operator import Clock, Operator, fields_of

HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> Clock:
    return Clock(OCTOBER_END - 31 * 24 * HOUR_MS)


@pytest.fixture
async def acme(operator: Operator, services: AdminServices, clock: Clock) -> str:
    """A customer whose October is invoiced: two calls, of 7,900 and 7,000."""
    menu = await version(operator)
    customer = await operator.customer(name="Acme & Sons", external_id="crm-1")
    booked(services, call(1, customer, menu), call(2, customer, menu, charge_nanousd=7_000))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    return customer


async def credit(operator: Operator, customer: str, amount: int, **named: Any) -> Any:
    body = {"amount_nanousd": amount, "reason": "Outage", **named}
    return await operator.post(f"/admin/customers/{customer}/credits", body)


async def refused(operator: Operator, customer: str, amount: int, **named: Any) -> dict[str, Any]:
    body = {"amount_nanousd": amount, "reason": "Outage", **named}
    return await operator.refused("POST", f"/admin/customers/{customer}/credits", body)


async def test_a_credit_for_what_is_invoiced_has_a_note(operator: Operator, acme: str) -> None:
    """Of a record or of the whole invoice; the invoice stays as it is, and the credit is a line of the next one."""
    invoice = (await operator.get("/admin/invoices"))["data"][0]
    first = await credit(operator, acme, 900, record="call-000001")
    second = await credit(operator, acme, 100, invoice=invoice["id"])
    none = await credit(operator, acme, 5)

    notes = (await operator.get("/admin/credit-notes"))["data"]
    assert [(one["number"], one["id"], one["record"], one["amount_nanousd"]) for one in notes] == [
        *(("CN-000001", first["id"], "call-000001", 900), ("CN-000002", second["id"], None, 100)),
    ]
    assert all(one["invoice"] == {"id": invoice["id"], "number": "000001", "month": "2026-10"} for one in notes)
    assert (notes[0]["name"], notes[0]["external_id"], notes[0]["reason"]) == ("Acme & Sons", "crm-1", "Outage")
    assert (await operator.get(f"/admin/invoices/{invoice['id']}")) == invoice
    draft = await operator.get(f"/admin/invoices/inv_2026-11_{acme}")
    assert (
        draft["total_nanousd"] == -1_005 == first["charge_nanousd"] + second["charge_nanousd"] + none["charge_nanousd"]
    )
    page = await operator.get(f"/admin/credit-notes?invoice={invoice['id']}&limit=1")
    assert page["data"] == notes[:1]
    assert await operator.get(f"/admin/credit-notes?limit=1&cursor={page['next_cursor']}") == {
        **{"data": notes[1:], "next_cursor": None},
    }
    assert (await operator.get(f"/admin/credit-notes/{second['id']}")) == notes[1]
    assert (await operator.refused("GET", f"/admin/credit-notes/{none['id']}"))["status"] == 404


async def test_a_note_is_a_page_that_loads_nothing(operator: Operator, acme: str) -> None:
    note = await credit(operator, acme, 900, record="call-000001")

    page = await operator.send("GET", f"/admin/credit-notes/{note['id']}", accept="text/html")

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for text in ("Credit note CN-000001", "invoice 000001 of 2026-10", "Acme &amp; Sons", "0.0000009 USD", "Outage"):
        assert text in page.text


async def test_no_more_is_credited_than_the_invoice_charges(operator: Operator, acme: str) -> None:
    """By records and as a whole together; a credit that is refused takes no number, a repeated one makes no second note."""
    invoice = f"inv_2026-10_{acme}"
    await credit(operator, acme, 14_000, invoice=invoice)
    assert fields_of(await refused(operator, acme, 901, invoice=invoice)) == {"amount_nanousd"}
    assert fields_of(await refused(operator, acme, 901, record="call-000002")) == {"amount_nanousd"}
    path, body = f"/admin/customers/{acme}/credits", {"amount_nanousd": 900, "reason": "x", "invoice": invoice}
    for _ in range(2):
        await operator.post(path, body, idempotency_key="once")
    assert fields_of(await refused(operator, acme, 1, invoice=invoice)) == {"amount_nanousd"}

    notes = (await operator.get("/admin/credit-notes"))["data"]
    assert [(one["number"], one["amount_nanousd"]) for one in notes] == [("CN-000001", 14_000), ("CN-000002", 900)]


async def test_a_note_is_of_this_customers_final_invoice(
    operator: Operator, services: AdminServices, acme: str, clock: Clock
) -> None:
    """A record of an open month has none; one of a month that is being closed waits for its invoice."""
    other = await operator.customer()
    assert fields_of(await refused(operator, other, 1, invoice=f"inv_2026-10_{acme}")) == {"invoice"}
    assert fields_of(await refused(operator, acme, 1, invoice="inv_x")) == {"invoice"}
    assert fields_of(await refused(operator, acme, 1, invoice="inv_x", record="call-000001")) == {""}
    booked(services, call(3, acme, "m1", time=CLOSED), call(4, acme, "m1", time=MIDDLE))  # the second is late
    await credit(operator, acme, 1, record="call-000003")
    await credit(operator, acme, 1, record="call-000004")
    assert (await operator.get("/admin/credit-notes"))["data"] == []
    clock.ms += 31 * 24 * HOUR_MS
    with services.database.write() as connection:
        close(connection, [one for one in months_of(services.database, "2026-11") if one.customer == acme], clock.ms)

    assert (await refused(operator, acme, 1, record="call-000004"))["code"] == "invoice_pending"


async def test_erasing_a_customer_takes_its_names_off(operator: Operator, acme: str) -> None:
    note = await credit(operator, acme, 900, record="call-000001")

    await operator.delete(f"/admin/customers/{acme}?erase=true")

    note = await operator.get(f"/admin/credit-notes/{note['id']}")
    assert (note["name"], note["external_id"], note["reason"], note["amount_nanousd"]) == ("", None, None, 900)
