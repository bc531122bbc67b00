"""The route of ``/admin/exports``: usage as a file for billing, streamed."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Annotated, Literal

from fastapi import Query
from fastapi.responses import StreamingResponse

from gateway.admin.api.inputs import OneLine, TierName
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.records.spans import OfSpan, SpanQuery
from gateway.admin.records.usage_records import EndUser
from gateway.catalog.problems import Conflict, Invalid
from gateway.clock import written
from gateway.errors import BadRequest
from gateway.exports.formats import FORMATS, format_named
from gateway.ledger.billing.counted import records_counted_in
from gateway.ledger.read.read_your_writes import require_booked

Kind = Literal["usage", "fee", "credit", "correction", "prepaid"]
FormatName = Annotated[str, Query(description="The format of the file.", json_schema_extra={"enum": list(FORMATS)})]

AS_FILE = {
    "description": "The file.",
    "content": {known.media_type: {"schema": {"type": "string"}} for known in FORMATS.values()},
}


class PeriodOpen(Conflict):
    code = "period_open"

    def __init__(self) -> None:
        super().__init__("Some of this is not closed and may still change: close it, or ask for it with open=true.")


class Exports:
    """Files of usage records. A closed span is the same bytes for ever."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis

    def add_to(self, routes: Routes) -> None:
        routes.add(
            *("GET", "/exports", self.export, "Export usage as a file", 409),
            answer=AS_FILE,
            response_class=StreamingResponse,
        )

    def export(
        self,
        query: OfSpan,
        format: FormatName = "jsonl",  # noqa: A002
        kind: Annotated[Kind | None, Query(description="Only records of this kind.")] = None,
        tier: Annotated[TierName | None, Query(description="Only records of this tier.")] = None,
        key: Annotated[OneLine | None, Query(description="Only records of this key, by its `key_id`.")] = None,
        end_user: Annotated[
            EndUser | None, Query(description="Only records of this end user, as the record names it.")
        ] = None,
        is_open: Annotated[
            bool, Query(alias="open", description="Also records that are not closed and may still change.")
        ] = False,
    ) -> StreamingResponse:
        """Stream the usage records of a month or a span of time, oldest first: the bytes that `tokencap export` writes.

        A closed span is the same bytes for ever. An open span is refused, unless `open=true`; then the answer waits,
        up to two seconds, until every call that was settled before this request is in the book, and contains the
        records of the book.
        """
        try:
            chosen = format_named(format)
        except BadRequest as error:
            raise Invalid.field(error.param or "", error.message) from error
        counted = query.counted(self._database)
        if not counted.is_closed:
            if not is_open:
                raise PeriodOpen
            require_booked(self._redis, query.customer, is_open=True)
        span = replace(counted.span, kind=kind, tier=tier, key_id=key, end_user=end_user)
        chunks = chosen.encode(records_counted_in(self._database, span, counted.month))
        first = next(chunks, b"")  # an unavailable ledger is refused here, before half a file is sent
        name = f"{file_stem(query)}.{chosen.name}"
        return StreamingResponse(
            chain([first], chunks),
            media_type=chosen.media_type,
            headers={
                "content-disposition": f'attachment; filename="{name}"',
                "x-tokencap-closed": "true" if counted.is_closed else "false",
            },
        )


def file_stem(query: SpanQuery) -> str:
    """Return a file's name without its ending: ``usage_2026-10``, ``usage_20261101T000000000Z_20261201T000000000Z``."""
    if query.period is not None:
        return f"usage_{query.period}"
    since, until = query.since, query.until
    ends = ("start" if since is None else _compact(since), "now" if until is None else _compact(until))
    return "_".join(("usage", *ends))


def _compact(ms: int) -> str:
    return "".join(character for character in written(ms) if character.isalnum())
