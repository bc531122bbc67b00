"""Takes a customer's own words out of Redis, its files included, as far as no running call needs them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import redis
from redis.exceptions import ResponseError

from gateway.holds.store import redis_keys
from gateway.holds.store.clients import fields, text, translated
from gateway.holds.store.packing import conversation_in

REWRITTEN_S = 30.0
PAUSE_S = 0.05

log = logging.getLogger(__name__)


def erase_customer(
    client: redis.Redis,
    customer_id: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Remove a deleted customer's conversations, what leads back to them, its kept answers, refusals and notices.

    What a running call holds goes with that call. Last each server is asked to write its log anew: the old one has
    every command in it. A server of the operator's that does not let itself be asked keeps it until it does so itself.

    Raises:
        MeteringUnavailable: Redis is unavailable; doing it again later is as good.
    """
    bucket = redis_keys.bucket_of(customer_id)
    with translated():
        for name in client.scan_iter(match=redis_keys.conversation(bucket, customer_id, "*"), count=1_000):
            conversation = conversation_in(client, name)
            if conversation is None or conversation.live <= 0:
                client.unlink(name)
        _drop(client, redis_keys.thread(bucket, customer_id, "*"))
        _drop(client, redis_keys.once(bucket, customer_id, "*"))
        client.unlink(redis_keys.refusals(bucket, customer_id))
        client.unlink(redis_keys.locked_out(bucket, customer_id))
        _drop(client, f"{{b{bucket}}}:end_user:{customer_id}:*", unless="held")
        for stream in (redis_keys.notices(bucket), redis_keys.NOTICES_ASIDE):
            for entry in _notices_of(client, stream, customer_id):
                client.xdel(stream, entry)
        for server in _servers(client):
            _rewrite(server, clock, pause)


def _drop(client: redis.Redis, pattern: str, unless: str | None = None) -> None:
    """Remove keys, but for those whose field ``unless`` is above zero."""
    for name in client.scan_iter(match=pattern, count=1_000):
        if unless is not None and text(client.hget(name, unless) or b"0") not in ("0", ""):
            continue
        client.unlink(name)


def _notices_of(client: redis.Redis, stream: str, customer_id: str) -> Iterator[str]:
    """Yield the entries that tell of a customer: as it was deleted, nobody has to hear of its limits."""
    for name, entry in cast(list[tuple[bytes, dict[Any, Any]]], client.xrange(stream)):
        try:
            if json.loads(fields(entry).get("facts", "null"))["customer"] == customer_id:
                yield text(name)
        except (ValueError, KeyError, TypeError):
            continue


def _servers(client: redis.Redis) -> Iterator[redis.Redis]:
    """Yield each server that has a log of its own: in a cluster all of them, replicas after what they copy."""
    if not isinstance(client, redis.RedisCluster):
        yield client
        return
    for node in (*client.get_primaries(), *client.get_replicas()):
        yield client.get_redis_connection(node)


def _rewrite(server: redis.Redis, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
    """Have a server write its log anew, after a rewriting that had begun before the erasure."""
    end = clock() + REWRITTEN_S
    try:
        if not int(server.info("persistence")["aof_enabled"]):
            return
        _await_rewritten(server, end, clock, pause)
        server.bgrewriteaof()
        if (
            _await_rewritten(server, end, clock, pause)
            and server.info("persistence")["aof_last_bgrewrite_status"] == "ok"
        ):
            return
        reason = f"not done after {REWRITTEN_S:g} s, or failed"
    except ResponseError as error:
        reason = str(error)
    log.warning("Redis does not write its log anew when asked, so it keeps what was erased until it does: %s", reason)


def _await_rewritten(
    server: redis.Redis, end: float, clock: Callable[[], float], pause: Callable[[float], None]
) -> bool:
    """Wait until no log is being rewritten; return whether that came before ``end``."""
    while True:
        persistence = server.info("persistence")
        if not (int(persistence["aof_rewrite_in_progress"]) or int(persistence["aof_rewrite_scheduled"])):
            return True
        if clock() >= end:
            return False
        pause(PAUSE_S)
