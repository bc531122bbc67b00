"""The limit on concurrency at the upstream, with a time-limited queue in which customers take turns."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from gateway.errors import UpstreamOverloaded

OPEN = nullcontext()
"""The context that is used where there is no limit."""

KEPT_PART = 4
"""One place in this many, rounded up, is closed to each single customer, unless there is only one place."""


class ConcurrencyLimit:
    """Lets ``most`` calls through at once. Waiting customers take turns at the places that become free.

    Where there are two places or more, no customer has all of them: a quarter of the places, at least one, is closed to
    it. So a customer's burst waits for its own calls, and another customer's first call finds a place without waiting
    for an answer to end.
    """

    def __init__(self, most: int | None, *, wait_s: float) -> None:
        self._free = most
        self._each = most if most is None or most == 1 else most - -(-most // KEPT_PART)
        self._wait_s = wait_s
        self._inside: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def place(self, customer: str) -> AbstractAsyncContextManager[None]:
        """Return a context that holds a place while its block runs.

        Raises:
            UpstreamOverloaded: no place became free in time.
        """
        return OPEN if self._free is None else self._held(customer)

    @asynccontextmanager
    async def _held(self, customer: str) -> AsyncIterator[None]:
        await self._take(customer)
        try:
            yield
        finally:
            self._give_back(customer)

    async def _take(self, customer: str) -> None:
        # Where a place is free, every waiting customer already has all the places that it may have.
        if self._may_enter(customer):
            self._enter(customer)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(customer, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(customer)  # the place came at the same moment
            else:
                self._leave(customer, turn)
            if isinstance(error, TimeoutError):
                raise UpstreamOverloaded(
                    "Too many calls are waiting; try again.", headers={"retry-after": "1"}
                ) from error
            raise

    def _may_enter(self, customer: str) -> bool:
        assert self._free is not None
        assert self._each is not None
        return self._free > 0 and self._inside[customer] < self._each

    def _enter(self, customer: str) -> None:
        assert self._free is not None
        self._free -= 1
        self._inside[customer] += 1

    def _leave(self, customer: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(customer)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[customer]

    def _give_back(self, customer: str) -> None:
        assert self._free is not None
        self._free += 1
        self._inside[customer] -= 1
        if not self._inside[customer]:
            del self._inside[customer]
        while (next_customer := next(filter(self._may_enter, self._waiting), None)) is not None:
            self._call_in(next_customer)

    def _call_in(self, customer: str) -> None:
        """Admit the customer's call that has waited longest, and put its other calls behind those of all others."""
        queue = self._waiting.pop(customer)
        turn = queue.popleft()
        if queue:
            self._waiting[customer] = queue
        if not turn.done():
            self._enter(customer)
            turn.set_result(None)
