"""What is answered while calls are settled and not booked: what has them all, or 503, or what is there where asked so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.admin.api.idempotency import Replies
from gateway.admin.api.routes import AdminServices
from gateway.admin.customers.customers import Customers
from gateway.admin.customers.self_service import SelfService
from gateway.billing.invoices import Issuer, finalised
from gateway.errors import CallsUnbooked
from gateway.ledger.billing.closings import close, months_of
from gateway.ledger.billing.final_invoices import Terms
from gateway.ledger.book.appender import append
from tests.gateway.admin.operator import Clock, Operator
from tests.gateway.ledger.records import record, settle, settled_call

DAY_MS = 86_400_000
OCTOBER_END = 1_793_491_200_000  # 2026-11-01T00:00:00Z
ISSUER = Issuer((), (), "", "USD")
NOVEMBER = OCTOBER_END + DAY_MS


@pytest.fixture
def clock() -> Clock:
    return Clock(OCTOBER_END - 31 * DAY_MS)


@pytest.fixture
async def customer(operator: Operator, services: AdminServices, clock: Clock) -> str:
    """A customer with a closed and invoiced October, and a call of November that nobody books."""
    name = await operator.customer(name="Acme")
    append(services.database, [record(1, customer=name, time=OCTOBER_END - DAY_MS, settled=OCTOBER_END - DAY_MS)])
    append(services.database, [record(2, customer=name, time=NOVEMBER, settled=NOVEMBER)])
    [october] = months_of(services.database, "2026-10")
    with services.database.write() as connection:
        close(connection, [october], NOVEMBER)
    [october] = months_of(services.database, "2026-10")
    finalised(services.database, october, ISSUER, Terms(services.database), lambda: NOVEMBER)
    clock.ms = NOVEMBER + 5
    settle(services.redis, settled_call(3, customer=name, time=NOVEMBER + 1))
    return name


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/totals?by=day&period=2026-11", "/admin/usage?customer=CUSTOMER", "/admin/invoices?period=2026-11"),
        *("/admin/customers/CUSTOMER/invoices", "/admin/invoices/inv_2026-11_CUSTOMER"),
    ],
)
async def test_what_lacks_settled_calls_is_503_or_what_is_there_where_asked_so(
    operator: Operator, customer: str, path: str
) -> None:
    path = path.replace("CUSTOMER", customer)

    refusal = await operator.refused("GET", path)
    asked = await operator.send("GET", f"{path}{'&' if '?' in path else '?'}open=true")

    assert (refusal["status"], refusal["code"]) == (503, "metering_unavailable")
    assert "open=true" in refusal["detail"]
    assert asked.status_code == 200
    assert asked.json().get("closed", False) is False


async def test_an_open_export_says_that_it_is_open(operator: Operator, customer: str) -> None:
    refusal = await operator.refused("GET", "/admin/exports?period=2026-11")
    asked = await operator.send("GET", "/admin/exports?period=2026-11&open=true")

    assert (refusal["status"], refusal["code"]) == (409, "period_open")
    assert (asked.status_code, asked.headers["x-tokencap-closed"]) == (200, "false")
    assert customer in asked.text


@pytest.mark.parametrize(
    "path",
    [
        *("/admin/totals?by=day&period=2026-10", "/admin/exports?period=2026-10", "/admin/invoices"),
        *("/admin/invoices?period=2026-10&status=final", "/admin/invoices/inv_2026-10_CUSTOMER"),
    ],
)
async def test_what_is_closed_is_read_at_any_time(operator: Operator, customer: str, path: str) -> None:
    """No call that is settled now counts in it."""
    answer = await operator.send("GET", path.replace("CUSTOMER", customer))

    assert answer.status_code == 200
    assert customer in answer.text or answer.json()["closed"] is True


async def test_prepaid_credit_is_not_read_without_settled_calls(operator: Operator, customer: str) -> None:
    refusal = await operator.refused("GET", f"/admin/customers/{customer}/prepaid")

    assert (refusal["status"], refusal["code"]) == (503, "metering_unavailable")


READS: dict[str, Callable[[SelfService, str], Any]] = {
    "usage": lambda own, customer: own.usage(customer, None, None, 10, None, None),
    "invoices": lambda own, customer: own.invoices(customer),
    "draft": lambda own, customer: own.invoice(customer, f"inv_2026-11_{customer}"),
    "prepaid": lambda own, customer: own.prepaid(customer),
    "proof": lambda own, customer: own.proof(customer, settled_call(2)["id"]),
    "costs": lambda own, customer: own.organization(customer, True, f"start_time={NOVEMBER // 1000}"),
}


@pytest.mark.parametrize("name", READS)
async def test_a_customer_reads_nothing_that_lacks_its_settled_calls(
    services: AdminServices, customer: str, name: str
) -> None:
    """A 503 with `Retry-After`; a final invoice has all that it will ever have."""
    own = SelfService(services, Customers(services, Replies(services.database, services.now_ms)))

    with pytest.raises(CallsUnbooked) as refusal:
        READS[name](own, customer)

    assert refusal.value.headers == {"retry-after": "1"}
    assert own.invoice(customer, f"inv_2026-10_{customer}")["status"] == "final"
