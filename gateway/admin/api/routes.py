"""How a route of the admin API looks: its status follows from its method, and OpenAPI says when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter

from gateway.admin.api.problem_json import documented

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

STATUS: dict[Method, int] = {"GET": 200, "POST": 201, "PUT": 200, "PATCH": 200, "DELETE": 204}

ANYWHERE = (400, 401, 413, 422, 503)
"""How any route may refuse."""


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of one kind of thing."""

    router: APIRouter
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
            refusals: the statuses it refuses with beside ANYWHERE.
            answer: what OpenAPI says of its answer, where that is no model.
            more: goes to FastAPI as it is.
        """
        answers: dict[int | str, dict[str, Any]] = {} if answer is None else {STATUS[method]: answer}
        self.router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=STATUS[method],
            summary=summary,
            operation_id=f"{self.kind}_{endpoint.__name__}",
            tags=[self.kind],
            responses={**answers, **documented(*refusals, *ANYWHERE)},
            **more,
        )
