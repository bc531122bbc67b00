"""The route of ``/admin/usage``: the usage records in the book."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from gateway.admin.api.inputs import InputMoment, OneLine
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page
from gateway.admin.api.routes import AdminServices, Routes
from gateway.catalog.problems import Invalid
from gateway.errors import BadRequest
from gateway.ledger.read.queries import Span, usage_page
from gateway.ledger.read.read_your_writes import require_booked
from pricing.usage import END_USER_MOST


def _printed(name: str) -> str:
    if not name.isprintable():
        raise ValueError("Records have no end user with characters that are not printed.")
    return name


EndUser = Annotated[str, StringConstraints(min_length=1, max_length=END_USER_MOST), AfterValidator(_printed)]
From = Annotated[InputMoment | None, Query(alias="from", description="The start, inclusive: `from` ≤ time.")]
AskedOpen = Annotated[
    bool, Query(alias="open", description="Answer even if settled calls are known to be missing from the ledger.")
]
To = Annotated[InputMoment | None, Query(alias="to", description="The end, exclusive: time < `to`.")]


class UsageShown(BaseModel):
    """The usage record of one call. Times are milliseconds since 1970, UTC; money is in nano-units: 10^9 are 1 USD."""

    id: str = Field(description="The call's `x-request-id`.")
    kind: Literal["usage", "fee", "credit", "correction", "prepaid"]
    corrects: str | None = Field(description="The record that a correction changes.")
    time: int = Field(description="When the call was admitted.")
    settled: int = Field(description="When its count was final.")
    customer: str
    key_id: str | None
    conversation: str | None
    tier: str | None = Field(description="The tier by which the call was served and charged.")
    tier_chosen: str | None = Field(description="The tier that the caller requested.")
    menu_version: str | None
    endpoint: str | None
    model: str | None
    stream: bool
    choices: int
    input_tokens: int
    cached_tokens: int = Field(description="The input tokens that were cached.")
    output_tokens: int = Field(description="The output tokens as counted.")
    reasoning_tokens: int = Field(description="The output tokens that were reasoning.")
    billed_output_tokens: int = Field(
        description="The output tokens that caps and quotas count: never more than were granted."
    )
    cap_tokens: int | None = Field(description="The tokens that were granted, for each choice.")
    requested_tokens: int | None = Field(description="The caller's own limit.")
    finish: str | None = Field(description="How the call ended: `complete`, `cap`, `disconnect`, `recovered`, …")
    usage_source: str | None = Field(description="The source of the count: `upstream`, `counted`, `checkpoint`, …")
    ttft_ms: int | None = Field(description="Time to the first token.")
    duration_ms: int | None
    charge_nanousd: int
    currency: str
    client_request_id: str | None = Field(description="The caller's own `x-request-id`.")
    chain: str
    seq: int = Field(description="The record's position in the chain.")
    prev_hash: str
    hash: str = Field(description="SHA-256 over `prev_hash` and the record.")
    end_user: str | None = Field(default=None, description="The customer's own user; omitted if none was named.")
    input_source: str | None = Field(
        default=None,
        description="The source of the input count: `upstream`, `tokenizer`, `estimate`; omitted without any.",
    )
    usage_dispute: str | None = Field(
        default=None,
        description="What contradicts the upstream's figures: `itself`, one another, or `text`, the text that came with"
        " them; omitted if nothing does.",
    )
    conversation_cap_tokens: int | None = Field(
        default=None, description="The cap of its conversation when that began; omitted on older records."
    )
    conversation_is_included: bool | None = Field(
        default=None, description="Whether a subscription includes the conversation that it began; omitted if not."
    )
    prepaid_nanousd: int | None = Field(
        default=None, description="The amount paid in advance; omitted except on records of the kind `prepaid`."
    )


class UsagePage(Page[UsageShown]):
    """Usage records, oldest first."""


SHOWN: dict[str, Any] = {"response_model": UsagePage, "response_model_exclude_unset": True}
"""A record is shown as it was hashed, without the fields that it does not have."""


class Usage:
    """Reads the book, once everything settled before the request is in it."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis

    def add_to(self, routes: Routes) -> None:
        routes.add("GET", "/usage", self.list, "List usage records, oldest first", **SHOWN)

    def list(
        self,
        customer: Annotated[OneLine | None, Query(description="Only records of this customer.")] = None,
        since: From = None,
        until: To = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        end_user: Annotated[
            EndUser | None, Query(description="Only records of this end user, as the record names it.")
        ] = None,
        is_open: AskedOpen = False,
    ) -> dict[str, Any]:
        """List usage records by time of admission.

        The answer waits, up to two seconds, until every call that was settled before this request is in the book. If
        some calls are still missing then, the answer is 503; with `open=true` it has the records of the book.
        """
        require_booked(self._redis, customer, is_open=is_open)
        try:
            page = usage_page(self._database, Span(customer, since, until, end_user), limit=limit, cursor=cursor)
        except BadRequest as error:
            raise Invalid.field(error.param or "", error.message) from error
        return {"data": page.records, "next_cursor": page.next_cursor}
