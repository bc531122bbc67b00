"""Read your own writes: waits until every call settled by now is in the ledger, or reports that this is not so."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import redis

from gateway.errors import CallsUnbooked
from gateway.holds.store import redis_keys
from gateway.holds.store.clients import translated

WITHIN_S = 2.0
PAUSE_S = 0.01

BEHIND = "Calls that were settled before this request are not in the ledger yet: repeat it in a moment."
OR_OPEN = f"{BEHIND[:-1]}, or ask with open=true for what is there."


def wait_until_booked(
    client: redis.Redis,
    buckets: Sequence[str] = redis_keys.ALL_BUCKETS,
    *,
    within_s: float = WITHIN_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait for the entries now in the usage streams; return whether all were booked within ``within_s`` seconds.

    Entries leave a stream only after their commit, so after True a reader of the ledger sees all of them.
    Calls settled after this call begins are not waited for: under steady load the streams are never empty.

    Args:
        buckets: the buckets of the requested customers, so that other customers' calls are not waited for.

    Raises:
        MeteringUnavailable: Redis is unavailable.
    """
    end = clock() + within_s
    waiting = _last_entries(client, [redis_keys.usage(bucket) for bucket in buckets])
    while waiting := _still_there(client, waiting):
        if clock() >= end:
            return False
        pause(PAUSE_S)
    return True


def require_booked(client: redis.Redis, customer: str | None = None, *, is_open: bool | None = None) -> None:
    """Wait for the calls that were settled before this request, of all customers or of one.

    Args:
        is_open: whether the request accepts an incomplete answer (``open=true``); None where a request cannot say so.

    Raises:
        CallsUnbooked: some of the calls are not in the ledger yet, and the request does not accept this.
        MeteringUnavailable: Redis is unavailable.
    """
    buckets = redis_keys.ALL_BUCKETS if customer is None else [redis_keys.bucket_of(customer)]
    if not wait_until_booked(client, buckets) and not is_open:
        raise CallsUnbooked(BEHIND if is_open is None else OR_OPEN)


def _last_entries(client: redis.Redis, streams: Sequence[str]) -> dict[str, bytes]:
    """Return the last entry of each stream that has any."""
    with translated(), client.pipeline(transaction=False) as batch:
        for stream in streams:
            batch.xrevrange(stream, count=1)
        replies = batch.execute()
    return {stream: reply[0][0] for stream, reply in zip(streams, replies, strict=True) if reply}


def _still_there(client: redis.Redis, last: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the streams that still have an entry up to their entry in ``last``."""
    if not last:
        return {}
    with translated(), client.pipeline(transaction=False) as batch:
        for stream, entry in last.items():
            batch.xrange(stream, max=entry, count=1)
        replies = batch.execute()
    return {stream: entry for (stream, entry), reply in zip(last.items(), replies, strict=True) if reply}
