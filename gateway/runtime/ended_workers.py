"""Records in Redis which workers have ended, so that their holds are reclaimed without waiting for a lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from gateway.errors import MeteringUnavailable
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated
from gateway.holds.store.connection import RedisConnection

KEPT_S = 24 * 60 * 60
PAUSE_S = 1.0

log = logging.getLogger(__name__)


async def declare_ended(connection: RedisConnection, worker_id: str) -> None:
    """Record in Redis that a worker has ended. The caller must have observed its end, so that it never writes again.

    Raises:
        MeteringUnavailable: Redis is unavailable; a later call records the end just as well.
    """
    with translated():
        await connection.execute("SET", redis_keys.ended_worker(worker_id), "1", "EX", KEPT_S)
        await connection.execute("DEL", redis_keys.worker(worker_id))


class EndedWorkers:
    """The workers whose end is not in Redis yet. ``on_recorded`` is called after each worker that is recorded there."""

    def __init__(self, connection: RedisConnection, ids: Iterable[str], on_recorded: Callable[[], None]) -> None:
        self._connection = connection
        self._ids = list(ids)
        self._on_recorded = on_recorded
        self._news = asyncio.Event()
        if self._ids:
            self._news.set()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._ids)

    def add(self, worker_id: str) -> None:
        self._ids.append(worker_id)
        self._news.set()

    async def record(self) -> None:
        """Record all these workers in Redis now."""
        self._news.clear()
        for worker_id in self.ids:
            await declare_ended(self._connection, worker_id)
            self._ids.remove(worker_id)
            self._on_recorded()

    async def keep_recording(self) -> None:
        """Record each ended worker in Redis, retrying while Redis is unavailable; never returns."""
        while True:
            await self._news.wait()
            try:
                await self.record()
            except Exception as error:
                if not isinstance(error, MeteringUnavailable):
                    log.exception("the ends of workers could not be recorded; it is tried again")
                self._news.set()
                await asyncio.sleep(PAUSE_S)
