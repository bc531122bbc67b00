"""The fence: a worker that is overdue relays nothing before it has renewed, and nothing of a hold that others closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis

from gateway.clock import now_ms
from gateway.errors import MeteringUnavailable
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.settlement import Settlements
from gateway.holds.store import redis_keys
from gateway.metrics.counters import Counters
from tests.clock import Clock
from tests.gateway.holds.harness import LEASE, HoldsHarness, holds_harness

HALF_A_LEASE_S = LEASE.lease_ms / 2000


async def at_work(harness: HoldsHarness, clock: Clock) -> Keeper:
    """Return a keeper with one live hold of acme's, and with the clock half a lease after its last renewal."""
    harness.tier("basic")
    harness.customer("acme", "basic")
    keeper = Keeper(
        harness.settlements, IdempotencyClaims(harness.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=clock
    )
    keeper.take(await harness.reserve("c1", "acme", 100))
    await keeper.renew()
    clock.now_s += HALF_A_LEASE_S
    return keeper


async def test_a_worker_is_overdue_after_half_a_lease(valkey_url: str) -> None:
    """To the moment: up to half a lease others cannot think it dead."""
    clock = Clock()
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, clock)

        assert not keeper.is_overdue()
        clock.now_s += 0.001
        assert keeper.is_overdue()


async def test_a_worker_that_was_only_slow_goes_on_once_it_has_renewed(valkey_url: str) -> None:
    """It catches up by itself, and its hold is as it was."""
    clock = Clock()
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        live.sofar = 40

        assert await keeper.catches_up(live)
        assert not keeper.is_overdue()
        hold = harness.in_flight("acme")["c1"]
        assert (hold.is_suspect, hold.sofar) == (False, 40)


async def test_a_worker_that_was_thought_dead_does_not_go_on_with_a_hold_that_was_closed(valkey_url: str) -> None:
    """Its tokens may be somebody else's by now, so not one more of them is relayed."""
    clock = Clock()
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        harness.blocking.set(redis_keys.ended_worker(LEASE.owner), "1")
        harness.end_lease("c1")
        assert harness.reclaimer(clock).turn() == 1

        assert not await keeper.catches_up(live)
        assert not keeper.is_overdue(), "other calls of this worker go on"


async def test_a_worker_without_its_redis_does_not_catch_up(valkey_url: str) -> None:
    """Unless the server refuses connections, so that it is gone for everybody, it must think itself dead."""
    clock = Clock()
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        harness.blocking.config_set("min-replicas-to-write", 1)
        try:
            assert not await keeper.catches_up(live)
        finally:
            harness.blocking.config_set("min-replicas-to-write", 0)


class Elsewhere(Settlements):
    """A book whose server answers a beat as the test says."""

    def __init__(self, harness: HoldsHarness, beats: Callable[[], object]) -> None:
        super().__init__(harness.connection, harness.generation, LEASE, now_ms=now_ms)
        self._beats = beats

    async def beat(self) -> None:
        self._beats()
        await super().beat()


def keeper_of(harness: HoldsHarness, clock: Clock, beats: Callable[[], object]) -> Keeper:
    return Keeper(
        Elsewhere(harness, beats),
        IdempotencyClaims(harness.connection, LEASE.lease_ms),
        LEASE,
        Counters(),
        monotonic=clock,
    )


async def test_the_fence_is_counted_from_when_a_renewal_was_sent(valkey_url: str) -> None:
    """Its answer took half a lease: others have counted since the moment in which it left."""
    clock = Clock()

    def slowly() -> None:
        clock.now_s += HALF_A_LEASE_S

    async with holds_harness(valkey_url) as harness:
        keeper = keeper_of(harness, clock, slowly)
        await keeper.renew()

        assert not keeper.is_overdue()
        clock.now_s += 0.001
        assert keeper.is_overdue()


@pytest.mark.parametrize(
    ("fault", "is_overdue"),
    [
        (redis.ConnectionError("refused"), False),
        (redis.TimeoutError("silent"), True),
        (redis.ResponseError("no"), True),
    ],
)
async def test_a_worker_serves_on_only_where_its_server_is_gone_for_everybody(
    valkey_url: str, fault: Exception, is_overdue: bool
) -> None:
    """Where the server only does not answer this worker, another one may take its holds."""
    clock, is_away = Clock(), True

    def away() -> None:
        if is_away:
            raise MeteringUnavailable from fault

    async with holds_harness(valkey_url) as harness:
        keeper = keeper_of(harness, clock, away)
        clock.now_s += 2 * HALF_A_LEASE_S
        assert keeper.is_overdue()
        await keeper.renew()
        assert keeper.is_overdue() == is_overdue

        is_away = False
        await keeper.renew()
        clock.now_s += 2 * HALF_A_LEASE_S
        assert keeper.is_overdue(), "once it was there again, its absence is no excuse"


async def test_a_worker_waits_for_its_last_call_however_many_there_were_before(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, Clock())
        assert not await keeper.drain(0.01)
        (first,) = keeper.holds
        await keeper.settle(first, harness.outcome(10))
        assert await keeper.drain(10)

        second = keeper.take(await harness.reserve("c2", "acme", 100))
        draining = asyncio.create_task(keeper.drain(10))
        await asyncio.sleep(0)
        assert not draining.done()
        await keeper.settle(second, harness.outcome(10))
        assert await draining
        assert keeper.holds == []


async def test_a_reservation_without_an_answer_is_taken_back_by_its_worker(valkey_url: str) -> None:
    """It was made, and nobody will settle it: what it holds is free again once Redis answers."""
    async with holds_harness(valkey_url) as harness:
        keeper = await at_work(harness, Clock())
        keeper.doubt(await harness.reserve("c2", "acme", 50))
        assert harness.window("acme")["held"] == 150

        working = asyncio.create_task(keeper.run())
        while harness.window("acme")["held"] > 100:
            await asyncio.sleep(0.01)
        working.cancel()

        assert harness.records("acme") == []
