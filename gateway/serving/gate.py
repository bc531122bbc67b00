"""The house's own limit on calls at the upstream, with a short queue in which every customer takes its turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.errors import UpstreamOverloaded


class Gate:
    """Lets so many calls through at once. A place that becomes free goes to the customer who was served longest ago.

    So one customer's burst waits behind itself; another's call waits for one place, not for the burst.
    """

    def __init__(self, most: int | None, *, wait_s: float) -> None:
        self._free = most
        self._wait_s = wait_s
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def place(self, customer: str) -> AsyncIterator[None]:
        """Hold a place for as long as the block runs.

        Raises:
            UpstreamOverloaded: none became free in time.
        """
        if self._free is None:
            yield
            return
        await self._take(customer)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, customer: str) -> None:
        assert self._free is not None
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(customer, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back()  # the place came at the same moment
            else:
                self._leave(customer, turn)
            if isinstance(error, TimeoutError):
                raise UpstreamOverloaded(
                    "Too many calls are waiting; try again.", headers={"retry-after": "1"}
                ) from error
            raise

    def _leave(self, customer: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(customer)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[customer]

    def _give_back(self) -> None:
        assert self._free is not None
        while self._waiting:
            customer, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[customer] = queue  # behind everyone else who waits
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
