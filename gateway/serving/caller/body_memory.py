"""Room for the bodies that a worker keeps at a time, shared by customers so that none can have all of it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field

from gateway.errors import TooMuchAtOnce


@dataclass(slots=True, eq=False)
class _Turn:
    """Somebody who waits for room."""

    customer: str
    size: int
    comes: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BodyMemory:
    """So many bytes in all, and so many for one customer. Who finds none waits in turn, for a while.

    Whoever waits for what its own customer has taken is passed by others.
    """

    def __init__(self, most: int, each: int, *, wait_s: float) -> None:
        self._free = most
        self._each = each
        self._wait_s = wait_s
        self._taken: Counter[str] = Counter()
        self._waiting: deque[_Turn] = deque()

    async def take(self, customer: str, size: int) -> None:
        """Take room; ``give_back`` returns it.

        Raises:
            TooMuchAtOnce: there was none in time.
        """
        if not self._waiting and self._fits(customer, size):
            self._give(customer, size)
            return
        turn = _Turn(customer, size)
        self._waiting.append(turn)
        self._call_in()
        try:
            async with asyncio.timeout(self._wait_s):
                await turn.comes
        except BaseException as error:
            if turn.comes.done() and not turn.comes.cancelled():
                self.give_back(customer, size)  # the room came at the same moment
            else:
                self._waiting.remove(turn)
                self._call_in()
            if isinstance(error, TimeoutError):
                raise TooMuchAtOnce from error
            raise

    def give_back(self, customer: str, size: int) -> None:
        self._free += size
        self._taken[customer] -= size
        if not self._taken[customer]:
            del self._taken[customer]
        self._call_in()

    def _fits(self, customer: str, size: int) -> bool:
        return size <= self._free and self._taken[customer] + size <= self._each

    def _give(self, customer: str, size: int) -> None:
        self._free -= size
        self._taken[customer] += size

    def _call_in(self) -> None:
        """Give room to those who wait, in turn, until one finds too little in all."""
        for turn in list(self._waiting):
            if turn.comes.done() or self._taken[turn.customer] + turn.size > self._each:
                continue  # gone, and about to be told so; or it waits for its own customer
            if turn.size > self._free:
                return
            self._waiting.remove(turn)
            self._give(turn.customer, turn.size)
            turn.comes.set_result(None)
