"""A server that is full admits nobody, and what was admitted is renewed, settled and booked there all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.hold import Checkpoint, Once
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.maintenance.redis_upkeep import FULL, ROOMY, Maintenance
from gateway.holds.store import redis_keys
from gateway.ledger.database import Database
from gateway.ledger.writer import Writer
from gateway.metrics.counters import Counters
from tests.clock import Clock
from tests.gateway.holds.harness import LEASE, HoldsHarness, holds_harness

BUCKET = redis_keys.bucket_of("acme")


@pytest.fixture
async def harness(valkey_url: str) -> AsyncIterator[HoldsHarness]:
    async with holds_harness(valkey_url) as opened:
        opened.tier("basic", price_nanousd=3)
        opened.customer("acme", "basic")
        yield opened


@contextmanager
def only(harness: HoldsHarness, share: float) -> Iterator[None]:
    """Let the server have so much memory that what it uses is this share of it."""
    used = int(harness.blocking.info("memory")["used_memory"])
    harness.blocking.config_set("maxmemory", max(1, int(used / share)))
    try:
        yield
    finally:
        harness.blocking.config_set("maxmemory", 0)


async def test_a_full_server_refuses_reservations_and_takes_renewals_and_settlements(
    harness: HoldsHarness, database: Database
) -> None:
    clock, claims = Clock(), IdempotencyClaims(harness.connection, LEASE.lease_ms)
    keeper = Keeper(harness.settlements, claims, LEASE, Counters(), monotonic=clock)
    digest = "0" * 32
    await claims.claim(BUCKET, "acme", digest, "body", "c1")
    first, second = await harness.reserve("c1", "acme", 100), await harness.reserve("c2", "acme", 100)
    live = keeper.take(first, Once(digest, "body"))
    live.sofar = 30
    with only(harness, 2.0):
        with pytest.raises(MeteringUnavailable):
            await harness.reserve("c3", "acme", 100)
        clock.now_s += LEASE.lease_ms / 2000 + 1
        assert await keeper.catches_up(live), "a full server is not a lost one"
        harness.blocking.hdel(redis_keys.inflight(BUCKET), "c2", "progress:c2")
        assert await harness.settlements.announce(second, Checkpoint(0))
        assert (await harness.settlements.settle(first, harness.outcome(50))).charge_nanousd == 3
        harness.projection.put_customers([harness.customers["acme"]])
        assert Writer(harness.blocking, database).turn() == 1

    assert not harness.in_flight("acme")["c2"].is_suspect
    assert harness.window("acme")["used"] == 50
    assert "c3" not in harness.in_flight("acme")


async def test_nobody_is_admitted_to_a_server_that_is_nearly_full_until_there_is_room(harness: HoldsHarness) -> None:
    upkeep = Maintenance(harness.blocking, now_ms)
    upkeep.turn()
    await harness.reserve("c1", "acme", 100)
    with only(harness, 0.9):
        upkeep.turn()
        with pytest.raises(MeteringUnavailable, match="nearly full"):
            await harness.reserve("c2", "acme", 100)
        await harness.settlements.settle(harness.holds["c1"], harness.outcome(10))
    with only(harness, (FULL + ROOMY) / 2):
        upkeep.turn()
        with pytest.raises(MeteringUnavailable):
            await harness.reserve("c3", "acme", 100)
    with only(harness, ROOMY - 0.05):
        found = upkeep.turn()
        assert found.memory / found.memory_max < ROOMY
        await harness.reserve("c4", "acme", 100)


async def test_a_server_that_is_full_is_told_by_who_looks_again_after_a_start(harness: HoldsHarness) -> None:
    with only(harness, 1.5):
        Maintenance(harness.blocking, now_ms).turn()
        assert harness.blocking.hget(redis_keys.state(BUCKET), "full") == b"1"
    Maintenance(harness.blocking, now_ms).turn()

    assert not harness.blocking.hexists(redis_keys.state(BUCKET), "full")
