"""Takes in callers' bodies, with bounds on their bytes, their contents, and the bytes that a worker keeps at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from gateway import json_bounds
from gateway.errors import RequestTooLarge, TooMuchAtOnce, UpstreamOverloaded
from gateway.json_bounds import OutOfBounds
from gateway.serving.caller.body_memory import BodyMemory
from gateway.serving.caller.exchange import Exchange
from gateway.serving.caller.json_body import Body, read_body, too_complex
from gateway.serving.upstream.concurrency import ConcurrencyLimit

SMALL = json_bounds.FREE
"""The most bytes of a body that is taken in and parsed without waiting."""

FIRST_ROOM = 2**20
"""The room for a body of unknown length; a longer body takes the room of the largest body that is allowed."""

ROOM_MOST = 64 * 2**20
"""The most bytes of bodies above SMALL that a worker keeps, or four bodies of the largest size if that is more.

A customer gets at most a quarter of this room.
"""

WAIT_S = 10.0
"""How long a body above SMALL waits for room, and again for its turn to be parsed."""

REST_MOST_S = 0.5

Confirm = Callable[[], Awaitable[object]]
"""Looks up whether the caller's key is valid now, or raises InvalidKey."""


class BodyIntake:
    """Takes in all bodies of a worker.

    A body of up to SMALL bytes is taken in and parsed without waiting. A larger body is taken in only once its key was
    looked up and there is room, and is parsed in its customer's turn. Between two larger bodies other calls have the
    event loop for as long as the last body took, half a second at most.
    """

    def __init__(self, body_max: int, clock: Callable[[], float]) -> None:
        self._body_max = body_max
        self._clock = clock
        most = max(ROOM_MOST, 4 * body_max)
        self._room = BodyMemory(most, most // 4, wait_s=WAIT_S)
        self._turn = ConcurrencyLimit(1, wait_s=WAIT_S)

    async def take(self, exchange: Exchange, customer: str, confirm: Confirm) -> bytes:
        """Return the whole body.

        Raises:
            InvalidKey: the body is large, and the key is no longer valid.
            RequestTooLarge: the body has more bytes than allowed.
            TooMuchAtOnce: too many bytes of bodies are being kept.
            CallerGone: the caller hung up before the whole body had arrived.
        """
        declared = _declared(exchange)
        if declared is not None and declared > self._body_max:
            raise self._too_large()
        chunks: list[bytes] = []
        size = room = 0
        while (chunk := await exchange.more()) is not None:
            size += len(chunk)
            if size > self._body_max:
                raise self._too_large()
            if size > max(room, SMALL):
                if not room:
                    await confirm()
                needed = declared or (FIRST_ROOM if size <= FIRST_ROOM else self._body_max)
                await self._room.take(customer, needed - room)
                exchange.at_release(partial(self._room.give_back, customer, needed - room))
                room = needed
            chunks.append(chunk)
            if exchange.body_was_read:
                break
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self, raw: bytes, exchange: Exchange, customer: str) -> Body:
        """Return the JSON object in a body.

        Raises:
            BadRequest: as ``read_body`` raises it.
            TooMuchAtOnce: the body did not get its turn to be parsed in time.
        """
        encoding = exchange.header(b"content-encoding")
        if len(raw) <= SMALL:
            return read_body(raw, encoding)
        try:
            for _ in json_bounds.survey(raw):
                await asyncio.sleep(0)
        except OutOfBounds as error:
            raise too_complex(error) from error
        try:
            async with self._turn.place(customer):
                started = self._clock()
                try:
                    return read_body(raw, encoding)
                finally:
                    await asyncio.sleep(min(self._clock() - started, REST_MOST_S))
        except UpstreamOverloaded as error:
            raise TooMuchAtOnce from error

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"A request body is at most {self._body_max:,} bytes.")


def _declared(exchange: Exchange) -> int | None:
    """Return the length of the body that the head declares."""
    length = exchange.header(b"content-length")
    return int(length[:20]) if length is not None and length.isascii() and length.isdecimal() else None
