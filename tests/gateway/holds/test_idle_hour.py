"""A conversation goes on for an hour after its last call has ended, and ends a day after its first began."""

from __future__ import annotations

import pytest

from gateway.clock import now_ms
from gateway.holds.admission import Admission, Lease
from gateway.holds.settlement import Settlements
from gateway.holds.store.cache import LookupCache
from tests.gateway.holds.harness import HOUSE, HoldsHarness, holds_harness

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
LONG = Lease("w_test", lease_ms=60_000, deadline_ms=24 * HOUR_MS)
CAP = 100


class Later:
    """The worker's clock, once it has been seen to agree with Redis'."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


async def at_work(harness: HoldsHarness) -> Later:
    """Let a harness go by a clock that the test sets."""
    later = Later()
    harness.tier("basic", conversation_tokens_max=CAP, price_nanousd=1)
    harness.customer("acme", "basic")
    harness.admission = Admission(
        harness.connection,
        LookupCache(harness.connection),
        harness.generation,
        lease=LONG,
        house=HOUSE,
        currency="USD",
        now_ms=later,
    )
    harness.settlements = Settlements(harness.connection, harness.generation, LONG, now_ms=later)
    await harness.admission.compare_clocks()
    return later


async def call(harness: HoldsHarness, later: Later, name: str, *, lasts_ms: int = 0) -> int:
    """Make a call of ten tokens that lasts so long; return what it was granted."""
    hold = await harness.reserve(name, "acme", CAP, conversation="talk")
    later.ahead_ms += lasts_ms
    await harness.settlements.settle(hold, harness.outcome(10))
    return hold.grant


@pytest.mark.parametrize(("rests_ms", "granted"), [(HOUR_MS - MINUTE_MS, CAP - 10), (HOUR_MS + MINUTE_MS, CAP)])
async def test_it_rests_for_an_hour_at_most_counted_from_a_calls_end(
    valkey_url: str, rests_ms: int, granted: int
) -> None:
    """The call before took fifty minutes: they are not part of the hour."""
    async with holds_harness(valkey_url) as harness:
        later = await at_work(harness)
        await call(harness, later, "c1", lasts_ms=50 * MINUTE_MS)
        later.ahead_ms += rests_ms

        assert await call(harness, later, "c2") == granted


async def test_a_name_that_is_used_again_begins_anew(valkey_url: str) -> None:
    """Its price is charged again, and what the conversation before was sent does not count."""
    async with holds_harness(valkey_url) as harness:
        later = await at_work(harness)
        harness.tier("basic", conversation_tokens_max=CAP, conversation_input_tokens_max=25, price_nanousd=7)
        settled = []
        for name in ("c1", "c2"):
            hold = await harness.reserve(name, "acme", CAP, conversation="talk", input_bound=20)
            settled.append(await harness.settlements.settle(hold, harness.outcome(10)))
            later.ahead_ms += HOUR_MS + MINUTE_MS

        assert [one.charge_nanousd for one in settled] == [7, 7]


async def test_it_does_not_end_while_a_call_runs(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        later = await at_work(harness)
        running = await harness.reserve("c1", "acme", 10, conversation="talk")
        later.ahead_ms += 3 * HOUR_MS

        assert (await harness.reserve("c2", "acme", CAP, conversation="talk")).grant == CAP - 10
        await harness.settlements.settle(running, harness.outcome(10))


@pytest.mark.parametrize(("at_ms", "granted"), [(24 * HOUR_MS - MINUTE_MS, CAP - 10), (24 * HOUR_MS + MINUTE_MS, CAP)])
async def test_it_ends_a_day_after_it_began_though_somebody_goes_on_with_it(
    valkey_url: str, at_ms: int, granted: int
) -> None:
    async with holds_harness(valkey_url) as harness:
        later = await at_work(harness)
        running = await harness.reserve("c1", "acme", 10, conversation="talk")
        later.ahead_ms += at_ms

        assert (await harness.reserve("c2", "acme", CAP, conversation="talk")).grant == granted
        assert running.grant == 10


async def test_a_call_of_the_conversation_before_does_not_keep_the_next_one_open(valkey_url: str) -> None:
    """It runs on under the same name; the conversation that began meanwhile rests for an hour at most."""
    async with holds_harness(valkey_url) as harness:
        later = await at_work(harness)
        running = await harness.reserve("c1", "acme", 10, conversation="talk")
        later.ahead_ms += 24 * HOUR_MS + MINUTE_MS
        await call(harness, later, "c2")
        later.ahead_ms += HOUR_MS + MINUTE_MS

        assert await call(harness, later, "c3") == CAP
        assert running.grant == 10
