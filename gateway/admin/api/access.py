"""Access: every admin route requires the admin token before it reads a body, and refuses unknown query parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from gateway.admin.api.request_bounds import dropped, with_whole_body
from gateway.admin.api.wrong_tokens import WrongTokens
from gateway.body_drain import BodyDrain
from gateway.catalog.admin_tokens import AdminTokens, digest_of
from gateway.catalog.problems import AdminProblem, Invalid, NotFound, Unauthorized

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

SCHEME = HTTPBearer(
    scheme_name="adminToken",
    description="The admin token, printed once when the gateway first started; `tokencap admin-token` makes a new one.",
    auto_error=False,
)
"""Describes the required token in OpenAPI; ``guarded`` checks it."""


NAME_MOST = 200
"""The most characters of a name in a path: no id, tier or version is longer."""


def guarded(tokens: AdminTokens, wrong_tokens: WrongTokens, body_max: int) -> type[APIRoute]:
    """Return the class of routes that admit only the admin.

    FastAPI reads and parses a body before it runs dependencies, so a dependency would parse strangers' bodies. A
    stranger's body is read and dropped, the operator's has at most ``body_max`` bytes.
    """

    drain = BodyDrain()

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()
            known = set(_query_names(self.dependant))

            async def admit(request: Request) -> Response:
                try:
                    request.state.actor = await actor_of(tokens, wrong_tokens, request)
                    _refuse_odd_names(request)
                    refuse_unknown(request, known)
                except AdminProblem:
                    await dropped(request, drain)
                    raise
                return await handle(await with_whole_body(request, body_max, drain))

            return admit

    return AdminRoute


async def actor_of(tokens: AdminTokens, wrong_tokens: WrongTokens, request: Request) -> str:
    """Return the caller's name for the audit: the beginning of the token's digest.

    Raises:
        Unauthorized: the token is missing, unknown or retired. Repeated wrong tokens are answered ever later.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized
    if not await run_in_threadpool(tokens.is_admin, token):
        await wrong_tokens.meet(request.client.host if request.client else "")
        raise Unauthorized
    return f"token:{digest_of(token)[:12]}"


def _query_names(dependant: Dependant) -> Iterator[str]:
    """Yield the query parameters that a route declares, itself or by its dependencies."""
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _query_names(dependency)


def _refuse_odd_names(request: Request) -> None:
    """Refuse a name in the path that no resource can have: not every database could look it up."""
    for field, name in request.path_params.items():
        if not str(name).isprintable() or len(str(name)) > NAME_MOST:
            if request.method == "PUT":  # a PUT may create the resource that it names
                raise Invalid.fields([(field, "This is no name.")])
            raise NotFound("There is nothing under that name.")


def refuse_unknown(request: Request, known: Collection[str] = ()) -> None:
    """Refuse query parameters that the route would ignore: undeclared parameters and repeated parameters."""
    sent = [name for name, _ in request.query_params.multi_items()]
    unknown = [(name[:NAME_MOST], "There is no such parameter.") for name in dict.fromkeys(sent) if name not in known]
    repeated = [(name, "This is given more than once.") for name in known if sent.count(name) > 1]
    if unknown or repeated:
        raise Invalid.fields([*unknown, *repeated])
