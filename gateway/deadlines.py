"""Deadlines of a worker's waits for callers and upstreams, counted in ticks of one clock, not by a timer for each wait.

An event loop that was kept from running ticks once when it runs again, and receives what arrived meanwhile before it
ticks a second time. So a busy worker never takes its own delay for another's silence. A wait that ends at once costs
two assignments.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK_S = 0.1


class Watched(Protocol):
    """An object whose ``tick`` is called at every tick while it is watched."""

    def tick(self) -> None:
        """Count a tick that has passed."""


class Deadlines:
    """The clock that ticks; it runs only while something is watched."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> int:
        """Return a number of ticks that lasts at least this many seconds."""
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
        finally:  # the clock goes on after a fault
            self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick) if self._watched else None
