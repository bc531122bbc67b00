"""Who may: every admin route wants the admin token, before it reads a body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool

from gateway.admin.door import dropped, taken_in
from gateway.admin.problems import Unauthorized
from gateway.admin.tokens import AdminTokens, digest_of

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

SCHEME = HTTPBearer(
    scheme_name="adminToken",
    description="The admin token, printed once when the gateway first started; `tokencap admin-token` makes a new one.",
    auto_error=False,
)
"""Says in OpenAPI what is asked for; the asking is ``guarded``'s."""


def guarded(tokens: AdminTokens, body_max: int) -> type[APIRoute]:
    """Return the kind of route that admits nobody but the admin.

    FastAPI reads and parses a body before it runs dependencies: a dependency would let strangers have theirs parsed.
    A stranger's is read and dropped, the operator's is at most ``body_max`` bytes.
    """

    class AdminRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def admit(request: Request) -> Response:
                try:
                    request.state.actor = await run_in_threadpool(actor_of, tokens, request)
                except Unauthorized:
                    await dropped(request)
                    raise
                return await handle(await taken_in(request, body_max))

            return admit

    return AdminRoute


def actor_of(tokens: AdminTokens, request: Request) -> str:
    """Return who is calling, as the audit names them: by the beginning of the token's digest.

    Raises:
        Unauthorized: the token is missing, unknown or retired.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or not tokens.is_admin(token):
        raise Unauthorized
    return f"token:{digest_of(token)[:12]}"
