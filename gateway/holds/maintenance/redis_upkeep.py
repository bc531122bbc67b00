"""Keeps Redis fit to serve, a little each turn: its clock, its memory, and windows whose period is long over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import redis
from redis.exceptions import OutOfMemoryError

from gateway.holds.maintenance.redis_clock import RedisClock
from gateway.holds.periods import period_at
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.packing import settled_at
from gateway.holds.store.scripts import run_all, run_joined, source
from gateway.holds.terms import Customer

FULL, ROOMY = 0.85, 0.80
"""Shares of ``maxmemory``: above the first no call is admitted until less than the second is used."""

LOST_MS = 1_800_000
"""A change of the clock by this much may have expired keys that are still needed: a conversation lasts an hour."""

KEPT_MS = 2 * 86_400_000
"""How long a window outlives its period, for calls that end late."""

MARKS_KEPT_MS = 86_400_000
"""How long a settled mark is kept if its worker does not remove it: the worker may only be slow."""

LONGEST_MS = 32 * 86_400_000
"""The longest period, whatever its kind and time zone."""

NAMES_A_TURN = 150


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a turn."""

    now: int | None
    """The time as the scripts count it, ms; None where Redis' clock and this process' have never agreed."""
    ahead_ms: int
    """How far Redis' clock is ahead of this process'."""
    has_lost: bool
    """Whether Redis' clock was set so far that keys which can be rebuilt from the ledger may have expired."""
    memory: int
    memory_max: int
    """Bytes that Redis uses and may use, on the fullest node; a ``memory_max`` of 0 is no limit."""


class Maintenance:
    """Maintains Redis; any number of processes may run it.

    A window has no expiry in Redis, because a quota must not start over where Redis' clock is set forward for a moment.
    Windows are removed here, once both clocks show that their period has been over for two days.

    Raises:
        MeteringUnavailable: Redis is unavailable, from ``turn``.
    """

    def __init__(self, client: redis.Redis, now_ms: Callable[[], int]) -> None:
        self._redis = client
        self._now_ms = now_ms
        self._clocks = RedisClock(client, now_ms)
        self._names: Iterator[bytes] = iter(())
        self._raise = client.register_script(source("advance"))
        self._remove_fields = client.register_script(source("remove_fields"))
        self._remove = client.register_script(source("remove_window"))
        self._is_full: bool | None = None
        self._turns = 0

    def turn(self, *, removes: bool = True) -> Findings:
        """Check clock and memory, and remove some outdated windows and marks unless ``removes`` is false."""
        with translated():
            reading = self._clocks.read()
            previous = int(cast(Any, self._redis.get(redis_keys.CLOCK)) or 0)
            used, memory_max = self._memory()
            self._refuse_when_full(used, memory_max)
            with suppress(OutOfMemoryError):
                self._redis.set(redis_keys.CLOCK, reading.here)
            if removes and reading.now is not None:
                earlier = min(reading.here, self._now_ms())
                self._remove_past(earlier - KEPT_MS)
                self._remove_marks(earlier - MARKS_KEPT_MS)
        has_lost = abs(reading.jump_ms) > LOST_MS or reading.here < previous - LOST_MS
        return Findings(reading.now, reading.ahead_ms, has_lost, used, memory_max)

    def _memory(self) -> tuple[int, int]:
        """Return the used bytes and the limit, 0 for none, of the node that has the least room."""
        if isinstance(self._redis, redis.RedisCluster):
            nodes = cast(Any, self._redis.info("memory", target_nodes=redis.RedisCluster.PRIMARIES))
            reports = list(nodes.values()) if all(isinstance(node, dict) for node in nodes.values()) else [nodes]
        else:
            reports = [cast(Any, self._redis.info("memory"))]
        amounts = [(int(node.get("used_memory", 0)), int(node.get("maxmemory", 0))) for node in reports]
        return max(amounts, key=lambda amount: amount[0] / amount[1] if amount[1] else 0)

    def _refuse_when_full(self, used: int, memory_max: int) -> None:
        """Stop admissions while Redis has too little room, so that in-flight calls can be settled."""
        share = used / memory_max if memory_max else 0.0
        is_full = share > (ROOMY if self._is_full else FULL)
        if is_full is self._is_full:
            return
        states = [redis_keys.state(bucket) for bucket in redis_keys.ALL_BUCKETS]
        if is_full:
            run_joined(self._redis, self._raise, [([state], ["full", 1, 0]) for state in states])
        else:
            run_joined(self._redis, self._remove_fields, [([state], []) for state in states], "full")
        self._is_full = is_full

    def _remove_past(self, before: int) -> None:
        """Remove those windows among the next names that have no holds and whose period ended before ``before``."""
        names = [text(name) for name in islice(self._names, NAMES_A_TURN)]
        if len(names) < NAMES_A_TURN:
            self._names = iter(self._redis.scan_iter(count=NAMES_A_TURN))
        windows = [(name, *parsed) for name in names if (parsed := window_in(name)) is not None and parsed[1] < before]
        periods = self._customers(sorted({customer for _, customer, _ in windows}))
        past = [
            name
            for name, customer, start in windows
            if customer not in periods
            or period_at(periods[customer].period, periods[customer].timezone, start)[1] < before
        ]
        if not past:
            return
        starts = {name: start for name, _, start in windows}
        run_all(self._redis, self._remove, [([name], [int(starts[name] + LONGEST_MS < before)]) for name in past])

    def _remove_marks(self, before: int) -> None:
        """Remove the next bucket's marks of holds settled before ``before``: the workers of those holds have died."""
        name = redis_keys.settled(redis_keys.ALL_BUCKETS[self._turns % redis_keys.BUCKETS])
        self._turns += 1
        marks = cast(dict[bytes, bytes], self._redis.hgetall(name))
        past = [hold_id for hold_id, mark in marks.items() if settled_at(mark) < before]
        if past:
            self._redis.hdel(name, *past[:NAMES_A_TURN])

    def _customers(self, ids: Sequence[str]) -> dict[str, Customer]:
        if not ids:
            return {}
        with self._redis.pipeline(transaction=False) as batch:
            for customer in ids:
                batch.hget(redis_keys.customer(redis_keys.bucket_of(customer), customer), "body")
            bodies = batch.execute()
        return {
            customer: Customer.from_json(body) for customer, body in zip(ids, bodies, strict=True) if body is not None
        }


def window_in(name: str) -> tuple[str, int] | None:
    """Return the owner of a window's key and when its period starts, ms; None for a key of another kind."""
    _, _, rest = name.partition(":")
    kind, _, tail = rest.partition(":")
    if kind == "window":
        customer, _, start = tail.rpartition(":")
    elif kind == "end_user":
        customer, _, start = tail.rpartition(":")[0].rpartition(":")
    else:
        return None
    return (customer, int(start)) if start.isdecimal() else None
