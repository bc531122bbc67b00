"""Invoices and credits of several customers and months side by side: none counts for another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoice_book import InvoiceBook
from gateway.billing.invoices import drafted
from gateway.billing.month_folder import AT_ONCE, write_month
from gateway.ledger.billing.final_invoices import Terms, finalise
from gateway.ledger.database import Database
from gateway.ledger.tables import chains, customers
from tests.gateway.admin.billing.test_invoices import (
    CLOSED,
    DAY_MS,
    ISSUER,
    OCTOBER_END,
    booked,
    call,
    closed_month,
    version,
)
from tests.gateway.admin.operator import Clock, Operator
from tests.gateway.ledger.records import customer_row


@pytest.fixture
def clock() -> Clock:
    return Clock(OCTOBER_END - 31 * DAY_MS)


@pytest.fixture
async def both(operator: Operator, services: AdminServices, clock: Clock) -> list[str]:
    """Two customers whose October is invoiced: a call of 7,900 each."""
    menu = await version(operator)
    names = [await operator.customer(name=name, external_id=f"crm-{name}") for name in ("Acme", "Bravo")]
    booked(services, *(call(number, name, menu) for number, name in enumerate(names, start=1)))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    return names


async def test_a_customer_has_its_own_invoices(operator: Operator, both: list[str]) -> None:
    for name in both:
        found = (await operator.get(f"/admin/customers/{name}/invoices"))["data"]

        assert [one["id"] for one in found] == [f"inv_2026-10_{name}"]


async def test_a_late_record_alone_makes_a_draft(operator: Operator, services: AdminServices, both: list[str]) -> None:
    """A call of the closed month that is booked afterwards counts in the open month, which nothing else is in."""
    late = call(3, both[0], "m1")
    booked(services, {**late, "settled": CLOSED})

    found = (await operator.get(f"/admin/customers/{both[0]}/invoices"))["data"]

    assert [(one["id"], one["records"]) for one in found] == [
        *((f"inv_2026-10_{both[0]}", 1), (f"inv_2026-11_{both[0]}", 1)),
    ]


@pytest.mark.parametrize(
    ("zone", "month"), [("Asia/Tokyo", "2026-11"), ("UTC", "2026-10"), ("Pacific/Pago_Pago", "2026-10")]
)
async def test_a_draft_is_of_the_month_in_the_customers_zone(
    operator: Operator, services: AdminServices, clock: Clock, zone: str, month: str
) -> None:
    """Also where in UTC the month is another one, at the call or now."""
    customer = await operator.customer(timezone=zone)
    offset = 5 * 3_600_000 if zone == "Pacific/Pago_Pago" else -5 * 3_600_000
    clock.ms = OCTOBER_END + offset
    booked(services, call(1, customer, "m1", time=clock.ms))
    clock.ms += 3_600_000

    found = (await operator.get(f"/admin/customers/{customer}/invoices"))["data"]

    assert [one["id"] for one in found] == [f"inv_{month}_{customer}"]


async def test_credits_for_one_invoice_leave_the_others_creditable(operator: Operator, both: list[str]) -> None:
    """Each up to its own total; the note of a credit for a record is of that customer's invoice."""
    for number, name in enumerate(both, start=1):
        body = {"amount_nanousd": 7_900, "reason": "Outage", "record": f"call-00000{number}"}
        await operator.post(f"/admin/customers/{name}/credits", body)

    notes = (await operator.get("/admin/credit-notes"))["data"]
    assert [(note["customer"], note["invoice"]["id"]) for note in notes] == [
        (name, f"inv_2026-10_{name}") for name in both
    ]


async def test_erasing_a_customer_leaves_the_names_of_others(operator: Operator, both: list[str]) -> None:
    """On invoices and on credit notes."""
    for name in both:
        body = {"amount_nanousd": 900, "reason": f"{name} asked for it", "invoice": f"inv_2026-10_{name}"}
        await operator.post(f"/admin/customers/{name}/credits", body)

    await operator.delete(f"/admin/customers/{both[0]}?erase=true")

    invoices = (await operator.get("/admin/invoices"))["data"]
    notes = (await operator.get("/admin/credit-notes"))["data"]
    names = [
        {one["customer"]: (one["name"], one["external_id"]) for one in documents} for documents in (invoices, notes)
    ]
    assert names == [{both[0]: ("", None), both[1]: ("Bravo", "crm-Bravo")}] * 2
    assert [note["reason"] for note in notes] == [None, f"{both[1]} asked for it"]


async def test_a_month_comes_to_its_own_invoices(operator: Operator, services: AdminServices, clock: Clock) -> None:
    clock.ms = OCTOBER_END - 61 * DAY_MS
    customer = await operator.customer()
    booked(services, call(1, customer, "m1", time=clock.ms), call(2, customer, "m1"), call(3, customer, "m1"))
    clock.ms = CLOSED
    shown = [await operator.post(f"/admin/periods/{month}/close") for month in ("2026-09", "2026-10")]

    assert [(one["state"], one["invoices"], one["total_nanousd"]) for one in shown] == [
        *(("closed", 1, 7_900), ("closed", 1, 15_800)),
    ]


async def test_a_folder_has_all_invoices_of_its_month_and_nothing_of_another(
    operator: Operator, services: AdminServices, clock: Clock, tmp_path: Path
) -> None:
    """However many there are; a call of the next month is in no total."""
    names = [f"cus_{number:03}" for number in range(AT_ONCE + 1)]
    with services.database.write() as connection:
        connection.execute(insert(customers), [customer_row(name) for name in names])
    booked(services, *(call(number, name, "m1") for number, name in enumerate(names)))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    booked(services, call(500, names[0], "m1", time=CLOSED))

    manifest = write_month(tmp_path, services.database, InvoiceBook(services.database, ISSUER, clock), "2026-10")

    assert (manifest["invoices"], manifest["total_nanousd"]) == (len(names), 7_900 * len(names))
    totals = (tmp_path / "totals.csv").read_text().splitlines()[1:]
    assert [line.split(",")[:2] for line in totals] == [[name, "1"] for name in names]


def test_invoices_take_their_numbers_one_after_another(database: Database, services: AdminServices) -> None:
    """Whoever makes one final waits for whoever has the head of the chain."""
    booked(services, call(1, "cus_a", "m1"))
    month = closed_month(database, "cus_a")
    body = drafted(database, month, ISSUER, Terms(database))
    with ThreadPoolExecutor(1) as pool, database.write() as connection:
        connection.execute(select(chains.c.seq).with_for_update()).all()
        done = pool.submit(finalise, database, month, body, numbered=ISSUER.numbered, now_ms=5)
        with pytest.raises(TimeoutError):
            done.result(0.3)

    assert done.result(60) is True
