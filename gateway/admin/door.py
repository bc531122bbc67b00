"""What reaches the admin side at all: heads that say nothing twice, and bodies within bounds, once their sender is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway import json_bounds
from gateway.admin.problems import Invalid, response_to
from gateway.errors import BadRequest, RequestTooLarge
from gateway.json_bounds import OutOfBounds
from gateway.request_head import repeated

DROPPED_MOST = 64 * 2**20
"""Bytes of a refused body that are read and dropped, so that the refusal is heard."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Heads:
    """Refuses a request that says a header of meaning twice, before any route is looked for."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = repeated(scope["headers"]) if scope["type"] == "http" else None
        if name is None:
            await self._app(scope, receive, send)
        else:
            await response_to(BadRequest(f"{name} comes twice.", param=name))(scope, receive, send)


async def taken_in(request: Request, most: int) -> Request:
    """Return the request with its whole body at hand.

    Raises:
        RequestTooLarge: it is more than ``most`` bytes; it was read and dropped, up to 64 MB.
        Invalid: it has more in it than ``json_bounds`` allows.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in _body(request):
        size += len(chunk)
        if size > most:
            chunks.clear()
        else:
            chunks.append(chunk)
    if size > most:
        raise RequestTooLarge(f"A request body is at most {most:,} bytes.")
    raw = b"".join(chunks)
    try:
        for _ in json_bounds.survey(raw):
            await asyncio.sleep(0)
    except OutOfBounds as error:
        raise Invalid.field("", f"The body cannot be read as JSON: {error}.") from error

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request(request.scope, receive)


async def dropped(request: Request) -> None:
    """Read a refused request's body and forget it."""
    async for _ in _body(request):
        pass


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body, or as much of it as is read of any; a caller who is gone has none."""
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            yield chunk
            if size > DROPPED_MOST:
                return
    except ClientDisconnect:
        return
