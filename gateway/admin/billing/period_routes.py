"""The routes of ``/admin/periods``: the state of all customers' months, and closing them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.api.idempotency import Keep, Post, Replies
from gateway.admin.api.inputs import Input, MonthName
from gateway.admin.api.routes import AdminServices, Routes
from gateway.billing.closing import Closing, State, patience_ms
from gateway.billing.invoices import Issuer
from gateway.catalog import audit_rows
from gateway.catalog.audit_rows import Audited
from gateway.ledger.billing.final_invoices import invoiced

Named = Annotated[MonthName, Path(description="A month, as `2026-10`.")]


class Nothing(Input):
    """The body of a request that has none."""


class WaitingShown(BaseModel):
    """A customer whose month is not closed."""

    customer: str
    why: str = Field(description="One sentence.", examples=["Calls of it may run until 2026-11-01T00:15:20.000Z."])


class PeriodShown(BaseModel):
    """The months of all customers, each in its own zone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "period": "2026-10",
                    "state": "closed",
                    "customers": 30,
                    "closed": 30,
                    "invoices": 28,
                    "total_nanousd": 91_000_000_000,
                    "waiting_for": [],
                }
            ]
        }
    )

    period: str
    state: Literal["open", "waiting", "closed"] = Field(
        description="`open` before it ended for any customer, `closed` once it is closed for all, `waiting` between."
    )
    customers: int = Field(description="The number of customers in the month.")
    closed: int = Field(description="The number of customers for which it is closed.")
    invoices: int = Field(description="The number of its final invoices.")
    total_nanousd: int = Field(description="The sum of these invoices.")
    waiting_for: list[WaitingShown] = Field(description="The first 100 customers for which it is not closed.")


class Periods:
    """Months. A closed month is the same bytes for ever: a later record counts in the month in which it is written."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._replies = replies
        self._database = services.database
        self._now_ms = services.now_ms
        settings = services.settings
        patience = patience_ms(settings.call_deadline_s, settings.lease_s)
        issuer = Issuer.of(settings)
        self._closing = Closing(services.database, services.redis, issuer, patience_ms=patience, now_ms=services.now_ms)

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/periods/{period}", self.period, "Read the state of a month", 404)
        routes.add("POST", "/periods/{period}/close", self.close_period, "Close a month as far as possible", 404)

    def period(self, period: Named) -> PeriodShown:
        """Report for how many customers a month is closed, and why the others wait."""
        return self._shown(period, self._closing.state(period))

    def close_period(self, period: Named, posted: Post) -> PeriodShown:
        """Close the month of each customer for which it has ended, no call can still run in it and all of it is booked.

        A customer's months are closed one after another. A repeated request goes on with the customers that are left.
        """

        def change(keep: Keep) -> PeriodShown:
            before = self._closing.state(period).closed
            answer = self._shown(period, self._closing.close(period))
            counts: tuple[dict[str, int], dict[str, int]] = {"closed": before}, {"closed": answer.closed}
            audited = Audited(self._now_ms(), posted.actor, "period.close", period, *counts)
            with self._database.write() as connection:
                audit_rows.record_all(connection, [audited] if before != answer.closed else [])
                keep(connection, answer)
            return answer

        return self._replies.once(posted, Nothing(), PeriodShown, change)

    def _shown(self, period: str, state: State) -> PeriodShown:
        count, total = invoiced(self._database, period)
        return PeriodShown(
            period=period,
            state=state.name,
            customers=state.customers,
            closed=state.closed,
            invoices=count,
            total_nanousd=total,
            waiting_for=[WaitingShown(customer=waiting.customer, why=waiting.why) for waiting in state.waiting_for],
        )
