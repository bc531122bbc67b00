"""The routes of credits, fees and prepaid credit: amounts that the operator puts on a customer's bill by hand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Keep, Post, Replies
from gateway.admin.api.inputs import Input, OneLine, Positive
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.records.usage_records import UsageShown
from gateway.billing.credit_note_page import credit_note
from gateway.billing.invoices import Issuer
from gateway.billing.postings import posting
from gateway.billing.prepaid import left_at
from gateway.catalog import audit_rows, customer_rows
from gateway.catalog.problems import Conflict, Invalid, NotAllowed
from gateway.ledger.billing import adjustment_reasons
from gateway.ledger.billing.adjustment_reasons import NO_RECORD, Adjustment, Creditable
from gateway.ledger.billing.issued_notes import Invoiced, InvoicePending, invoice_of_record, invoiced, issue
from gateway.ledger.billing_tables import REASON_MOST
from gateway.ledger.book.appender import book
from gateway.ledger.book.watermark import Watermark
from gateway.ledger.read.read_your_writes import require_booked
from gateway.ledger.rows import without_silence
from gateway.ledger.sums.rollup import Rollup
from pricing.usage import UsageRecord

Kind = Literal["credit", "fee", "prepaid"]
PREFIXES: dict[Kind, str] = {"credit": "crd", "fee": "fee", "prepaid": "pre"}

Amount = Annotated[Positive, Field(description="In nano-units: 10^9 are 1 USD.", examples=[5_000_000_000])]
Reason = Annotated[
    OneLine,
    StringConstraints(max_length=REASON_MOST),
    Field(description="The reason, in one line, stored beside the record.", examples=["Outage of 14 October"]),
]


class NewFee(Input):
    """An amount that a customer owes in addition to its usage."""

    amount_nanousd: Amount
    reason: Reason


class NewPrepaid(Input):
    """An amount that a customer has paid in advance."""

    amount_nanousd: Amount
    reason: Reason


class PrepaidShown(BaseModel):
    """A customer's remaining prepaid credit."""

    customer: str
    currency: str
    left_nanousd: int = Field(description="By all records in the ledger; in-flight calls are not deducted yet.")


class NewCredit(Input):
    """An amount that a customer no longer owes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"amount_nanousd": 5_000_000_000, "reason": "Outage of 14 October"}]}
    )

    amount_nanousd: Amount
    reason: Reason
    record: OneLine | None = Field(
        default=None, description="The record that the credit is for: all credits for it are at most its charge."
    )
    invoice: OneLine | None = Field(
        default=None,
        description="The final invoice that the credit is for, as a whole: all credits are at most its total.",
    )

    @model_validator(mode="after")
    def _check_subject(self) -> NewCredit:
        if self.record is not None and self.invoice is not None:
            raise ValueError("A credit is for a record or for an invoice.")
        return self


Body = NewCredit | NewFee | NewPrepaid


def _role(request: Request) -> str:
    """Return the caller's role."""
    return str(getattr(request.state, "role", "admin"))


Role = Annotated[str, Depends(_role)]


class Adjustments:
    """Credits, fees and prepaid credit. They are records of the chain but not usage: windows, limits and counts of
    calls leave them out."""

    def __init__(self, services: AdminServices, replies: Replies) -> None:
        self._services = services
        self._database = services.database
        self._replies = replies
        self._watermark = Watermark(services.redis)
        self._rollup = Rollup(services.database)
        self._issuer = Issuer.of(services.settings)

    def add_to(self, routes: Routes) -> None:
        path = "/customers/{customer_id}"
        record_answer: dict[str, Any] = {"response_model": UsageShown, "response_model_exclude_unset": True}
        routes.add("POST", f"{path}/credits", self.credit, "Credit a customer", 403, 404, 409, **record_answer)
        routes.add("POST", f"{path}/fees", self.charge, "Charge a customer a fee", 403, 404, 409, **record_answer)
        routes.add("POST", f"{path}/prepaid", self.prepay, "Add prepaid credit", 403, 404, 409, **record_answer)
        routes.add("GET", f"{path}/prepaid", self.prepaid, "Read the remaining prepaid credit", 404)

    def credit(self, customer_id: str, body: NewCredit, posted: Post, role: Role) -> UsageShown:
        """Put a credit on the customer's bill, as a record with a negative charge in the open period."""
        return self._once("credit", customer_id, body, posted, role)

    def charge(self, customer_id: str, body: NewFee, posted: Post, role: Role) -> UsageShown:
        """Put a fee on the customer's bill, as a record in the open period."""
        return self._once("fee", customer_id, body, posted, role)

    def prepay(self, customer_id: str, body: NewPrepaid, posted: Post, role: Role) -> UsageShown:
        """Add an amount that the customer paid in advance, as a record that charges nothing.

        Charges, from the open month on, are drawn from prepaid credit before the customer owes anything.
        """
        return self._once("prepaid", customer_id, body, posted, role)

    def prepaid(self, customer_id: str) -> PrepaidShown:
        """Read a customer's remaining prepaid credit.

        The answer waits, up to two seconds, until every call that was settled before this request is in the book. If
        some calls are still missing then, the answer is 503.
        """
        with self._database.read() as connection:
            customer_rows.find(connection, customer_id)
        require_booked(self._services.redis, customer_id)
        left = left_at(self._database, customer_id, self._services.now_ms())
        return PrepaidShown(customer=customer_id, currency=self._issuer.currency, left_nanousd=left)

    def _once(self, kind: Kind, customer_id: str, body: Body, posted: Post, role: str) -> UsageShown:
        def change(keep: Keep) -> UsageShown:
            amount_max = self._services.settings.adjustment_limits.get(role)
            if amount_max is not None and body.amount_nanousd > amount_max:
                raise NotAllowed(f"The role {role} may put at most {amount_max} nano-units on a bill at once.")
            with self._database.write() as connection:
                record = self._book(connection, kind, customer_id, body, posted.actor)
                answer = UsageShown.model_validate(record)
                keep(connection, answer)
            return answer

        reply = self._replies.once(posted, body, UsageShown, change)
        return UsageShown.model_validate(
            without_silence(reply.model_dump())
        )  # the record as it was hashed, also in a repeated answer

    def _book(self, connection: Connection, kind: Kind, customer_id: str, body: Body, actor: str) -> UsageRecord:
        customer_rows.find(connection, customer_id)
        now = self._services.now_ms()
        record_id, amount = self._services.new_id(PREFIXES[kind]), body.amount_nanousd
        credited_id = body.record if isinstance(body, NewCredit) else None
        credited = (
            NO_RECORD if credited_id is None else _creditable(connection, customer_id, credited_id, body.amount_nanousd)
        )
        invoice = _invoice_of(connection, customer_id, body) if isinstance(body, NewCredit) else None
        record = posting(
            kind,
            record_id=record_id,
            customer=customer_id,
            charge_nanousd={"credit": -amount, "fee": amount, "prepaid": 0}[kind],
            prepaid_nanousd=amount if kind == "prepaid" else None,
            currency=self._services.settings.currency,
            now_ms=now,
            tier=credited.tier,
            menu_version=credited.menu_version,
            key_id=credited.key_id,
            corrects=credited_id,
        )
        booked = book(connection, [record])
        adjustment_reasons.note(connection, Adjustment(record_id, customer_id, credited_id, body.reason, actor, now))
        if invoice is not None:
            issue(connection, credit_note(record, invoice, self._issuer), numbered=self._issuer.note_numbered)
        facts = {"id": record_id, "amount_nanousd": body.amount_nanousd, "reason": body.reason, "record": credited_id}
        audit_rows.record(
            connection, time=now, actor=actor, action=f"customer.{kind}", target=customer_id, before=None, after=facts
        )
        self._rollup.follow(connection, booked)
        self._watermark.rise(booked)
        return booked.appended[0]


def _creditable(connection: Connection, customer_id: str, record_id: str, amount_nanousd: int) -> Creditable:
    """Return the record that a credit is for.

    Raises:
        Invalid: the record does not exist, is a credit or corrects a record, or its credits would exceed its charge.
    """
    record = adjustment_reasons.creditable(connection, customer_id, record_id)
    if record is None or record.kind == "credit":
        raise Invalid.field("record", "This customer has no such record to be credited.")
    if record.kind == "correction" and record.corrected is not None:
        raise Invalid.field("record", f"It corrects {record.corrected}: a credit names that record, for both.")
    if amount_nanousd > record.left_nanousd:
        left = max(record.left_nanousd, 0)
        raise Invalid.field("amount_nanousd", f"Of what this record charged, {left} nano-units are not credited yet.")
    return record


def _invoice_of(connection: Connection, customer_id: str, body: NewCredit) -> Invoiced | None:
    """Return the final invoice that a credit is for, by its id or a record on it; None for a record of an open month.

    Raises:
        Invalid: there is no such invoice, or the credits for it would exceed its total.
        Conflict: the record's month is being closed, so its invoice has no number yet.
    """
    try:
        if body.record is not None:
            invoice = invoice_of_record(connection, customer_id, body.record)
        else:
            invoice = None if body.invoice is None else invoiced(connection, customer_id, body.invoice)
    except InvoicePending as error:
        sentence = "The month of this record is closed and not invoiced yet: close it again, then repeat this."
        raise Conflict(sentence, code="invoice_pending") from error
    if invoice is None:
        if body.invoice is not None:
            raise Invalid.field("invoice", "This customer has no such final invoice.")
        return None
    if body.amount_nanousd > invoice.left_nanousd:
        sentence = f"Of the total of invoice {invoice.number}, {invoice.left_nanousd} nano-units are not credited yet."
        raise Invalid.field("amount_nanousd", sentence)
    return invoice
