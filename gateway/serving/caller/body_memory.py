"""Room for the bodies that a worker keeps at a time, shared so that no customer can have all of it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field

from gateway.errors import TooMuchAtOnce


@dataclass(slots=True, eq=False)
class _Turn:
    """A body that waits for room."""

    customer: str
    size: int
    comes: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BodyMemory:
    """Room of ``most`` bytes, of which one customer can have ``each``. Bodies that find no room wait in turn.

    A body that waits because of its own customer's bytes is overtaken by others. No body waits longer than ``wait_s``.
    """

    def __init__(self, most: int, each: int, *, wait_s: float) -> None:
        self._free = most
        self._each = each
        self._wait_s = wait_s
        self._in_use: Counter[str] = Counter()
        self._waiting: deque[_Turn] = deque()

    async def take(self, customer: str, size: int) -> None:
        """Take room; ``give_back`` returns it.

        Raises:
            TooMuchAtOnce: there was no room in time.
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
        self._in_use[customer] -= size
        if not self._in_use[customer]:
            del self._in_use[customer]
        self._call_in()

    def _fits(self, customer: str, size: int) -> bool:
        return size <= self._free and self._in_use[customer] + size <= self._each

    def _give(self, customer: str, size: int) -> None:
        self._free -= size
        self._in_use[customer] += size

    def _call_in(self) -> None:
        """Give room to the waiting bodies, in turn, until the room is too small for the next."""
        for turn in list(self._waiting):
            if turn.comes.done() or self._in_use[turn.customer] + turn.size > self._each:
                continue  # it was cancelled, or its own customer has too many bytes
            if turn.size > self._free:
                return
            self._waiting.remove(turn)
            self._give(turn.customer, turn.size)
            turn.comes.set_result(None)
