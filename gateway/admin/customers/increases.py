"""The routes of ``/admin/customers/{id}/increase``: limits that are raised until a moment, and then are as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Actor
from gateway.admin.api.inputs import InputMoment, Limits
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.billing.credits_and_fees import Reason
from gateway.admin.customers.customers import Customers, refuse_deleted
from gateway.admin.customers.shapes import CustomerShown
from gateway.catalog import customer_rows, menu_rows
from gateway.catalog.additions import Additions, menus_in
from gateway.catalog.customer_rows import CustomerRow
from gateway.catalog.problems import Invalid
from gateway.catalog.projector import project_customers
from gateway.holds.offer import HouseLimits, offer
from gateway.holds.terms import Timeline, standing
from pricing.menus.menu import LIMIT_FIELDS

Check = Callable[[Connection, CustomerRow, Timeline, int], None]


class NewIncrease(Limits):
    """Limits that apply until a moment, each above the present limit."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"spend_nanousd_max": 90_000_000_000, "until": "2026-12-01T00:00:00Z", "reason": "Launch"}]
        }
    )

    until: InputMoment = Field(description="From the first call after this moment on, the limits are as before.")
    reason: Reason


class Increases:
    """Raises limits of a customer for a time; a later increase replaces an earlier one."""

    def __init__(self, services: AdminServices) -> None:
        self._services = services
        self._database = services.database
        self._house = HouseLimits.of(services.settings)

    def add_to(self, routes: Routes) -> None:
        path = "/customers/{customer_id}/increase"
        routes.add("PUT", path, self.increase, "Raise a customer's limits for a time", 404, 409)
        routes.add("DELETE", path, self.end_increase, "End an increase", 404)

    def increase(self, customer_id: str, body: NewIncrease, actor: Actor) -> CustomerShown:
        """Raise limits of a customer until a moment. They apply to the running period, too: its usage so far counts."""

        def check(connection: Connection, row: CustomerRow, timeline: Timeline, now: int) -> None:
            refuse_deleted(row)
            _refuse_no_increase(body, _there(connection, row, timeline, now, self._house), now)

        raised: dict[str, object] = {"limits": body.set_limits(), "reason": body.reason}
        return self._change(customer_id, actor, raised, body.until, check)

    def end_increase(self, customer_id: str, actor: Actor) -> None:
        """End an increase now. Without an increase, nothing changes."""
        self._change(customer_id, actor, None, None, lambda *_: None)

    def _change(
        self, customer_id: str, actor: str, increase: dict[str, object] | None, until: int | None, check: Check
    ) -> CustomerShown:
        def alter(row: CustomerRow, _timeline: Timeline, _now: int) -> CustomerRow:
            return replace(row, increase=increase, increase_until=until)

        with self._database.write() as connection:
            menu_rows.hold_still(connection)
            row = customer_rows.find(connection, customer_id, locked=True)
            adding, timeline = Additions(actor, self._services.now_ms()), menu_rows.read_timeline(connection)
            check(connection, row, timeline, adding.now_ms)
            answer = Customers.altered(adding, row, alter, timeline, menus_in(connection), "customer.increase")
            adding.write(connection)
        if adding.changed:
            with saved_only(answer):
                project_customers(self._database, self._services.projection, [customer_id])
        return answer


def _there(
    connection: Connection, row: CustomerRow, timeline: Timeline, now_ms: int, house: HouseLimits
) -> dict[str, int | None]:
    """Return the limits that apply to a customer without an increase."""
    stands = standing(row.terms(), timeline, now_ms)
    menu = menu_rows.read_menu(connection, stands.version) if stands.version else None
    tier = menu.tier(stands.tier) if menu and stands.tier else None
    applies = offer(tier, stands.version, row.overrides, house)
    return {name: getattr(applies, name) for name in LIMIT_FIELDS}


def _refuse_no_increase(body: NewIncrease, applies: Mapping[str, int | None], now_ms: int) -> None:
    """Refuse limits that are not above the present limits, and a moment that is past.

    Raises:
        Invalid: a limit or the moment is refused, or no limit is named.
    """
    if body.until <= now_ms:
        raise Invalid.field("until", "This is past.")
    limits = body.set_limits()
    if not limits:
        raise Invalid.field("", "Name at least one limit.")
    errors = []
    for name, limit in limits.items():
        present = applies[name]
        if present is None:
            errors.append((name, "This is not limited."))
        elif limit <= present:
            errors.append((name, f"This is {present} already."))
    if errors:
        raise Invalid.fields(errors)
