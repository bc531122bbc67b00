"""Who may: every admin route wants the admin token, before it reads a body, and knows each parameter of its query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from gateway.admin.api.request_bounds import dropped, taken_in
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
"""Says in OpenAPI what is asked for; the asking is ``guarded``'s."""


NAME_MOST = 200
"""The most characters of a name in a path: no id, tier or version has more."""


def guarded(tokens: AdminTokens, wrong: WrongTokens, body_max: int) -> type[APIRoute]:
    """Return the kind of route that admits nobody but the admin.

    FastAPI reads and parses a body before it runs dependencies: a dependency would let strangers have theirs parsed.
    A stranger's is read and dropped, the operator's is at most ``body_max`` bytes.
    """

    dropping = BodyDrain()

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()
            known = set(_query_names(self.dependant))

            async def admit(request: Request) -> Response:
                try:
                    request.state.actor = await actor_of(tokens, wrong, request)
                    _refuse_odd_names(request)
                    refuse_unknown(request, known)
                except AdminProblem:
                    await dropped(request, dropping)
                    raise
                return await handle(await taken_in(request, body_max, dropping))

            return admit

    return AdminRoute


async def actor_of(tokens: AdminTokens, wrong: WrongTokens, request: Request) -> str:
    """Return who is calling, as the audit names them: by the beginning of the token's digest.

    Raises:
        Unauthorized: the token is missing, unknown or retired. Where one was given, this is said later each time.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized
    if not await run_in_threadpool(tokens.is_admin, token):
        await wrong.meet(request.client.host if request.client else "")
        raise Unauthorized
    return f"token:{digest_of(token)[:12]}"


def _query_names(asked: Dependant) -> Iterator[str]:
    """Yield the parameters of the query that a route declares, itself or by what it depends on."""
    yield from (field.alias for field in asked.query_params)
    for other in asked.dependencies:
        yield from _query_names(other)


def _refuse_odd_names(request: Request) -> None:
    """Refuse a name in the path that nothing has, and that not every database can look for."""
    for field, name in request.path_params.items():
        if not str(name).isprintable() or len(str(name)) > NAME_MOST:
            if request.method == "PUT":  # it may be about to make what it names
                raise Invalid.fields([(field, "This is no name.")])
            raise NotFound("There is nothing under that name.")


def refuse_unknown(request: Request, known: Collection[str] = ()) -> None:
    """Refuse what the route would not look at: a parameter that it does not declare, and all but one of a name."""
    given = [name for name, _ in request.query_params.multi_items()]
    unknown = [(name[:NAME_MOST], "There is no such parameter.") for name in dict.fromkeys(given) if name not in known]
    repeated = [(name, "This is given more than once.") for name in known if given.count(name) > 1]
    if unknown or repeated:
        raise Invalid.fields([*unknown, *repeated])
