"""The routes of ``/admin/customers``: who may buy, on which tier, with which limits of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import Query
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Actor, Keep, Post, Replies
from gateway.admin.api.inputs import OneLine, TierName
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, position_of
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.customers.changes import to_come, with_change, with_tier
from gateway.admin.customers.shapes import CustomerChange, CustomerShown, CustomersShown, NewCustomer, TierChoice, shown
from gateway.catalog import api_key_rows, audit_rows, customer_rows, kept_replies, menu_rows
from gateway.catalog.additions import Additions, MenuOf, menus_in
from gateway.catalog.audit_rows import Audited
from gateway.catalog.customer_rows import CustomerRow, Status, folded
from gateway.catalog.problems import Conflict, Invalid
from gateway.catalog.projector import project_customers, project_keys
from gateway.clock import written
from gateway.holds.maintenance.redis_erasure import erase_customer
from gateway.holds.store.redis_keys import bucket_of
from gateway.holds.terms import Timeline
from gateway.ledger.billing import adjustment_reasons, dropped_months, final_invoices, issued_notes
from gateway.ledger.book import erasure
from gateway.ledger.book.erasure import erase_records
from gateway.ledger.cursors import cursor_of
from gateway.ledger.database import Database
from gateway.ledger.read.read_your_writes import wait_until_booked

ERASED: dict[str, str | None] = {"name": "", "external_id": None}

Alter = Callable[[CustomerRow, Timeline, int], CustomerRow]
"""Returns a customer's changed row, from its present row, the publications and the time."""


class Customers:
    """The routes of customers. The serving path reads a copy of the customers, in Redis."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._services = services
        self._database = services.database
        self._now_ms = services.now_ms
        self._replies = replies

    def add_to(self, routes: Routes) -> None:
        path = "/customers/{customer_id}"
        routes.add("POST", "/customers", self.create, "Create a customer", 409)
        routes.add("GET", "/customers", self.list, "List customers")
        routes.add("GET", path, self.read, "Read a customer", 404)
        routes.add("PATCH", path, self.change, "Change a customer", 404, 409)
        routes.add("DELETE", path, self.delete, "Delete a customer", 404)
        routes.add("PUT", f"{path}/tier", self.set_tier, "Set a customer's tier", 404, 409)

    def create(self, body: NewCustomer, posted: Post) -> CustomerShown:
        """Create a customer. It has no API key yet: make one with `POST /admin/customers/{id}/keys`."""

        def change(keep: Keep) -> CustomerShown:
            with self._database.write() as connection:
                menu_rows.hold_still(connection)
                adding = Additions(posted.actor, self._now_ms())
                timeline = menu_rows.read_timeline(connection)
                answer = self.new(adding, body, timeline, menus_in(connection))
                adding.write(connection)
                keep(connection, answer)
            with saved_only(answer):
                project_customers(self._database, self._services.projection, [answer.id])
            return answer

        return self._replies.once(posted, body, CustomerShown, change)

    def new(self, adding: Additions, body: NewCustomer, timeline: Timeline, menu_of: MenuOf) -> CustomerShown:
        """Return a new customer and add it to ``adding``; the caller holds the menus still until it is written."""
        now = adding.now_ms
        row = with_tier(self._new(body, now), body.tier, "now", timeline, now)
        _refuse_unsold(menu_of, row, timeline, now)
        answer = shown(row, timeline, now)
        adding.customers.append(row)
        adding.audited.append(_audited(now, adding.actor, "customer.create", None, answer))
        return answer

    @staticmethod
    def altered(
        adding: Additions, row: CustomerRow, alter: Alter, timeline: Timeline, menu_of: MenuOf, action: str
    ) -> CustomerShown:
        """Return a locked customer as ``alter`` changes it; add the change to ``adding`` unless the row is the same."""
        now = adding.now_ms
        before = folded(row, now)
        after = alter(before, timeline, now)
        answer = shown(after, timeline, now)
        if after == before:
            return answer
        if (after.tier, after.next_tier_at, after.next_tier) != (before.tier, before.next_tier_at, before.next_tier):
            _refuse_unsold(menu_of, after, timeline, now)
        adding.changed.append(after)
        adding.audited.append(_audited(now, adding.actor, action, shown(before, timeline, now), answer))
        return answer

    def _new(self, body: NewCustomer, now_ms: int) -> CustomerRow:
        return CustomerRow(
            id=self._services.new_id("cus"),
            name=body.name,
            tier=None,
            tier_since=now_ms,
            status=body.status,
            period=body.period,
            timezone=body.timezone,
            created=now_ms,
            external_id=body.external_id,
            overrides=body.overrides.to_dict(),
            notice_percents=body.notice_percents,
        )

    def list(
        self,
        status: Annotated[Status | None, Query(description="Only customers of this status.")] = None,
        tier: Annotated[
            TierName | None, Query(description="Only customers that have this tier now, however they got it.")
        ] = None,
        external_id: Annotated[OneLine | None, Query(description="Only customers with this external id.")] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> CustomersShown:
        """List customers in the order they were created, including deleted customers."""
        after = None if cursor is None else position_of(cursor, int, str)
        with self._database.read() as connection:
            timeline = menu_rows.read_timeline(connection)
        filters = {"status": status, "external_id": external_id}
        matching = _page_of(self._database, timeline, self._now_ms(), tier, after, filters, limit + 1)
        last = matching[limit - 1] if len(matching) > limit else None
        return CustomersShown(
            data=[customer for _, customer in matching[:limit]],
            next_cursor=None if last is None else cursor_of(last[0].created, last[0].id),
        )

    def read(self, customer_id: str) -> CustomerShown:
        """Return a customer, which may be deleted."""
        with self._database.read() as connection:
            row = customer_rows.find(connection, customer_id)
            timeline = menu_rows.read_timeline(connection)
        return shown(row, timeline, self._now_ms())

    def change(self, customer_id: str, body: CustomerChange, actor: Actor) -> CustomerShown:
        """Change the fields in the body. Open conversations keep their tier and its price."""

        def alter(row: CustomerRow, timeline: Timeline, now: int) -> CustomerRow:
            return with_change(row, body, timeline, now)

        return self._change(customer_id, actor, "customer.change", alter)

    def set_tier(self, customer_id: str, body: TierChoice, actor: Actor) -> CustomerShown:
        """Give a customer another tier, now or from its next period on. Open conversations keep their tier."""

        def alter(row: CustomerRow, timeline: Timeline, now: int) -> CustomerRow:
            return with_tier(row, body.tier, body.effective, timeline, now)

        return self._change(customer_id, actor, "customer.tier", alter)

    def _change(self, customer_id: str, actor: str, action: str, alter: Alter) -> CustomerShown:
        with self._database.write() as connection:
            menu_rows.hold_still(connection)
            row = customer_rows.find(connection, customer_id, locked=True)
            refuse_deleted(row)
            adding, timeline = Additions(actor, self._now_ms()), menu_rows.read_timeline(connection)
            answer = self.altered(adding, row, alter, timeline, menus_in(connection), action)
            if not adding.changed:
                return answer
            adding.write(connection)
        with saved_only(answer):
            project_customers(self._database, self._services.projection, [customer_id])
        return answer

    def delete(
        self,
        customer_id: str,
        actor: Actor,
        erase: Annotated[
            bool,
            Query(
                description="Also erase permanently data that names the customer or its users: see docs/operator.md."
            ),
        ] = False,
    ) -> None:
        """Delete a customer: its keys stop working at once, its live calls finish and are billed.

        Its usage stays in the book. Deleting it again changes nothing, but may still erase it.
        """
        with self._database.write() as connection:
            row = customer_rows.find(connection, customer_id, locked=True)
            now = self._now_ms()
            before = folded(row, now)
            after = replace(before, status="deleted")
            if erase:
                erasure.begin(connection)
                after = replace(after, name="", external_id=None, erased=before.erased or now)
                after = replace(after, increase=None, increase_until=None)
            key_ids = api_key_rows.revoke_all(connection, customer_id, now)
            if after != before:
                customer_rows.store(connection, after)
                timeline = menu_rows.read_timeline(connection)
                action, old = "customer.erase" if erase else "customer.delete", shown(before, timeline, now)
                audited = _audited(now, actor, action, old, shown(after, timeline, now))
                audit_rows.record_all(connection, [audited])
            if erase:
                self._erase_beside_the_book(connection, customer_id)
        with saved_only():
            project_customers(self._database, self._services.projection, [customer_id])
            project_keys(self._database, self._services.projection, key_ids)
            if erase:
                self._erase_the_rest(customer_id)

    def _erase_beside_the_book(self, connection: Connection, customer_id: str) -> None:
        audit_rows.erase(connection, customer_id, ERASED | {"reason": None, "increase": None})
        adjustment_reasons.erase_reasons(connection, customer_id)
        final_invoices.erase_names(connection, customer_id)
        issued_notes.erase_note_names(connection, customer_id)
        kept_replies.erase(connection, customer_id, ERASED)
        for key_id in api_key_rows.forget_names(connection, customer_id):
            audit_rows.erase(connection, key_id, {"name": None})
            kept_replies.erase_key(connection, key_id)
        dropped_months.erase_kept_words(connection, customer_id)
        erasure.erase_beside(connection, customer_id, self._services.random_bytes(32))

    def _erase_the_rest(self, customer_id: str) -> None:
        """Erase the customer from the book's rows, from Redis and from the files of both; a retry repeats all of it."""
        wait_until_booked(self._services.redis, [bucket_of(customer_id)])
        erase_records(self._database, customer_id, self._services.random_bytes(32), self._now_ms())
        erase_customer(self._services.redis, customer_id)
        self._database.forget_what_was_erased()


def _page_of(
    database: Database,
    timeline: Timeline,
    now_ms: int,
    tier: str | None,
    after: tuple[int, str] | None,
    filters: Mapping[str, str | None],
    limit: int,
) -> list[tuple[CustomerRow, CustomerShown]]:
    """Return the first customers after a position; ``tier`` is matched with the tier that a customer has now."""
    needed = menu_rows.still_needed(timeline)
    tiers = () if tier is None else timeline.former_names(tier)
    page_size = limit if tier is None else customer_rows.ROWS_AT_ONCE
    matching: list[tuple[CustomerRow, CustomerShown]] = []
    while len(matching) < limit:
        with database.read() as connection:
            rows = customer_rows.page(connection, limit=page_size, after=after, tiers=tiers, **filters)
        candidates = [(row, shown(row, needed, now_ms)) for row in rows]
        matching += [candidate for candidate in candidates if tier is None or candidate[1].tier == tier]
        if len(rows) < page_size:
            break
        after = rows[-1].created, rows[-1].id
    return matching[:limit]


def refuse_deleted(row: CustomerRow) -> None:
    """Raise Conflict where a customer was deleted: deletion cannot be undone."""
    if row.status == "deleted":
        raise Conflict(f"The customer {row.id} was deleted.", code="customer_deleted")


def _refuse_unsold(menu_of: MenuOf, row: CustomerRow, timeline: Timeline, now_ms: int) -> None:
    """Raise Invalid where a tier of the customer is not on the menu that is, or will be, in force at its time."""
    for at, stands in to_come(row, timeline, now_ms):
        if stands.tier is None:
            continue
        if stands.version is None:
            raise Invalid.field("tier", "No menu is in force yet, so there is no tier to have.", "tier_not_found")
        menu = menu_of(stands.version)
        if menu.tier(stands.tier) is None:
            sold = ", ".join(tier.name for tier in menu.tiers) or "none"
            when = "in force" if at <= max(now_ms, row.tier_since) else f"in force from {written(at)} on"
            raise Invalid.field(
                "tier", f"The menu {when} has no tier {stands.tier!r}; its tiers: {sold}.", "tier_not_found"
            )


def _audited(now_ms: int, actor: str, action: str, before: CustomerShown | None, after: CustomerShown) -> Audited:
    old, new = before.model_dump(mode="json") if before else None, after.model_dump(mode="json")
    if old is not None:
        differing = [name for name in new if new[name] != old[name]]
        old, new = {name: old[name] for name in differing}, {name: new[name] for name in differing}
    return Audited(now_ms, actor, action, after.id, old, new)
