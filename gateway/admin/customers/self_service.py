"""Changes and reads of a customer's own account, in the operator's order: the ledger first, then Redis."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from gateway.admin.api.routes import AdminServices
from gateway.admin.customers.customers import Customers
from gateway.admin.customers.shapes import TierChoice
from gateway.billing.invoice_book import InvoiceBook, LatestInvoices
from gateway.billing.invoices import Issuer
from gateway.billing.organization import COSTS, USAGE, page, question
from gateway.catalog import customer_rows, menu_rows
from gateway.errors import BadRequest, RouteNotFound, TierNotFound
from gateway.holds.terms import standing
from gateway.ledger.billing.issued_notes import note_of, notes_in
from gateway.ledger.billing.usage_buckets import sums_by_bucket
from gateway.ledger.book.proofs import proof_of
from gateway.ledger.book.seals import seals_page
from gateway.ledger.cursors import NoCursor, cursor_of, position_of
from gateway.ledger.read.queries import Span, usage_page
from gateway.ledger.read.read_your_writes import require_booked


class SelfService:
    """Blocking calls for one customer, which its key has already identified.

    Raises:
        MeteringUnavailable: Redis or the ledger is unavailable, from every method.
        CallsUnbooked: the customer's settled calls are known to be missing from the ledger, from the methods that read
            records or drafts.
    """

    def __init__(self, services: AdminServices, customers: Customers) -> None:
        self._services = services
        self._customers = customers
        self._book = InvoiceBook(services.database, Issuer.of(services.settings), services.now_ms)
        self._invoices = LatestInvoices(self._book, time.monotonic, partial(require_booked, services.redis))

    def choose(self, customer_id: str, tier: str) -> None:
        """Give the customer the tier: from its next conversation on, or from the end of its paid period.

        Raises:
            TierNotFound: the menu in force has no such tier.
        """
        with self._services.database.read() as connection:
            row = customer_rows.find(connection, customer_id)
            stands = standing(row.terms(), menu_rows.read_timeline(connection), self._services.now_ms())
            menu = menu_rows.read_menu(connection, stands.version) if stands.version else None
        if menu is None or menu.tier(tier) is None:
            raise TierNotFound(f"There is no tier called {tier[:64]}.", param="tier")
        has_paid = row.subscription is not None and row.subscription.is_open(self._services.now_ms())
        choice = TierChoice(tier=tier, effective="next_period" if has_paid else "now")
        self._customers.set_tier(customer_id, choice, actor=customer_id)

    def usage(
        self,
        customer_id: str,
        since: int | None,
        until: int | None,
        limit: int,
        cursor: str | None,
        end_user: str | None,
    ) -> Any:
        """Return a page of records of the customer or an end user, once calls settled before the request are booked.

        Raises:
            BadRequest: ``cursor`` is not a cursor of this list.
        """
        require_booked(self._services.redis, customer_id)
        span = Span(customer_id, since, until, end_user)
        records_page = usage_page(self._services.database, span, limit=limit, cursor=cursor)
        return {"data": records_page.records, "next_cursor": records_page.next_cursor}

    def invoices(self, customer_id: str) -> Any:
        """Return the customer's final invoices and the drafts of its open months, no older than a minute."""
        return {"data": self._invoices.of(customer_id), "next_cursor": None}

    def invoice(self, customer_id: str, invoice_id: str) -> Any:
        """Return one of the customer's invoices. A final invoice is read also where the ledger is behind.

        Raises:
            RouteNotFound: the customer has no such invoice.
        """
        final = self._book.final(invoice_id) if invoice_id.isprintable() else None
        if final is not None and final["customer"] == customer_id:
            return final
        invoice = next(
            (candidate for candidate in self._invoices.of(customer_id) if candidate["id"] == invoice_id), None
        )
        if invoice is None:
            raise RouteNotFound(f"There is no invoice {invoice_id[:64]!r} of yours.")
        return invoice

    def prepaid(self, customer_id: str) -> Any:
        """Return the customer's remaining prepaid credit, no older than a minute."""
        of_month = {
            invoice["period"]["month"]: invoice["prepaid"]
            for invoice in self._invoices.of(customer_id)
            if invoice.get("prepaid")
        }
        left = of_month[max(of_month)]["left_nanousd"] if of_month else 0
        return {"currency": self._services.settings.currency, "left_nanousd": left}

    def credit_notes(self, customer_id: str, limit: int, cursor: str | None) -> Any:
        """Return a page of the customer's credit notes, by number.

        Raises:
            BadRequest: ``cursor`` is not a cursor of this list.
        """
        try:
            [after] = (0,) if cursor is None else position_of(cursor, int)
        except NoCursor as error:
            raise BadRequest("This cursor is not one that a list gave out.", param="cursor") from error
        notes = notes_in(self._services.database, customer=customer_id, after=int(after), limit=limit + 1)
        next_cursor = cursor_of(notes[limit - 1][0]) if len(notes) > limit else None
        return {"data": [note for _, note in notes[:limit]], "next_cursor": next_cursor}

    def credit_note(self, customer_id: str, note_id: str) -> Any:
        """Return one of the customer's credit notes.

        Raises:
            RouteNotFound: the customer has no such credit note.
        """
        note = note_of(self._services.database, note_id) if note_id.isprintable() else None
        if note is None or note["customer"] != customer_id:
            raise RouteNotFound(f"There is no credit note {note_id[:64]!r} of yours.")
        return note

    def proof(self, customer_id: str, record_id: str) -> Any:
        """Return the proof of one of the customer's records, once everything settled before the request is booked.

        Raises:
            RouteNotFound: the customer has no such record.
            NotSealedYet: no seal covers it yet.
        """
        require_booked(self._services.redis, customer_id)
        proof = proof_of(self._services.database, record_id, customer_id)
        if proof is None:
            raise RouteNotFound(f"There is no usage record {record_id[:64]!r} of yours.")
        return proof

    def seals(self, limit: int, cursor: str | None) -> Any:
        """Return a page of the ledger's seals, newest first.

        Raises:
            BadRequest: ``cursor`` is not a cursor of this list.
        """
        seals_found = seals_page(self._services.database, limit=limit, cursor=cursor)
        return {"data": [seal.to_json() for seal in seals_found.seals], "next_cursor": seals_found.next_cursor}

    def organization(self, customer_id: str, is_costs: bool, query: str) -> Any:
        """Return the customer's usage or costs by buckets of time, as OpenAI's routes of an organization do.

        Raises:
            BadRequest, UnknownParameter: the query is invalid on that route.
        """
        services = self._services
        request = question(COSTS if is_costs else USAGE, query, services.now_ms())
        require_booked(services.redis, customer_id)
        filters = dict(request.only)
        is_empty = request.is_empty or customer_id not in filters.pop("customer", (customer_id,))
        buckets = (
            []
            if is_empty
            else sums_by_bucket(
                services.database,
                customer_id,
                request.start,
                request.until,
                request.width_ms,
                by=request.by,
                only=filters,
                generates=not is_costs,
            )
        )
        return page(request, buckets, customer_id, services.settings.currency)
