"""A real Valkey whose clock is set while calls run and between them: no quota begins anew, and nobody is locked out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gateway.clock import now_ms
from gateway.errors import InsufficientQuota, MeteringUnavailable, RateLimitExceeded
from gateway.holds.hold import Once
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.maintenance.census import Census
from gateway.holds.maintenance.redis_clock import RedisClock
from gateway.holds.maintenance.redis_upkeep import Maintenance
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import WindowState
from gateway.holds.terms import period_of
from gateway.metrics.counters import Counters
from tests.clock import Clock
from tests.gateway.holds.harness import GENERATION, LEASE, HoldsHarness, end_lease, holds_harness
from tests.servers import SetClock, set_clock_valkey_in, short_directory

DAY_S = 86_400
JUMPS_S = [-400 * DAY_S, -45 * DAY_S, -7_200, -30, -1, 1, 30, 7_200, 45 * DAY_S, 400 * DAY_S]
BUCKET = redis_keys.bucket_of("acme")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, SetClock]]:
    with short_directory() as directory, set_clock_valkey_in(directory) as running:
        yield running


@pytest.fixture
def clock(server: tuple[str, SetClock]) -> Iterator[SetClock]:
    server[1].set(0)
    yield server[1]
    server[1].set(0)


@pytest.fixture
async def harness(server: tuple[str, SetClock], clock: SetClock) -> AsyncIterator[HoldsHarness]:
    """A harness whose worker has seen that both clocks agree."""
    async with holds_harness(server[0]) as opened:
        opened.blocking.flushall()
        opened.tier("basic", period_tokens_max=100, price_nanousd=3)
        opened.customer("acme", "basic")
        await opened.admission.compare_clocks()
        yield opened


def faults(harness: HoldsHarness) -> list[str]:
    return [
        fault for fault in Census(harness.blocking, lambda: GENERATION).take([]).windows.values() if fault is not None
    ]


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_a_quota_is_sold_once_whatever_the_clock_shows(
    harness: HoldsHarness, clock: SetClock, jump_s: float
) -> None:
    """Calls before, while and after it is set are of the period that is, at its price, and together at most its quota."""
    began = now_ms()
    first = await harness.reserve("c1", "acme", 60)
    clock.set(jump_s)
    await harness.settlements.settle(first, harness.outcome(60))
    second = await harness.reserve("c2", "acme", 30)
    with pytest.raises(InsufficientQuota):
        await harness.reserve("c3", "acme", 30)
    clock.set(0)
    with pytest.raises(InsufficientQuota):
        await harness.reserve("c4", "acme", 30)
    await harness.settlements.settle(second, harness.outcome(30))
    await harness.reserve("c5", "acme", 10)

    assert harness.window("acme") == {"used": 90, "held": 10, "spend_used": 6, "spend_held": 3}
    assert {hold.facts.period_start for hold in harness.holds.values()} == {
        period_of(harness.customers["acme"], began)[0]
    }
    assert all(began - 5_000 <= hold.admitted <= now_ms() + 5_000 for hold in harness.holds.values())
    assert all(began - 5_000 <= int(record["settled"]) <= now_ms() + 5_000 for record in harness.records("acme"))
    assert faults(harness) == []


@pytest.mark.parametrize("jump_s", [-400 * DAY_S, -7_200, -30, 7_200, 400 * DAY_S])
async def test_whose_rate_is_limited_waits_for_one_turn_at_most(
    harness: HoldsHarness, clock: SetClock, jump_s: float
) -> None:
    """Its next turn, that another clock has put far off, counts as a minute ahead."""
    harness.tier("paced", requests_per_minute=60)
    harness.put(replace(harness.customers["acme"], tier="paced", rev=2))
    await harness.reserve("c1", "acme", 1)
    pace = redis_keys.pace(BUCKET, "acme")
    turn = int(harness.blocking.hget(pace, "tat_us") or 0)
    harness.blocking.hset(pace, "tat_us", turn + int(max(jump_s, -jump_s) * 1_000_000))
    clock.set(-abs(jump_s))
    if abs(jump_s) > 60:
        await harness.reserve("c2", "acme", 1)
    with pytest.raises(RateLimitExceeded) as refused:
        for number in range(100):
            await harness.reserve(f"d{number}", "acme", 1)

    assert int(refused.value.headers["retry-after"]) <= 1


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_a_hold_of_a_worker_that_lives_is_not_taken_back(
    harness: HoldsHarness, clock: SetClock, jump_s: float
) -> None:
    passed = Clock()
    keeper = Keeper(
        harness.settlements, IdempotencyClaims(harness.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=passed
    )
    live = keeper.take(await harness.reserve("c1", "acme", 60))
    await keeper.renew()
    reclaimer = harness.reclaimer(passed)
    reclaimer.turn()
    passed.now_s += 2 * LEASE.lease_ms / 1000
    for ahead_s in (jump_s, 0.0):
        clock.set(ahead_s)
        assert reclaimer.turn() == 0
        await keeper.renew()
        passed.now_s += 2 * LEASE.lease_ms / 1000
        assert reclaimer.turn() == 0

    assert not harness.in_flight("acme")["c1"].is_suspect
    assert not live.is_lost
    assert harness.window("acme")["held"] == 60


async def test_a_hold_of_a_dead_worker_is_taken_back_however_far_its_lease_was_put_off(
    harness: HoldsHarness, clock: SetClock
) -> None:
    """A lease and a heartbeat that another clock gave last a lease from when it was set back."""
    passed = Clock()
    await harness.reserve("c1", "acme", 60)
    end_lease(harness.blocking, BUCKET, "c1", now_ms() + 400 * DAY_S * 1000)
    harness.blocking.set(redis_keys.worker(LEASE.owner), "1", px=400 * DAY_S * 1000)
    reclaimer = harness.reclaimer(passed)
    reclaimer.turn()

    assert harness.in_flight("acme")["c1"].renewed <= now_ms() + 5_000
    passed.now_s += 2 * LEASE.lease_ms / 1000
    for _ in range(3):
        if "c1" in harness.in_flight("acme"):
            harness.end_lease("c1")
        harness.blocking.delete(redis_keys.worker(LEASE.owner))
        reclaimer.turn()
    assert harness.window("acme")["held"] == 0


async def test_a_running_call_keeps_its_idempotency_key(harness: HoldsHarness, clock: SetClock) -> None:
    """Its claim expires where the clock is set forward, and is made again with the next renewals: no second call for it."""
    claims, digest = IdempotencyClaims(harness.connection, LEASE.lease_ms), "0" * 32
    keeper = Keeper(harness.settlements, claims, LEASE, Counters(), monotonic=Clock())
    await claims.claim(BUCKET, "acme", digest, "body", "c1")
    hold = await harness.reserve("c1", "acme", 60)
    keeper.take(hold, Once(digest, "body"))
    clock.set(DAY_S)
    assert not harness.blocking.exists(redis_keys.once(BUCKET, "acme", digest))
    clock.set(0)
    await keeper.renew()

    assert harness.blocking.hget(redis_keys.once(BUCKET, "acme", digest), "call") == b"c1"
    await harness.settlements.settle(hold, harness.outcome(10), Once(digest, "body", b"x", b"x"))
    assert await claims.claim(BUCKET, "acme", digest, "body", "c2") == b"x"


@pytest.mark.parametrize("jump_s", [-7_200, -30, 30, 45 * DAY_S])
async def test_who_never_saw_the_clocks_agree_admits_nothing_until_they_do(
    server: tuple[str, SetClock], harness: HoldsHarness, clock: SetClock, jump_s: float
) -> None:
    """Started while one of them is wrong, a worker cannot know which: it holds nothing and says so."""
    clock.set(jump_s)
    async with holds_harness(server[0]) as late:
        late.customers = harness.customers
        with pytest.raises(MeteringUnavailable, match="apart"):
            await late.reserve("c1", "acme", 10)
        assert RedisClock(late.blocking, now_ms).read().now is None
        clock.set(0)
        assert (await late.reserve("c1", "acme", 10)).grant == 10


@pytest.mark.parametrize(("jump_s", "lost"), [(-400 * DAY_S, True), (-30, False), (30, False), (45 * DAY_S, True)])
async def test_a_clock_that_was_set_far_has_the_hot_state_written_anew(
    harness: HoldsHarness, clock: SetClock, jump_s: float, lost: bool
) -> None:
    """When it is set, and when it is set back; also where nobody looked in between."""
    upkeep = Maintenance(harness.blocking, now_ms)
    assert not upkeep.turn().has_lost
    clock.set(jump_s)
    assert upkeep.turn().has_lost is lost
    assert not upkeep.turn().has_lost
    clock.set(0)
    assert upkeep.turn().has_lost is lost
    clock.set(-abs(jump_s))

    assert Maintenance(harness.blocking, now_ms).turn().has_lost is lost


async def test_windows_are_removed_when_both_clocks_say_that_they_are_over(
    harness: HoldsHarness, clock: SetClock
) -> None:
    """Not that of this period, not one in which something is held, and none that one clock alone ends."""
    month = 31 * DAY_S * 1000
    await harness.reserve("c1", "acme", 10)
    await harness.settlements.settle(harness.holds["c1"], harness.outcome(10))
    start, old = period_of(harness.customers["acme"], now_ms())[0], now_ms() - 4 * month
    past, held = redis_keys.window(BUCKET, "acme", old), redis_keys.window(BUCKET, "acme", old - month)
    user = redis_keys.end_user(BUCKET, "acme", old, "ann")
    stays = [redis_keys.window(BUCKET, "acme", start), held]
    harness.blocking.hset(user, "used", "5")
    harness.blocking.hset(past, "amounts", WindowState(used=5).to_bytes())
    harness.blocking.hset(held, "amounts", WindowState(used=5, held=1).to_bytes())
    upkeep = Maintenance(harness.blocking, now_ms)
    upkeep.turn()
    clock.set(400 * DAY_S)
    for _ in range(3):
        upkeep.turn()
    assert harness.blocking.exists(*stays) == 2
    clock.set(0)
    for _ in range(3):
        upkeep.turn()

    assert harness.blocking.exists(past, user) == 0
    assert harness.blocking.exists(*stays) == 2
