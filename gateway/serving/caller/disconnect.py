"""Ends what is done for a caller once it hangs up, or once it has taken too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from gateway.deadlines import Ticks
from gateway.errors import CallerGone

WhenGone = Callable[[Callable[[], None] | None], None]
"""Takes what is to be called once the caller is gone, in place of what it took before."""


class Attendance:
    """A block that ends with CallerGone when its caller hangs up, and with TimeoutError after ``seconds``.

    Where the caller hung up before, nothing of the block is run. ``goes_on``, where there is one, is told once that the caller has left and says for how many seconds the block goes on
    without it; after these it ends with CallerGone.

    Our own server tells at once that a caller is gone: ``when_gone`` takes who is to hear it. Of another one only
    ``receive()`` does, and only to who waits for it: a task for that is made with the first tick, which most calls that
    do not stream do not live to see.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[Any]],
        when_gone: WhenGone | None,
        ticks: Ticks,
        seconds: float,
        *,
        heeds_caller: bool,
        goes_on: Callable[[], float] | None = None,
    ) -> None:
        self._receive = receive
        self._when_gone = when_gone if heeds_caller else None
        self._ticks = ticks
        self._ticks_left = ticks.within(seconds)
        self._has_to_wait = heeds_caller and when_gone is None
        self._goes_on = goes_on
        self.is_unheard = False
        """Whether it goes on without its caller."""
        self._why: Exception | None = None
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._ticks.watch(self)
        if self._when_gone is not None:
            self._when_gone(self._leave)
        if self._why is not None:
            try:
                await asyncio.sleep(0)  # where the end comes
            except asyncio.CancelledError as error:
                await self.__aexit__(type(error), error, None)
                raise

    def tick(self) -> None:
        self._ticks_left -= 1
        if self._ticks_left == 0:
            self._end(CallerGone("The caller hung up.") if self.is_unheard else TimeoutError())
        elif self._has_to_wait and self._watch is None:
            self._watch = asyncio.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.stays():
            self._end(CallerGone("The caller hung up."))

    def stays(self) -> bool:
        """Take note that the caller has left; return whether the block goes on without it."""
        if self._goes_on is not None:
            seconds, self._goes_on = self._goes_on(), None
            if seconds:
                self.is_unheard = True
                self._ticks_left = min(self._ticks_left, self._ticks.within(seconds))
        return self.is_unheard

    def _end(self, why: Exception) -> None:
        if self._why is None:
            assert self._task is not None
            self._why = why
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticks.leave(self)
        self._goes_on = None
        if self._when_gone is not None:
            self._when_gone(None)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # its end keeps the frames that it was in, and so this
        if self._why is not None:
            assert self._task is not None
            if self._task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
                why, self._why = self._why, None
                try:
                    raise why from None
                finally:
                    del why  # else it and this frame would keep each other
