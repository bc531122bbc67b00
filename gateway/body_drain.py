"""Reads and drops the bodies of refused requests, a few at a time, so that their senders can read the refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SMALL = 64 * 2**10
"""Bytes of a body that are dropped without waiting for a place."""

DROPPED_MOST = 64 * 2**20
"""The most bytes of a body that are dropped; the connection of a longer body ends with the refusal."""

AT_ONCE = 8
"""The most bodies above SMALL that are dropped at a time. With hundreds of them each turn of the event loop would take
as long as reading all the bytes that have come since the turn before."""

WAIT_S = 30.0
"""The longest time for which a body waits for a place and is dropped; nothing is read of a body that waits."""

More = Callable[[], Awaitable[bytes | None]]
"""Returns the next bytes of a body, or None after its end."""


class BodyDrain:
    """Drops a worker's refused bodies, a few at a time."""

    def __init__(self, at_once: int = AT_ONCE, wait_s: float = WAIT_S) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_s = wait_s

    async def drop(self, more: More) -> bool:
        """Read and drop the rest of a body; return whether its end was reached."""
        size = 0
        while size <= SMALL:
            if (chunk := await more()) is None:
                return True
            size += len(chunk)
        try:
            async with asyncio.timeout(self._wait_s), self._places:
                while size <= DROPPED_MOST:
                    if (chunk := await more()) is None:
                        return True
                    size += len(chunk)
        except TimeoutError:
            pass
        return False
