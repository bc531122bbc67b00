"""Finds invoices: final invoices as they were written, drafts from the present records of the book."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

from gateway.billing.invoices import Issuer, drafted, id_of
from gateway.clock import written
from gateway.ledger.billing.closings import (
    CustomerMonth,
    is_month,
    month_after,
    month_at,
    month_in,
    months_of,
    open_since,
)
from gateway.ledger.billing.final_invoices import Invoice, Terms, invoice_of, invoices_in, names_of
from gateway.ledger.database import Database

Status = Literal["draft", "final"]

DRAFTS_MOST = 24
"""The most open months of a customer that are read: the latest."""

PREFIX = "inv_"
KEPT_S = 60.0
KEPT_MOST = 100
"""The most customers whose invoices are cached."""


@dataclass(frozen=True, slots=True)
class Some:
    """Some invoices, and the position at which the next invoices begin; None after the last."""

    data: list[Invoice]
    after: Any


class InvoiceBook:
    """All invoices of an installation.

    Args:
        now_ms: the time of day, ms; a customer has drafts up to the month of this time.

    Raises:
        MeteringUnavailable: the ledger is unavailable, from every method.
    """

    def __init__(self, database: Database, issuer: Issuer, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._issuer = issuer
        self._now_ms = now_ms

    def one(self, invoice_id: str) -> Invoice | None:
        """Return an invoice by its id: a final invoice, or the draft of a month that has records."""
        final = self.final(invoice_id)
        if final is not None or (customer := customer_in(invoice_id)) is None:
            return final
        month = invoice_id.removeprefix(PREFIX).partition("_")[0]
        found = next(iter(months_of(self._database, month, customer)), None)
        return None if found is None or id_of(found) != invoice_id else self._draft(found)

    def final(self, invoice_id: str) -> Invoice | None:
        """Return a final invoice by its id, or None where there is none."""
        final = invoice_of(self._database, invoice_id)
        return None if final is None else _shown(final)

    def of_customer(self, customer: str) -> list[Invoice]:
        """Return a customer's final invoices, and the drafts of its open months."""
        finals = [invoice for _, invoice in invoices_in(self._database, customer=customer, limit=1_000)]
        return [*map(_shown, finals), *self._drafts(customer)]

    def finals(self, customer: str | None, after: int, limit: int) -> Some:
        """Return final invoices in the order of their numbers."""
        found = invoices_in(self._database, customer=customer, after=after, limit=limit + 1)
        more = found[limit - 1][0] if len(found) > limit else None
        return Some([_shown(invoice) for _, invoice in found[:limit]], more)

    def of_month(self, month: str, *, customer: str | None, status: Status | None, after: str, limit: int) -> Some:
        """Return the invoices of a month by customer, final invoices and drafts."""
        found: list[Invoice] = []
        last = after
        for customer_month in months_of(self._database, month, customer, after=after):
            if len(found) == limit:
                return Some(found, last)
            last = customer_month.customer
            if status is not None and (status == "final") is not customer_month.is_invoiced:
                continue
            if customer_month.is_invoiced:
                stored = invoice_of(self._database, id_of(customer_month))
                shown = None if stored is None else _shown(stored)
            else:
                shown = self._draft(customer_month)
            if shown is not None:
                found.append(shown)
        return Some(found, None)

    def _drafts(self, customer: str) -> Iterator[Invoice]:
        since, zone = open_since(self._database, customer)
        if since is None:
            return
        with self._database.read() as connection:
            last = month_in(connection, customer, self._now_ms())
        names = [month_at(since, zone)]
        while names[-1] < last:
            names.append(month_after(names[-1]))
        for name in names[-DRAFTS_MOST:]:
            for month in months_of(self._database, name, customer):
                draft = None if month.is_invoiced else self._draft(month)
                if draft is not None:
                    yield draft

    def _draft(self, month: CustomerMonth) -> Invoice | None:
        body = drafted(self._database, month, self._issuer, Terms(self._database))
        if body is None:
            return None
        name, external_id = names_of(self._database, month.customer)
        return {**body, "name": name, "external_id": external_id}


def customer_in(invoice_id: str) -> str | None:
    """Return the customer that an invoice's id names; None where the text is no such id."""
    month, _, customer = invoice_id.removeprefix(PREFIX).partition("_")
    return customer if is_month(month) and customer else None


class LatestInvoices:
    """Invoices requested by customers: made at most once in ``KEPT_S`` for each customer, one customer at a time.

    A draft reads every record of its month, so nobody can keep the ledger busy by requests.

    Args:
        require_booked: raises where a customer's settled calls are not in the ledger, so that no invoice is made.
    """

    def __init__(
        self, book: InvoiceBook, monotonic: Callable[[], float], require_booked: Callable[[str], None]
    ) -> None:
        self._book = book
        self._require_booked = require_booked
        self._monotonic = monotonic
        self._turn = Lock()
        self._kept: dict[str, tuple[float, list[Invoice]]] = {}

    def of(self, customer: str) -> list[Invoice]:
        """Return a customer's final invoices and the drafts of its open months, as they were ``KEPT_S`` ago at most."""
        with self._turn:
            now = self._monotonic()
            cached = self._kept.pop(customer, (0.0, None))
            found = cached[1] if cached[1] is not None and now - cached[0] < KEPT_S else None
            if found is None:
                self._require_booked(customer)
                found, cached = self._book.of_customer(customer), (now, None)
            self._kept[customer] = cached[0], found
            while len(self._kept) > KEPT_MOST:
                del self._kept[next(iter(self._kept))]
            return found


def _shown(final: Invoice) -> Invoice:
    return {**final, "created": written(final["created"])}
