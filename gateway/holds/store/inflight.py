"""Reads the buckets and the holds of in-flight calls from Redis, in the form that ``lua/shared.lua`` defines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any

import redis

from gateway.holds.hold import Facts
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import text, translated
from gateway.holds.store.scripts import ScriptCall, run_joined, source

PROGRESS = b"progress:"
"""The prefix of the field that has a call's progress at its last renewal; the call's id follows."""

_NUMBERS = Struct("<11d")


@dataclass(frozen=True, slots=True)
class InFlight:
    """One hold. Times in ms, money in nano-units."""

    id: str
    is_suspect: bool
    owner: str
    tokens: int
    money: int
    first: int
    was_charged: bool
    window: str
    deadline: int
    admitted: int
    grant: int
    facts_json: str
    progress: str
    """When the hold was last renewed and its use by then, as Redis has it; empty before the first renewal."""
    renewed: int
    sofar: int
    owes_input: bool

    @property
    def facts(self) -> Facts:
        return Facts.from_json(self.facts_json)


def _read(hold_id: str, hold: bytes, progress: str) -> InFlight:
    state, _, packed = hold.partition(b"\0")
    tokens, money, _, first, charged, deadline, admitted, grant, *_ = _NUMBERS.unpack_from(packed)
    owner, window, facts = packed[_NUMBERS.size :].split(b"\0", 2)
    renewed, sofar, owes = progress.split(" ")[:3] if progress else (admitted, 0, "0")
    return InFlight(
        id=hold_id,
        is_suspect=state == b"suspect",
        owner=owner.decode(),
        tokens=int(tokens),
        money=int(money),
        first=int(first),
        was_charged=charged == 1,
        window=window.decode(),
        deadline=int(deadline),
        admitted=int(admitted),
        grant=int(grant),
        facts_json=facts.decode(),
        progress=progress,
        renewed=int(renewed),
        sofar=int(sofar),
        owes_input=owes == "1",
    )


def calls_in(entries: Mapping[bytes, bytes]) -> list[InFlight]:
    """Return the calls of one bucket's hash."""
    return [
        _read(text(name), hold, text(entries.get(PROGRESS + name, b"")))
        for name, hold in entries.items()
        if not name.startswith(PROGRESS)
    ]


@dataclass(frozen=True, slots=True)
class BucketState:
    """The state of one bucket.

    The generation in force, empty where there is none; the number of the last record that the ledger has of the bucket;
    whether it has in-flight calls; how many records wait for the ledger; whether it has holds of the previous version.
    """

    generation: str
    watermark: int
    has_calls: bool
    waiting: int
    has_older_holds: bool


class Survey:
    """Reads all buckets, in one command where there is one server.

    Raises:
        MeteringUnavailable: Redis is unavailable, from ``take`` and ``latest``.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._survey = client.register_script(source("survey"))
        self._rows: list[Any] = []
        self._states: dict[str, BucketState] = {}

    def latest(self) -> dict[str, BucketState]:
        """Return each bucket's state as it was last read."""
        return self._states or self.take()

    def take(self) -> dict[str, BucketState]:
        """Return each bucket's state now."""
        with translated():
            rows = run_joined(self._redis, self._survey, _SURVEYED)
        if rows != self._rows:
            self._rows = rows
            self._states = {
                bucket: BucketState(text(generation or b""), int(watermark or 0), calls > 0, waiting, older > 0)
                for bucket, (generation, watermark, calls, waiting, older) in zip(
                    redis_keys.ALL_BUCKETS, rows, strict=True
                )
            }
        return self._states


_SURVEYED: list[ScriptCall] = [
    (
        [
            redis_keys.state(bucket),
            redis_keys.inflight(bucket),
            redis_keys.usage(bucket),
            redis_keys.older_holds(bucket),
        ],
        [],
    )
    for bucket in redis_keys.ALL_BUCKETS
]


def calls_in_flight(client: redis.Redis, buckets: Iterable[str]) -> dict[str, list[InFlight]]:
    """Return the in-flight calls by bucket, for the buckets that have any."""
    requested = list(buckets)
    with client.pipeline(transaction=False) as batch:
        for bucket in requested:
            batch.hgetall(redis_keys.inflight(bucket))
        replies = batch.execute()
    return {bucket: calls_in(entries) for bucket, entries in zip(requested, replies, strict=True) if entries}
