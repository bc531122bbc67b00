"""A month whose records are dropped, over REST: totals, invoices and the folder of the month are the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.admin.api.routes import AdminServices
from gateway.billing.invoice_book import InvoiceBook
from gateway.billing.month_folder import write_month
from gateway.billing.retention import DAY_MS, Retention
from gateway.billing.totals import FIELD_OF
from gateway.ledger.book.sealing import Sealer
from gateway.ledger.sums.rollup import Rollup
from tests.gateway.admin.billing.test_invoices import CLOSED, ISSUER, OCTOBER_END, booked, call, version
from tests.gateway.admin.operator import Clock, Operator, fields_of

LATER = OCTOBER_END + 70 * DAY_MS


@pytest.fixture
def clock() -> Clock:
    return Clock(OCTOBER_END - 31 * DAY_MS)


@pytest.fixture
async def acme(operator: Operator, services: AdminServices, clock: Clock) -> str:
    """A customer whose October is invoiced, and who called in January."""
    menu = await version(operator)
    customer = await operator.customer(name="Acme", external_id="crm-1")
    booked(services, call(1, customer, menu), call(2, customer, menu, charge_nanousd=7_000))
    clock.ms = CLOSED
    await operator.post("/admin/periods/2026-10/close")
    booked(services, call(3, customer, menu, time=LATER))
    return customer


def drop_october(services: AdminServices) -> int:
    """Return how many records were dropped."""
    Sealer(services.database, lambda: LATER).turn(all_of_it=True)
    Rollup(services.database).bring_up_to_date(LATER)
    assert Retention(services.database, lambda: LATER, 62).turn() == 1
    return Retention(services.database, lambda: LATER + DAY_MS, 62).turn()


def folder(services: AdminServices, path: Path) -> dict[str, bytes]:
    write_month(path, services.database, InvoiceBook(services.database, ISSUER, lambda: LATER), "2026-10")
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


async def everything(operator: Operator, customer: str) -> Any:
    totals = [await operator.get(f"/admin/totals?by={by}&period=2026-10") for by in FIELD_OF]
    invoices = await operator.get(f"/admin/customers/{customer}/invoices")
    page = await operator.send("GET", f"/admin/invoices/inv_2026-10_{customer}", accept="text/html")
    return totals, invoices, page.text, await operator.get("/admin/periods/2026-10")


async def test_a_dropped_month_is_shown_as_before(
    operator: Operator, services: AdminServices, acme: str, tmp_path: Path
) -> None:
    """Closing it once more changes nothing either."""
    before, files = await everything(operator, acme), folder(services, tmp_path / "before")

    assert drop_october(services) == 2

    assert await everything(operator, acme) == before
    assert folder(services, tmp_path / "after") == files
    await operator.post("/admin/periods/2026-10/close")
    assert await everything(operator, acme) == before


async def test_its_records_are_refused(operator: Operator, services: AdminServices, acme: str) -> None:
    """Never a file that lacks some; a credit names the invoice in place of a record that is gone."""
    drop_october(services)

    for path in ("exports?period=2026-10", "totals?by=tier&from=2026-10-05&to=2026-11-05"):
        assert (await operator.refused("GET", f"/admin/{path}"))["code"] == "records_dropped"
    assert [one["id"] for one in (await operator.get("/admin/usage"))["data"]] == ["call-000003"]
    body = {"amount_nanousd": 900, "reason": "Outage", "record": "call-000001"}
    named = await operator.refused("POST", f"/admin/customers/{acme}/credits", body)
    assert fields_of(named) == {"record"}
    del body["record"]
    await operator.post(f"/admin/customers/{acme}/credits", {**body, "invoice": f"inv_2026-10_{acme}"})
