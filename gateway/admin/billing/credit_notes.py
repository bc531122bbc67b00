"""The routes of credit notes: documents of credits for a final invoice's charges, as JSON or as a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field

from gateway.admin.api.inputs import Moment, OneLine
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.billing.invoice_routes import ALONE, HTML, InvoiceIssuer, prefers_page
from gateway.admin.records.spans import OfCustomer
from gateway.billing.credit_note_page import note_page
from gateway.catalog.problems import NotFound
from gateway.ledger.billing.issued_notes import note_of, notes_in
from gateway.ledger.cursors import cursor_of


class NotedInvoice(BaseModel):
    """The final invoice that is credited."""

    id: str = Field(examples=["inv_2026-10_cus_5bd0c1f2a47e9c3d10fa2b64"])
    number: str = Field(examples=["000042"])
    month: str = Field(examples=["2026-10"])


class CreditNoteShown(BaseModel):
    """A credit note. It is never changed; the credit is on the invoice of the month in which it was written."""

    id: str = Field(description="The credit's record.", examples=["crd_5bd0c1f2a47e9c3d10fa2b64"])
    number: str = Field(
        description="Numbers have no gap, in the order in which notes were issued.", examples=["CN-000007"]
    )
    customer: str
    external_id: str | None
    name: str
    invoice: NotedInvoice
    record: str | None = Field(description="The record that is credited; null for the invoice as a whole.")
    amount_nanousd: int
    currency: str
    reason: str | None = Field(description="Null once the customer was erased.")
    issuer: InvoiceIssuer
    created: Moment


class CreditNotesShown(Page[CreditNoteShown]):
    """Credit notes by number."""


class CreditNotes:
    """The routes of ``/admin/credit-notes``."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database

    def add_to(self, routes: Routes) -> None:
        html_answer = {"description": "The credit note.", "content": {HTML: {"schema": {"type": "string"}}}}
        routes.add("GET", "/credit-notes", self.credit_notes, "List credit notes")
        routes.add(
            *("GET", "/credit-notes/{note_id}", self.credit_note, "Read or print a credit note", 404),
            answer=html_answer,
            response_model=CreditNoteShown,
        )

    def credit_notes(
        self,
        customer: OfCustomer = None,
        invoice: Annotated[OneLine | None, Query(description="Only notes for this invoice.")] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> CreditNotesShown:
        """List credit notes by number. Each credit for a final invoice, or for a record on it, has a note."""
        after = 0 if cursor is None else position_of(cursor, int)[0]
        notes = notes_in(self._database, customer=customer, invoice=invoice, after=after, limit=limit + 1)
        next_cursor = cursor_of(notes[limit - 1][0]) if len(notes) > limit else None
        return CreditNotesShown(data=[CreditNoteShown(**note) for _, note in notes[:limit]], next_cursor=next_cursor)

    def credit_note(
        self, note_id: str, accept: Annotated[str | None, Header(description="`text/html` returns a page.")] = None
    ) -> Response:
        """Read a credit note by the id of its credit; with `Accept: text/html` as a printable page."""
        note = note_of(self._database, note_id) if note_id.isprintable() else None
        if note is None:
            raise NotFound(f"There is no credit note {note_id[:128]!r}.")
        if prefers_page(accept):
            return HTMLResponse(note_page(note), headers=ALONE)
        return JSONResponse(CreditNoteShown(**note).model_dump(mode="json"))
