"""The fence: a worker that is overdue relays nothing before it has renewed, and nothing of a hold that others closed."""

from __future__ import annotations

from gateway.holds import keys
from gateway.holds.claims import Claims
from gateway.holds.keeper import Keeper
from gateway.observing.tally import Tally
from tests.clock import Clock
from tests.gateway.holds.desk import LEASE, Desk, desk

HALF_A_LEASE_S = LEASE.lease_ms / 2000


async def at_work(at: Desk, clock: Clock) -> Keeper:
    """Return a keeper with one live hold of acme's, and with the clock half a lease after its last renewal."""
    at.tier("basic")
    at.customer("acme", "basic")
    keeper = Keeper(at.book, Claims(at.line, LEASE.lease_ms), LEASE, Tally(), monotonic=clock)
    keeper.take(await at.reserve("c1", "acme", 100))
    await keeper.renew()
    clock.now_s += HALF_A_LEASE_S
    return keeper


async def test_a_worker_is_overdue_after_half_a_lease(valkey_url: str) -> None:
    """To the moment: up to half a lease others cannot think it dead."""
    clock = Clock()
    async with desk(valkey_url) as at:
        keeper = await at_work(at, clock)

        assert not keeper.is_overdue
        clock.now_s += 0.001
        assert keeper.is_overdue


async def test_a_worker_that_was_only_slow_goes_on_once_it_has_renewed(valkey_url: str) -> None:
    """It catches up by itself, and its hold is as it was."""
    clock = Clock()
    async with desk(valkey_url) as at:
        keeper = await at_work(at, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        live.sofar = 40

        assert await keeper.catches_up(live)
        assert not keeper.is_overdue
        hold = at.blocking.hgetall(keys.hold(live.hold.facts.bucket, "c1"))
        assert (hold[b"state"], hold[b"sofar"]) == (b"live", b"40")


async def test_a_worker_that_was_thought_dead_does_not_go_on_with_a_hold_that_was_closed(valkey_url: str) -> None:
    """Its tokens may be somebody else's by now, so not one more of them is relayed."""
    clock = Clock()
    async with desk(valkey_url) as at:
        keeper = await at_work(at, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        at.blocking.set(keys.gone(LEASE.owner), "1")
        at.blocking.zadd(keys.holds(live.hold.facts.bucket), {"c1": 0})
        assert at.reclaimer(clock).turn() == 1

        assert not await keeper.catches_up(live)
        assert not keeper.is_overdue, "other calls of this worker go on"


async def test_a_worker_without_its_redis_does_not_catch_up(valkey_url: str) -> None:
    """Unless the server refuses connections, so that it is gone for everybody, it must think itself dead."""
    clock = Clock()
    async with desk(valkey_url) as at:
        keeper = await at_work(at, clock)
        (live,) = keeper.holds
        clock.now_s += 1
        at.blocking.config_set("min-replicas-to-write", 1)
        try:
            assert not await keeper.catches_up(live)
        finally:
            at.blocking.config_set("min-replicas-to-write", 0)
