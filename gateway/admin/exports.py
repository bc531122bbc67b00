"""The route of ``/admin/exports``: usage as a file for billing, streamed."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

from fastapi import Query
from fastapi.responses import StreamingResponse

from gateway.admin.given import Line
from gateway.admin.problems import Invalid
from gateway.admin.routes import Routes
from gateway.admin.services import AdminServices
from gateway.admin.usage import From, To
from gateway.billing.exports.formats import FORMATS, format_named
from gateway.clock import written
from gateway.errors import BadRequest
from gateway.ledger.booked import wait_until_booked
from gateway.ledger.queries import Span, usage_records_in

FormatName = Annotated[str, Query(description="Which kind of file.", json_schema_extra={"enum": list(FORMATS)})]

AS_FILE = {
    "description": "The file.",
    "content": {known.media_type: {"schema": {"type": "string"}} for known in FORMATS.values()},
}


class Exports:
    """Files of usage records. A span that is over is the same bytes for ever."""

    def __init__(self, services: AdminServices) -> None:
        self._database = services.database
        self._redis = services.redis

    def add_to(self, routes: Routes) -> None:
        routes.add(
            *("GET", "/exports", self.export, "Export usage as a file"),
            answer=AS_FILE,
            response_class=StreamingResponse,
        )

    def export(
        self,
        format: FormatName = "jsonl",  # noqa: A002
        since: From = None,
        until: To = None,
        customer: Annotated[Line | None, Query(description="Only this customer's.")] = None,
    ) -> StreamingResponse:
        """Stream the usage records of a span of time, oldest first: the same bytes as `tokencap export` writes.

        It first waits, up to two seconds, until every call that was settled before this request is in the book.
        """
        try:
            chosen = format_named(format)
        except BadRequest as error:
            raise Invalid.field(error.param or "", error.message) from error
        wait_until_booked(self._redis)
        chunks = chosen.encode(usage_records_in(self._database, Span(customer, since, until)))
        first = next(chunks, b"")  # so that a ledger that is not to be had is still a refusal, not half a file
        name = f"{file_stem(since, until)}.{chosen.name}"
        return StreamingResponse(
            chain([first], chunks),
            media_type=chosen.media_type,
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )


def file_stem(since: int | None, until: int | None) -> str:
    """Return a file's name without its ending: ``usage_20261101T000000000Z_20261201T000000000Z``."""
    ends = ("start" if since is None else _compact(since), "now" if until is None else _compact(until))
    return "_".join(("usage", *ends))


def _compact(ms: int) -> str:
    return "".join(character for character in written(ms) if character.isalnum())
