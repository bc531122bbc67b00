"""The generation of the hot state that this process works with, and when the process has to check it again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.connection import RedisConnection

PATIENCE_S = 5.0
"""How long a call waits for the hot state; then it is refused, and may be repeated."""

POLL_S = 0.05
"""How often a process checks whether a bucket is in force while others are still being written."""

OnDecided = Callable[[str], object]

Restore = Callable[[OnDecided], Awaitable[str]]
"""Restores Redis' state from the ledger, and returns the generation in force. ``OnDecided`` is called with the
generation as soon as it is decided: buckets that are complete serve under it while others are written."""

InForce = Callable[[str], Awaitable[str]]
"""Returns the generation that a bucket has in Redis, or an empty text."""


async def generation_in(connection: RedisConnection, bucket: str) -> str:
    """Return the generation that a bucket has in Redis, or an empty text where it has none.

    Raises:
        MeteringUnavailable: Redis is unavailable.
    """
    with translated():
        return text(await connection.execute("HGET", redis_keys.state(bucket), "generation") or b"")


def in_own_thread(stack: ExitStack | AsyncExitStack, restore: Callable[[OnDecided], str]) -> Restore:
    """Return a restore that runs in its own thread, which exists until ``stack`` is closed.

    The event loop's own threads may all be busy, with a slow ledger or with counting an answer.
    """
    threads = ThreadPoolExecutor(1, "restore")
    stack.callback(threads.shutdown, wait=False)

    async def restored(on_decided: OnDecided) -> str:
        return await asyncio.get_running_loop().run_in_executor(threads, restore, on_decided)

    return restored


async def nowhere(_bucket: str) -> str:
    """Return an empty text: no bucket is in force before all are."""
    return ""


class Generation:
    """One generation, learnt again when a script answers that it is not in force, or when the server lacks the script.

    A server that has just started lacks the scripts, and so does a replica that takes over. So a server that may have
    lost more than its scripts is noticed before a call is admitted.
    """

    def __init__(self, restore: Restore, in_force: InForce = nowhere) -> None:
        self._restore = restore
        self._in_force = in_force
        self._learning: asyncio.Task[None] | None = None
        self._is_decided = False
        """Whether the generation that is being put in force is known; before that, no bucket counts as complete."""
        self.value = ""
        self.learnt = 0
        """How many times the generation was learnt; pass ``learn`` the number from before the failed command."""

    async def learn(self, since: int, bucket: str | None = None, patience_s: float = PATIENCE_S) -> None:
        """Check the hot state, unless it was checked since the generation was learnt for the ``since``-th time.

        Args:
            bucket: the bucket that the call needs; None means all buckets.

        Raises:
            MeteringUnavailable: the check takes over ``patience_s``; it continues, and the next call waits for it.
        """
        if self.learnt != since:
            return None
        learning = self._learning
        if learning is None:
            self._is_decided = False
            learning = self._learning = asyncio.create_task(self._learn())
            learning.add_done_callback(_retrieve_failure)
        now = asyncio.get_running_loop().time
        end = now() + patience_s
        pause_s = patience_s if bucket is None else POLL_S
        while True:
            await asyncio.wait({learning}, timeout=max(0.0, min(pause_s, end - now())))
            if learning.done():
                return await learning
            if bucket is not None and self._is_decided and await self._in_force(bucket) == self.value:
                return None
            if now() >= end:
                raise MeteringUnavailable("The hot state is being rebuilt from the ledger; try again in a moment.")

    @property
    def is_restoring(self) -> bool:
        """Whether the hot state is being checked or rebuilt; meanwhile no call is admitted here."""
        return self._learning is not None

    async def _learn(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self.value = await self._restore(lambda value: loop.call_soon_threadsafe(self._note_decided, value))
            self.learnt += 1
        finally:
            self._learning = None

    def _note_decided(self, value: str) -> None:
        if self._learning is not None:
            self.value, self._is_decided = value, True


def _retrieve_failure(learning: asyncio.Task[None]) -> None:
    """Retrieve a failure that no caller waits for any more: asyncio reports exceptions that are never retrieved."""
    if not learning.cancelled():
        learning.exception()
