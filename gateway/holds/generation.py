"""The generation of the hot state that this process works with, and when it has to make sure of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.errors import MeteringUnavailable

PATIENCE_S = 5.0
"""How long a call waits for the hot state; then it is refused, to be made again."""

Restore = Callable[[], Awaitable[str]]
"""Makes sure that Redis holds what the ledger says, and returns the generation in force then."""


class Generation:
    """One number, learnt again when a script says that it is not in force, or when the server has forgotten the script.

    A server forgets its scripts when it starts, and so does the replica that takes over: whatever else it may have lost,
    it tells so before a call is admitted.
    """

    def __init__(self, restore: Restore) -> None:
        self._restore = restore
        self._learning: asyncio.Task[None] | None = None
        self.value = ""
        self.learnt = 0
        """How often it was learnt; hand it to ``learn`` as it was before the question."""

    async def learn(self, since: int, patience_s: float = PATIENCE_S) -> None:
        """Make sure of the hot state, unless somebody did since it was learnt for the ``since``-th time.

        Raises:
            MeteringUnavailable: it takes long; it goes on, and whoever asks again waits for the same.
        """
        if self.learnt != since:
            return
        learning = self._learning
        if learning is None:
            learning = self._learning = asyncio.create_task(self._learn())
            learning.add_done_callback(_heard)
        await asyncio.wait({learning}, timeout=patience_s)
        if not learning.done():
            raise MeteringUnavailable("The hot state is being rebuilt from the ledger; try again in a moment.")
        await learning

    @property
    def is_restoring(self) -> bool:
        """Whether the hot state is being made sure of; meanwhile no call is admitted here."""
        return self._learning is not None

    async def _learn(self) -> None:
        try:
            self.value = await self._restore()
            self.learnt += 1
        finally:
            self._learning = None


def _heard(learning: asyncio.Task[None]) -> None:
    """Take note of a failure: whoever asked may have stopped waiting, and asyncio complains of one that nobody saw."""
    if not learning.cancelled():
        learning.exception()
