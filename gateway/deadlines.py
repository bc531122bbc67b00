"""How long a worker's calls may wait for others, counted in ticks of one clock instead of by a timer for each wait.

An event loop that was kept from running ticks once when it runs again, and hears what came meanwhile before it ticks a
second time: being busy is never taken for another's silence. And a wait that ends at once costs two assignments.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK_S = 0.1


class Watched(Protocol):
    """What is told of every tick while it is watched."""

    def tick(self) -> None:
        """Take note that a tick has passed."""


class Deadlines:
    """The clock; it runs only while something is watched."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> int:
        """Return how many ticks are as long as so many seconds, and not shorter."""
        return math.ceil(seconds / self._tick_s) + 1

    def watch(self, one: Watched) -> None:
        self._watched.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def leave(self, one: Watched) -> None:
        self._watched.discard(one)

    def _tick(self) -> None:
        try:
            for one in list(self._watched):
                one.tick()
        finally:  # a fault of one ends no other's deadline
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick) if self._watched else None
