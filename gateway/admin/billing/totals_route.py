"""The route of ``/admin/totals``: sums of usage and charges."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.records.spans import OfSpan
from gateway.admin.records.usage_records import AskedOpen
from gateway.billing.totals import FIELD_OF, totals_by
from gateway.catalog.problems import Invalid
from gateway.ledger.read.read_your_writes import require_booked

By = Annotated[
    str,
    Query(
        description="The field that groups the sums; a day is of the customer's zone.",
        json_schema_extra={"enum": [*FIELD_OF]},
    ),
]


class Total(BaseModel):
    """The sums of a group, with its `customer`, `tier`, `key`, `end_user`, `day`, `kind` or `menu_version`."""

    model_config = ConfigDict(extra="allow")

    calls: int = Field(description="Calls that were answered or reclaimed.")
    conversations: int = Field(description="Conversations whose first output token is in the group.")
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    billed_output_tokens: int
    charge_nanousd: int = Field(description="Includes fees and, as negative amounts, credits.")


class TotalsShown(BaseModel):
    """Sums by one field, in the order of its values, null last. Over all groups they are the same for every field."""

    data: list[Total]
    closed: bool = Field(description="Whether the whole span is closed: then its sums are the same for ever.")


class Totals:
    """Sums, read from the records."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/totals", self.totals, "Add up usage and charges", 409)

    def totals(self, by: By, query: OfSpan, is_open: AskedOpen = False) -> TotalsShown:
        """Add up the records of a month or of a span of time, by one of their fields or by day.

        The answer waits, up to two seconds, until every call that was settled before this request is in the book. If
        some calls are still missing then, the answer for an open span is 503; with `open=true` it adds up the records
        of the book. A record that came after its period was closed counts in the period in which it was written.
        """
        if by not in FIELD_OF:
            raise Invalid.field("by", f"Totals are by one of {', '.join(FIELD_OF)}.")
        counted = query.counted(self._database)
        if not counted.is_closed:
            require_booked(self._redis, query.customer, is_open=is_open)
        sums: list[dict[str, Any]] = totals_by(self._database, by, counted.span, counted.month)
        return TotalsShown(data=[Total(**group) for group in sums], closed=counted.is_closed)
