"""Erases a customer's own words from Redis and its files, except what a running call needs."""

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
    """Remove a deleted customer's conversations, the threads to them, its kept answers, refusals and notices.

    Lock-outs and end users without held tokens are removed too. The holds of a running call are removed with that call.
    At the end each server is requested to rewrite its log, because the old log contains every command. An operator's
    server that refuses keeps its log until it rewrites the log automatically.

    Raises:
        MeteringUnavailable: Redis is unavailable; the erasure can be repeated later.
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
        client.hdel(redis_keys.refusal_counts(bucket), customer_id)
        client.zrem(redis_keys.refusal_order(bucket), customer_id)
        client.unlink(redis_keys.locked_out(bucket, customer_id))
        _drop(client, f"{{b{bucket}}}:end_user:{customer_id}:*", unless="held")
        for stream in (redis_keys.notices(bucket), redis_keys.DEAD_NOTICES):
            for entry in _notices_of(client, stream, customer_id):
                client.xdel(stream, entry)
        for server in _servers(client):
            _rewrite(server, clock, pause)


def _drop(client: redis.Redis, pattern: str, unless: str | None = None) -> None:
    """Remove keys, except those whose field ``unless`` is above zero."""
    for name in client.scan_iter(match=pattern, count=1_000):
        if unless is not None and text(client.hget(name, unless) or b"0") not in ("0", ""):
            continue
        client.unlink(name)


def _notices_of(client: redis.Redis, stream: str, customer_id: str) -> Iterator[str]:
    """Yield the ids of the entries about a customer: the customer is deleted, so its limits no longer matter."""
    for name, entry in cast(list[tuple[bytes, dict[Any, Any]]], client.xrange(stream)):
        try:
            if json.loads(fields(entry).get("facts", "null"))["customer"] == customer_id:
                yield text(name)
        except (ValueError, KeyError, TypeError):
            continue


def _servers(client: redis.Redis) -> Iterator[redis.Redis]:
    """Yield each server that has a log of its own: in a cluster all servers, replicas after their primaries."""
    if not isinstance(client, redis.RedisCluster):
        yield client
        return
    for node in (*client.get_primaries(), *client.get_replicas()):
        yield client.get_redis_connection(node)


def _rewrite(server: redis.Redis, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
    """Have a server rewrite its log, after any rewrite that began before the erasure."""
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
    log.warning("Redis did not rewrite its log as requested; the log has the erased data until Redis does: %s", reason)


def _await_rewritten(
    server: redis.Redis, end: float, clock: Callable[[], float], pause: Callable[[float], None]
) -> bool:
    """Wait until the server rewrites no log; return False if it still does at ``end``."""
    while True:
        persistence = server.info("persistence")
        if not (int(persistence["aof_rewrite_in_progress"]) or int(persistence["aof_rewrite_scheduled"])):
            return True
        if clock() >= end:
            return False
        pause(PAUSE_S)
