"""``/metrics``: the counts of all processes of this gateway, for the metrics token or the admin token."""

from __future__ import annotations

import hmac

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from gateway.admin.api.access import actor_of, refuse_unknown
from gateway.admin.api.routes import AdminServices
from gateway.catalog.admin_tokens import digest_of
from gateway.metrics.counters import Sheet, add_up
from gateway.metrics.exposition import CONTENT_TYPE, exposition


class Scrape:
    """Any worker answers for all processes; it first writes ``sheet``, which has its own counts."""

    def __init__(self, services: AdminServices, sheet: Sheet) -> None:
        self._services = services
        self._sheet = sheet

    def add_to(self, app: FastAPI) -> None:
        app.add_route("/metrics", self._metrics, methods=["GET"], include_in_schema=False)

    async def admit(self, request: Request) -> None:
        """Check that a request has a token that may read metrics.

        Raises:
            Unauthorized: the request has no such token.
        """
        if not self._has_metrics_token(request):
            await actor_of(self._services.tokens, self._services.wrong_tokens, request)

    async def _metrics(self, request: Request) -> Response:
        await self.admit(request)
        refuse_unknown(request)
        text = await run_in_threadpool(self._text)
        return Response(text, media_type=CONTENT_TYPE)

    def _text(self) -> str:
        self._sheet.write()
        return exposition(add_up(self._services.settings.metrics_dir))

    def _has_metrics_token(self, request: Request) -> bool:
        expected = self._services.settings.metrics_token
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if expected is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(digest_of(token.strip()), digest_of(expected.get_secret_value()))
