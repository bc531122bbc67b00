"""The last refusals of each customer, in Redis: the limit, its used and held amounts, and the requested amount."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from redis.exceptions import RedisError

from gateway.errors import AccountInconsistent, CallerError, InvalidKey, Reached, TokencapError
from gateway.holds.hold import ReservationRequest
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import texts, translated
from gateway.holds.store.connection import RedisConnection
from gateway.holds.store.scripts import Script

MOST = 1_000
"""The number of refusals kept of a customer."""

MOST_OF_BUCKET = 4_000
"""The number of refusals kept of all customers of a bucket: about a million in all buckets."""

KEPT_S = 35 * 86_400
"""How long a customer's refusals are kept after the last of them."""

EVERY_S = 0.2
WAITING_MOST = 20_000
"""The refusals that a worker remembers until it writes them; any further refusal in that time is dropped."""

FIELDS = ("time", "status", "code", "limit", "max", "used", "held", "asked", "key_id", "request_id")

NOTICED = {"period_tokens_max": "period_tokens", "spend_nanousd_max": "spend"}
"""Limits that lock a customer out, and their names in notices."""

log = logging.getLogger(__name__)


class RefusalLog:
    """The refusals that a worker has not written yet. An admitted call costs nothing here.

    A refused call costs an entry in memory. The entries of a fifth of a second are written together, those of a
    customer in one command. A killed worker loses the entries of that time, and a full Redis takes none.
    """

    def __init__(self, connection: RedisConnection, now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._count = 0
        self._locked: dict[tuple[str, str], Reached] = {}
        self._notified: dict[tuple[str, str], str] = {}
        """By customer and limit, the period and amount for which this worker knows that a lock-out was notified."""
        self._lock_out = Script("lock_out")
        self._keep = Script("log_refusals")

    def note(self, customer: str, key_id: str | None, request: ReservationRequest, error: TokencapError) -> None:
        """Remember a refusal by the customer's own limits or state; a fault of the gateway is not remembered."""
        if not is_kept(error) or self._count >= WAITING_MOST:
            return
        reached = error.reached or Reached("", None)
        if reached.period is not None:
            self._locked[customer, reached.limit] = reached
        values = (reached.limit or None, reached.max, reached.used, reached.held, reached.requested)
        self._waiting[customer].append(
            orjson.dumps((self._now_ms(), error.status, error.code, *values, key_id, request.id))
        )
        self._count += 1

    async def run(self) -> None:
        """Write the remembered refusals, five times a second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._waiting:
                await self.flush()

    async def flush(self) -> None:
        """Write the remembered refusals; refusals that Redis does not take are lost."""
        await self._notify_locked_out()
        waiting, self._waiting, self._count = self._waiting, defaultdict(list), 0
        sent = [self._write(customer, entries[-MOST:]) for customer, entries in waiting.items()]
        results = await asyncio.gather(*sent, return_exceptions=True)
        lost = [
            (error, len(entries))
            for error, entries in zip(results, waiting.values(), strict=True)
            if isinstance(error, BaseException)
        ]
        for error, _ in lost:
            if not isinstance(error, (RedisError, OSError)):
                raise error
        if lost:
            log.warning("%d refusals are not kept: %s", sum(count for _, count in lost), lost[0][0])

    async def _write(self, customer: str, entries: Sequence[bytes]) -> None:
        """Write refusals of a customer; if its bucket has too many, remove the logs whose last refusal is oldest."""
        bucket = redis_keys.bucket_of(customer)
        log_name = redis_keys.refusals(bucket, customer)
        names = [log_name, redis_keys.refusal_counts(bucket), redis_keys.refusal_order(bucket)]
        arguments: list[bytes | str | int] = [customer, self._now_ms(), KEPT_S * 1000, MOST, MOST_OF_BUCKET, *entries]
        removed = texts(await self._keep.run(self._connection, names, arguments))
        if removed:
            await self._connection.execute("UNLINK", *(redis_keys.refusals(bucket, displaced) for displaced in removed))

    async def _notify_locked_out(self) -> None:
        """Notify the webhook, once, of each limit that refuses a customer's calls until its period ends."""
        locked, self._locked = self._locked, {}
        if len(self._notified) > WAITING_MOST:
            self._notified.clear()
        for (customer, limit), reached in locked.items():
            start, end = reached.period or (0, 0)
            mark = f"{start} {reached.max}"
            if self._notified.get((customer, limit)) == mark:
                continue
            bucket = redis_keys.bucket_of(customer)
            facts = {
                **{"customer": customer, "time": self._now_ms(), "limit": NOTICED[limit], "max": reached.max},
                **{"used": reached.used, "held": reached.held, "asked": reached.requested},
                **{"period_start": start, "period_end": end},
            }
            names = [redis_keys.locked_out(bucket, customer), redis_keys.notices(bucket)]
            try:
                await self._lock_out.run(self._connection, names, [limit, mark, end, orjson.dumps(facts)])
            except (RedisError, OSError) as error:
                log.warning("No notice is written that %s is locked out: %s", customer, error)
                continue
            self._notified[customer, limit] = mark


def is_kept(error: TokencapError) -> bool:
    """Return whether the customer may see the refusal: the customer's own limit, tier or state refused the call."""
    return isinstance(error, (CallerError, AccountInconsistent)) and not isinstance(error, InvalidKey)


async def refusals_of(connection: RedisConnection, customer: str) -> list[dict[str, Any]]:
    """Return a customer's last refusals, newest first.

    Raises:
        MeteringUnavailable: Redis is unavailable.
    """
    with translated():
        return shown(
            await connection.execute(
                "LRANGE", redis_keys.refusals(redis_keys.bucket_of(customer), customer), 0, MOST - 1
            )
        )


def shown(entries: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return refusals as shown, newest first; a refusal written twice, after a lost connection, appears once."""
    read = {entry: dict(zip(FIELDS, orjson.loads(entry), strict=True)) for entry in entries}
    return sorted(read.values(), key=lambda refusal: refusal["time"], reverse=True)
