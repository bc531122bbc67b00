"""The generation of the hot state that this process works with, and when it has to make sure of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

Restore = Callable[[], Awaitable[str]]
"""Makes sure that Redis holds what the ledger says, and returns the generation in force then."""


class Generation:
    """One number, learnt again when a script says that it is not in force, or when the server has forgotten the script.

    A server forgets its scripts when it starts, and so does the replica that takes over: whatever else it may have lost,
    it tells so before a call is admitted.
    """

    def __init__(self, restore: Restore) -> None:
        self._restore = restore
        self._one_at_a_time = asyncio.Lock()
        self.value = ""
        self.learnt = 0
        """How often it was learnt; hand it to ``learn`` as it was before the question."""

    async def learn(self, since: int) -> None:
        """Make sure of the hot state, unless somebody did since it was learnt for the ``since``-th time."""
        async with self._one_at_a_time:
            if self.learnt == since:
                self.value = await self._restore()
                self.learnt += 1
