"""A credit note: its content, which names a credit and the invoice it is for, and its printable page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from gateway.billing.invoice_page import STYLE, lined
from gateway.billing.invoices import Issuer
from gateway.clock import written as moment
from gateway.ledger.billing.issued_notes import CreditNote, Invoiced
from pricing.money import written
from pricing.usage import UsageRecord


def credit_note(credit: UsageRecord, invoice: Invoiced, issuer: Issuer) -> CreditNote:
    """Return the note of a credit without its number; the note has the id of the credit's record."""
    return {
        "id": credit["id"],
        "customer": credit["customer"],
        "invoice": {"id": invoice.id, "number": invoice.number, "month": invoice.month},
        "record": credit["corrects"],
        "amount_nanousd": -credit["charge_nanousd"],
        "currency": credit["currency"],
        "issuer": {"address": list(issuer.address), "tax_lines": list(issuer.tax_lines)},
        "created": moment(credit["time"]),
    }


def note_page(note: Mapping[str, Any]) -> str:
    """Return the page of a credit note that has the form the API shows. All typed text is escaped."""
    return "".join(_parts(note))


def _parts(note: Mapping[str, Any]) -> Iterator[str]:
    title = f"Credit note {note['number']}"
    customer = [text for text in (note["name"], note["external_id"]) if text]
    yield "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
    yield f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
    yield f"<header><p>{lined(note['issuer']['address'])}</p><p>{lined(customer)}</p></header>\n"
    yield f"<h1>{escape(title)}</h1>\n<dl>\n"
    facts = {
        "For": f"invoice {note['invoice']['number']} of {note['invoice']['month']}",
        "Record": note["record"] or "the invoice as a whole",
        "Customer": note["customer"],
        "Issued": note["created"],
        "Reason": note["reason"] or "",
    }
    yield from (f"<dt>{name}</dt><dd>{escape(text)}</dd>\n" for name, text in facts.items() if text)
    amount = written(note["amount_nanousd"], note["currency"])
    yield f"</dl>\n<table>\n<tfoot><tr><td>Credited</td><td>{escape(amount)}</td></tr></tfoot>\n</table>\n"
    yield f"<p>{lined(note['issuer']['tax_lines'])}</p>\n"
    yield (
        f"<p class=small>The credit is record {escape(note['id'])} of the ledger, and a line of the invoice of the month "
        "in which it was written; the invoice that it is for stays as it is.</p>\n</html>\n"
    )
