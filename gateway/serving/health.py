"""``/livez`` reports that the process lives; ``/readyz`` reports whether the process should be sent calls.

A request to ``/readyz`` with the metrics token or the admin token also gets the upstream's engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import FastAPI
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.generation import Generation

PATIENCE_S = 1.0
LAST = redis_keys.ALL_BUCKETS[-1]
"""The bucket that a rebuild puts in force last."""

Admit = Callable[[Request], Awaitable[object]]


class Health:
    """The state that the two probes check."""

    def __init__(self) -> None:
        self.connection: RedisConnection | None = None
        self.generation: Generation | None = None
        self.is_stopping = False
        self.engine = ""
        """The upstream's profile, in a few words."""

    def add_to(self, app: FastAPI, admit: Admit | None = None) -> None:
        """Add both routes; ``admit`` raises where a request's token does not permit it to see the engine."""
        app.add_route("/livez", self._live, methods=["GET"], include_in_schema=False)
        app.add_route("/readyz", partial(self._ready, admit=admit), methods=["GET"], include_in_schema=False)

    async def _live(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request, *, admit: Admit | None) -> JSONResponse:
        details: dict[str, str] = {}
        if admit is not None and "authorization" in request.headers:
            await admit(request)
            details["upstream"] = self.engine
        is_ready = not self.is_stopping and await self._is_redis_ready()
        payload = {"status": "ready" if is_ready else "not ready", **details}
        return JSONResponse(payload, 200 if is_ready else 503, headers={} if is_ready else {"retry-after": "1"})

    async def _is_redis_ready(self) -> bool:
        """Return whether Redis is available and its state is not being rebuilt.

        Sums that do not add up are no reason to be unready: only the calls of that customer are refused.
        """
        if self.connection is None or (self.generation is not None and self.generation.is_restoring):
            return False
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.connection.execute("HGET", redis_keys.state(LAST), "generation") is not None
        except (MeteringUnavailable, RedisError, OSError, TimeoutError):
            return False
