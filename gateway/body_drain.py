"""Reads the bodies of refused requests to their end and drops them, so that their senders hear why: a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SMALL = 64 * 2**10
"""Bytes that are dropped at once."""

DROPPED_MOST = 64 * 2**20
"""Bytes of one body that are dropped; the connection of a longer one ends with the refusal."""

AT_ONCE = 8
"""Larger bodies that are dropped at a time. With hundreds of them each turn of the event loop would be as long as all of
their bytes take that have come since the last one."""

WAIT_S = 30.0
"""How long a sender waits for its refusal at most; nothing is read of it while others are dropped."""

More = Callable[[], Awaitable[bytes | None]]
"""Returns what comes next of a body, or None after its end."""


class BodyDrain:
    """What a worker drops at a time."""

    def __init__(self, at_once: int = AT_ONCE, wait_s: float = WAIT_S) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_s = wait_s

    async def drop(self, more: More) -> bool:
        """Drop what comes of a body; return whether nothing is left of it."""
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
