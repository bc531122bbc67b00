"""The span of records that a request names: a month in each customer's own time zone, or from and to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query

from gateway.admin.api.inputs import MonthName, OneLine
from gateway.admin.records.usage_records import From, To
from gateway.catalog.problems import Invalid
from gateway.ledger.billing.closings import all_closed_until
from gateway.ledger.billing.counted import Month
from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span

Period = Annotated[
    MonthName | None,
    Query(description="A month, as `2026-10`, in each customer's own zone; it replaces `from` and `to`."),
]
OfCustomer = Annotated[OneLine | None, Query(description="Only those of this customer.")]


@dataclass(frozen=True, slots=True)
class SpanQuery:
    """A span of time or a month, of one customer or of all."""

    customer: str | None
    since: int | None
    until: int | None
    period: str | None

    def counted(self, database: Database) -> CountedSpan:
        """Return the span, and whether it is closed in the ledger now."""
        if self.period is None:
            is_closed = self.until is not None and all_closed_until(database, self.until, self.customer)
            return CountedSpan(Span(self.customer, self.since, self.until), None, is_closed=is_closed)
        month = Month(database, self.period, self.customer)
        return CountedSpan(Span(self.customer), month, is_closed=month.is_closed)


@dataclass(frozen=True, slots=True)
class CountedSpan:
    """A span, and whether it is closed: then its records are the same for ever."""

    span: Span
    month: Month | None
    is_closed: bool


def _span_query(period: Period = None, since: From = None, until: To = None, customer: OfCustomer = None) -> SpanQuery:
    if period is not None and (since is not None or until is not None):
        raise Invalid.field("period", "A month is asked for without from and to.")
    return SpanQuery(customer, since, until, period)


OfSpan = Annotated[SpanQuery, Depends(_span_query)]
