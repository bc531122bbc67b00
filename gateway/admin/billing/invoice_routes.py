"""The routes of invoices: drafts of open months and final invoices, as JSON or as a printable page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Header, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from gateway.admin.api.inputs import Moment, MonthName
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.records.spans import OfCustomer
from gateway.admin.records.usage_records import AskedOpen
from gateway.billing.invoice_book import InvoiceBook, customer_in
from gateway.billing.invoice_page import page
from gateway.billing.invoices import Issuer
from gateway.billing.lines import KINDS
from gateway.catalog import customer_rows
from gateway.catalog.problems import Invalid, NotFound
from gateway.ledger.cursors import cursor_of
from gateway.ledger.read.read_your_writes import require_booked

HTML = "text/html"


class InvoicePeriod(BaseModel):
    """A customer's month, half-open."""

    month: str = Field(examples=["2026-10"])
    start: Moment
    end: Moment
    timezone: str


class InvoiceLine(BaseModel):
    """A quantity of one item at one price, and the records that it is made of."""

    kind: str = Field(json_schema_extra={"enum": list(KINDS)})
    tier: str | None
    menu_version: str | None
    quantity: int
    unit: str = Field(
        description="The unit that is counted: `conversation`, `period`, `tokens`, `fee`, `correction`, `credit`."
    )
    unit_nanousd: int | None = Field(description="The price of one unit, or of a million tokens. Null for corrections.")
    amount_nanousd: int = Field(
        description="Each call is rounded down separately, so an amount for tokens may be a little less."
    )
    records: int
    first_record: str
    last_record: str


class InvoiceLedger(BaseModel):
    """The position of the invoice's records in the ledger."""

    chain: str
    first_seq: int
    last_seq: int
    seal: Any = None


class InvoiceIssuer(BaseModel):
    """The sender of the invoice, from the settings as they were when it became final."""

    address: list[str]
    tax_lines: list[str]


class InvoicePrepaid(BaseModel):
    """The part of an invoice that prepaid credit pays: before + added = drawn + left."""

    before_nanousd: int = Field(description="The credit that was left when the month began.")
    added_nanousd: int = Field(description="The amount that was paid in advance in the month.")
    drawn_nanousd: int = Field(
        description="The part of the total that it pays; a total below zero is added to the credit left."
    )
    left_nanousd: int
    due_nanousd: int = Field(description="The amount owed: the total less the amount drawn.")


class InvoiceShown(BaseModel):
    """An invoice. Its lines add up to its total; a final invoice is never changed."""

    id: str = Field(examples=["inv_2026-10_cus_5bd0c1f2a47e9c3d10fa2b64"])
    number: str | None = Field(
        description="Numbers have no gap, in the order in which invoices became final; null on a draft."
    )
    status: Literal["draft", "final"]
    customer: str
    external_id: str | None
    name: str
    period: InvoicePeriod
    currency: str
    lines: list[InvoiceLine]
    total_nanousd: int
    prepaid: InvoicePrepaid | None = Field(
        default=None, description="Null where the customer has paid nothing in advance."
    )
    records: int = Field(description="The number of records that count in the month.")
    ledger: InvoiceLedger
    issuer: InvoiceIssuer
    created: Moment | None = Field(description="When the invoice became final.")


class InvoicesShown(Page[InvoiceShown]):
    """Final invoices by number, or the invoices of a month by customer."""


class Invoices:
    """The routes of ``/admin/invoices``."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis
        self._book = InvoiceBook(services.database, Issuer.of(services.settings), services.now_ms)

    def add_to(self, routes: Routes) -> None:
        html_answer = {"description": "The invoice.", "content": {HTML: {"schema": {"type": "string"}}}}
        routes.add("GET", "/invoices", self.invoices, "List invoices")
        routes.add(
            *("GET", "/invoices/{invoice_id}", self.invoice, "Read or print an invoice", 404),
            answer=html_answer,
            response_model=InvoiceShown,
        )
        path = "/customers/{customer_id}/invoices"
        routes.add("GET", path, self.customer_invoices, "List a customer's invoices", 404)

    def invoices(
        self,
        period: Annotated[MonthName | None, Query(description="Only invoices of this month, by customer.")] = None,
        customer: OfCustomer = None,
        status: Annotated[
            Literal["draft", "final"] | None,
            Query(description="Only invoices of this status; drafts are listed by `period`."),
        ] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        is_open: AskedOpen = False,
    ) -> InvoicesShown:
        """List a month's drafts and final invoices by customer or, without `period`, final invoices by number.

        Where there may be drafts, the answer waits, up to two seconds, until every call that was settled before this
        request is in the book. If some calls are still missing then, the answer is 503; with `open=true` drafts are
        made from the records of the book.
        """
        if period is None:
            if status == "draft":
                raise Invalid.field("period", "Drafts are listed by month: say which.")
            after = 0 if cursor is None else position_of(cursor, int)[0]
            listed = self._book.finals(customer, after, limit)
        else:
            if status != "final":
                require_booked(self._redis, customer, is_open=is_open)
            last = "" if cursor is None else position_of(cursor, str)[0]
            listed = self._book.of_month(period, customer=customer, status=status, after=last, limit=limit)
        return InvoicesShown(
            data=[InvoiceShown(**invoice) for invoice in listed.data],
            next_cursor=None if listed.after is None else cursor_of(listed.after),
        )

    def invoice(
        self,
        invoice_id: str,
        accept: Annotated[str | None, Header(description="`text/html` returns a page.")] = None,
        is_open: AskedOpen = False,
    ) -> Response:
        """Read a final invoice or a draft; with `Accept: text/html` as a printable page.

        A draft waits for settled calls as the list of a month does.
        """
        invoice = self._book.final(invoice_id)
        if invoice is None and (customer := customer_in(invoice_id)) is not None:
            require_booked(self._redis, customer, is_open=is_open)
            invoice = self._book.one(invoice_id)
        if invoice is None:
            raise NotFound(f"There is no invoice {invoice_id[:128]!r}.")
        if prefers_page(accept):
            return HTMLResponse(page(invoice), headers=ALONE)
        return JSONResponse(InvoiceShown(**invoice).model_dump(mode="json"))

    def customer_invoices(self, customer_id: str, is_open: AskedOpen = False) -> InvoicesShown:
        """List a customer's final invoices, and the drafts of its open months.

        The answer waits for settled calls as the list of a month does.
        """
        with self._database.read() as connection:
            customer_rows.find(connection, customer_id)
        require_booked(self._redis, customer_id, is_open=is_open)
        invoices = self._book.of_customer(customer_id)
        return InvoicesShown(data=[InvoiceShown(**invoice) for invoice in invoices], next_cursor=None)


ALONE = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}
"""The policy of a page that loads nothing and runs nothing."""


def prefers_page(accept: str | None) -> bool:
    """Return whether a caller prefers a page to JSON."""
    media_types = [media_type.partition(";")[0].strip().lower() for media_type in (accept or "").split(",")]
    return HTML in media_types and "application/json" not in media_types[: media_types.index(HTML)]
