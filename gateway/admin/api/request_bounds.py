"""Bounds of admin requests: no significant header is repeated, bodies are limited and read once the sender is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway import json_bounds
from gateway.admin.api.problem_json import response_to
from gateway.body_drain import BodyDrain, More
from gateway.catalog.problems import Invalid
from gateway.errors import BadRequest, RequestTooLarge
from gateway.json_bounds import OutOfBounds
from gateway.single_headers import repeated_header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Heads:
    """Refuses a request that repeats a significant header, before routing."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = repeated_header(scope["headers"]) if scope["type"] == "http" else None
        if name is None:
            await self._app(scope, receive, send)
        else:
            await response_to(BadRequest(f"{name} comes twice.", param=name))(scope, receive, send)


async def with_whole_body(request: Request, bytes_max: int, drain: BodyDrain) -> Request:
    """Return the request with its whole body.

    Raises:
        RequestTooLarge: the body has more than ``bytes_max`` bytes; it was read and dropped, up to 64 MB.
        Invalid: the body contains more than ``json_bounds`` allows.
    """
    chunks: list[bytes] = []
    size = 0
    next_chunk = _body(request)
    while (chunk := await next_chunk()) is not None:
        size += len(chunk)
        if size > bytes_max:
            await drain.drop(next_chunk)
            raise RequestTooLarge(f"A request body is at most {bytes_max:,} bytes.")
        chunks.append(chunk)
    raw = b"".join(chunks)
    try:
        for _ in json_bounds.survey(raw):
            await asyncio.sleep(0)
    except OutOfBounds as error:
        raise Invalid.field("", f"The body cannot be read as JSON: {error}.") from error

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request(request.scope, receive)


async def dropped(request: Request, drain: BodyDrain) -> None:
    """Read a refused request's body and drop it."""
    await drain.drop(_body(request))


def _body(request: Request) -> More:
    """Return a function that reads the body chunk by chunk; after a disconnect there are no more chunks."""
    stream = aiter(request.stream())

    async def more() -> bytes | None:
        try:
            return await anext(stream, None)
        except ClientDisconnect:
            return None

    return more
