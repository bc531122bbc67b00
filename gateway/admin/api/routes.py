"""Adds routes to the admin API, and defines the services that each route gets in one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import redis
from fastapi import Security
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.admin.api.access import SCHEME
from gateway.admin.api.problem_json import documented
from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.catalog.admin_tokens import AdminTokens
from gateway.holds.store.projection import Projection
from gateway.ledger.database import Database
from gateway.settings import Settings

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

STATUS: dict[Method, int] = {"GET": 200, "POST": 201, "PUT": 200, "PATCH": 200, "DELETE": 204}

ANYWHERE = (400, 401, 413, 422, 503)
"""The statuses with which any route may refuse."""


class LateRoute(Route):
    """A route that FastAPI builds at the route's first request, in a millisecond or two.

    So a worker starts without building all routes, and a request waits for at most one build.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], method: Method, make: Callable[[], APIRoute]) -> None:
        super().__init__(path, endpoint)
        self.methods = {method}
        self._make = make

    @cached_property
    def made(self) -> APIRoute:
        return self._make()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self.made
        await self.made.handle(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of one resource, added to ``all``; each is of the class ``of``."""

    all: list[LateRoute]
    of: type[APIRoute]
    kind: str

    def add(
        self,
        method: Method,
        path: str,
        endpoint: Callable[..., Any],
        summary: str,
        *refusals: int,
        answer: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Add a route.

        Args:
            refusals: the statuses of its refusals, in addition to ANYWHERE.
            answer: the OpenAPI description of its answer, where the answer is not a model.
            more: passed to FastAPI.
        """
        answers: dict[int | str, dict[str, Any]] = {} if answer is None else {STATUS[method]: answer}
        make = partial(
            self.of,
            f"/admin{path}",
            endpoint,
            methods=[method],
            status_code=STATUS[method],
            summary=summary,
            operation_id=f"{self.kind}_{endpoint.__name__}",
            tags=[self.kind],
            dependencies=[Security(SCHEME)],
            responses={**answers, **documented(*refusals, *ANYWHERE)},
            **more,
        )
        self.all.append(LateRoute(f"/admin{path}", endpoint, method, make))


@dataclass(frozen=True, slots=True)
class AdminServices:
    """``now_ms`` is the time of day, ms since 1970; ``random_bytes`` is the source of ids and keys (os.urandom)."""

    database: Database
    projection: Projection
    redis: redis.Redis
    tokens: AdminTokens
    wrong_tokens: WrongTokens
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    settings: Settings

    def new_id(self, prefix: str) -> str:
        """Return a new id: ``cus_`` or ``key_`` and 96 random bits."""
        return f"{prefix}_{self.random_bytes(12).hex()}"
