"""An erased customer's words leave Redis and the append-only file of every server that had them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.holds.hold import Once
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.maintenance.redis_erasure import erase_customer
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.clients import connect
from gateway.holds.store.packing import ConversationState
from gateway.holds.store.threads import Threads
from tests.gateway.holds.harness import LEASE, digest_of, holds_harness
from tests.waiting import until

CUSTOMERS = [f"cus_{number:03d}" for number in range(12)]
OURS = b"ada-trip"


@pytest.fixture
def cluster(cluster_url: str) -> Iterator[Any]:
    """The cluster, while each of its servers writes an append-only file."""
    with connect(cluster_url) as client:
        servers = [client.get_redis_connection(node) for node in client.get_primaries()]
        for server in servers:
            server.config_set("appendonly", "yes")
            until(lambda server=server: not is_rewriting(server))
        yield client
        for server in servers:
            server.config_set("appendonly", "no")


def is_rewriting(server: redis.Redis) -> bool:
    info = server.info("persistence")
    return bool(info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"])


def logs_of(server: redis.Redis) -> list[Path]:
    info = server.config_get("*dir*")
    return [path for path in (Path(info["dir"]) / info["appenddirname"]).iterdir() if path.is_file()]


def having(client: Any, word: bytes) -> set[int]:
    """Return the ports of the servers whose log has a word in it."""
    return {
        node.port
        for node in client.get_primaries()
        for path in logs_of(client.get_redis_connection(node))
        if word in path.read_bytes()
    }


def fill(client: Any) -> None:
    for customer in CUSTOMERS:
        bucket = redis_keys.bucket_of(customer)
        rests = ConversationState(1, 1, 0, 10, 0, 0, 0, 0, False, "basic", "v1")
        client.set(redis_keys.conversation(bucket, customer, "ada-trip"), rests.to_bytes())
        client.set(redis_keys.conversation(bucket, customer, "bob-trip"), replace(rests, live=1).to_bytes())


def test_no_server_of_a_cluster_keeps_it_in_its_log(cluster: Any) -> None:
    """What a running call needs stays, on each of them."""
    fill(cluster)
    until(lambda: len(having(cluster, OURS)) == 3)

    for customer in CUSTOMERS:
        erase_customer(cluster, customer)

    until(lambda: having(cluster, OURS) == set())
    assert len(having(cluster, b"bob-trip")) == 3


def test_a_rewriting_that_runs_already_is_waited_for(cluster: Any) -> None:
    """It began before the erasure, so what it writes has the words; another one follows it."""
    fill(cluster)
    for node in cluster.get_primaries():
        server = cluster.get_redis_connection(node)
        server.config_set("rdb-key-save-delay", 200_000)
        server.bgrewriteaof()
        assert is_rewriting(server)
        server.config_set("rdb-key-save-delay", 0)

    for customer in CUSTOMERS:
        erase_customer(cluster, customer, pause=time.sleep)

    until(lambda: having(cluster, OURS) == set())


async def test_what_leads_back_to_it_and_what_was_kept_for_it_goes_and_nobody_elses(valkey_url: str) -> None:
    """Threads of its conversations and answers under its Idempotency-Keys have its own words in them, sealed or digested."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        threads, claims = (
            Threads(harness.connection, LookupCache(harness.connection), harness.admission.in_force),
            IdempotencyClaims(harness.connection, LEASE.lease_ms),
        )
        for name in ("acme", "other"):
            harness.customer(name, "basic")
            bucket = redis_keys.bucket_of(name)
            hold = await harness.reserve(f"call of {name}", name, 10, conversation="talk")
            assert await claims.claim(bucket, name, "once", "body", hold.id) is None
            once = Once("once", "body", b"sealed", b"sealed")
            await harness.settlements.settle(hold, harness.outcome(5, threads=("item-a",)), once)
            assert await claims.claim(bucket, name, "once", "body", "again") == b"sealed"

        erase_customer(harness.blocking, "acme")

        for name, led, kept in (("acme", None, None), ("other", "talk", b"sealed")):
            bucket = redis_keys.bucket_of(name)
            assert await threads.conversation_of_each(bucket, digest_of(name), ["item-a"]) == [led]
            assert await threads.tokens_so_far(bucket, digest_of(name), "talk") == (None if name == "acme" else 15)
            assert await claims.claim(bucket, name, "once", "body", "later") == kept
