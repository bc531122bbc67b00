"""A customer's invoice of a month, from the records that count in it: a draft while the month is open, then final."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from gateway.billing.lines import Lines, TermsOf
from gateway.billing.prepaid import drawn, left_before
from gateway.clock import written
from gateway.ledger.billing.closings import CustomerMonth
from gateway.ledger.billing.counted import counted_in
from gateway.ledger.billing.final_invoices import finalise
from gateway.ledger.book.chain import MAIN
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span
from gateway.ledger.tables import usage_records
from gateway.settings import Settings

Invoice = dict[str, Any]

book = usage_records.c
COLUMNS = (
    *(book.time, book.id, book.customer, book.kind, book.seq, book.tier, book.menu_version, book.charge_nanousd),
    *(book.billed_output_tokens, book.input_tokens, book.conversation_is_included, book.prepaid_nanousd),
)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The sender of invoices: the lines of its name and address, and its lines about taxes."""

    address: tuple[str, ...]
    tax_lines: tuple[str, ...]
    prefix: str
    """The text before the number of each invoice."""
    currency: str

    @classmethod
    def of(cls, settings: Settings) -> Issuer:
        """Return the issuer that the settings name."""
        address, tax_lines = settings.invoice_address or "", settings.invoice_tax_lines or ""
        return cls(_lines(address), _lines(tax_lines), settings.invoice_prefix or "", settings.currency)

    def numbered(self, number: int) -> str:
        """Return the number that an invoice shows."""
        return f"{self.prefix}{number:06d}"

    def note_numbered(self, number: int) -> str:
        """Return the number that a credit note shows."""
        return f"{self.prefix}CN-{number:06d}"


def _lines(text: str) -> tuple[str, ...]:
    """Return the lines of a setting, which is a single line with bars between them."""
    return tuple(line.strip() for line in text.split("|") if line.strip())


def id_of(month: CustomerMonth) -> str:
    """Return the id of a customer's invoice of a month: the same for the draft and the final invoice."""
    return f"inv_{month.month}_{month.customer}"


def drafted(database: Database, month: CustomerMonth, issuer: Issuer, terms_of: TermsOf) -> Invoice | None:
    """Return the invoice of a customer's month by the book's present records, None where no record counts in the month.

    Each record is read once, page by page; with prepaid credit, also the records of earlier months without a final
    invoice.
    """
    lines, added = Lines(terms_of), 0
    span = Span(month.customer, month.start, month.end)
    for counted in counted_in(database, COLUMNS, span):
        _, record_id, _, *called, prepaid = counted.row[: len(COLUMNS)]
        lines.add(record_id, *called)
        added += prepaid or 0
    if not lines.records:
        return None
    prepaid = drawn(left_before(database, month.customer, month.month), added, lines.total_nanousd)
    return {
        "id": id_of(month),
        "number": None,
        "status": "draft",
        "customer": month.customer,
        "period": {
            "month": month.month,
            "start": written(month.start),
            "end": written(month.end),
            "timezone": month.timezone,
        },
        "currency": issuer.currency,
        "lines": lines.lines(),
        "total_nanousd": lines.total_nanousd,
        "prepaid": None if prepaid is None else asdict(prepaid),
        "records": lines.records,
        "ledger": {"chain": MAIN, "first_seq": lines.first_seq, "last_seq": lines.last_seq, "seal": None},
        "issuer": {"address": list(issuer.address), "tax_lines": list(issuer.tax_lines)},
        "created": None,
    }


def finalised(
    database: Database, month: CustomerMonth, issuer: Issuer, terms_of: TermsOf, now_ms: Callable[[], int]
) -> bool:
    """Make the invoice of a closed month final; return whether this call did so. Repeatable after any kill."""
    body = drafted(database, month, issuer, terms_of)
    return finalise(database, month, body, numbered=issuer.numbered, now_ms=now_ms())
