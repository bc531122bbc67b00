"""What a call leaves in Redis, by how it ended: one that came to nothing leaves nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from gateway.clock import now_ms
from gateway.errors import TokencapError
from gateway.holds.hold import UNANSWERED, Hold, Once
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import MARKED_S, Keeper, Live
from gateway.holds.maintenance.redis_upkeep import Maintenance
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import conversation_in, mark
from gateway.holds.store.projection import PeriodUse, Projection
from gateway.metrics.counters import Counters
from tests.clock import Clock
from tests.gateway.holds.harness import LEASE, HoldsHarness, holds_harness

WORKERS = (b"worker:",)
KEPT = "2" * 32


def found(harness: HoldsHarness) -> dict[bytes, int]:
    """Return every key and the bytes it takes, but for the workers' own."""
    names = [name for name in harness.blocking.scan_iter() if not name.startswith(WORKERS)]
    return {name: int(harness.blocking.memory_usage(name) or 0) for name in sorted(names)}


def keeper_of(harness: HoldsHarness, clock: Clock) -> Keeper:
    return Keeper(
        harness.settlements, IdempotencyClaims(harness.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=clock
    )


async def settled(
    harness: HoldsHarness, keeper: Keeper, clock: Clock, hold: Hold, once: Once | None = None, **came_to: Any
) -> None:
    outcome = harness.outcome(**came_to) if came_to else UNANSWERED
    assert await keeper.settle(Live(hold, None), outcome, once) is not None
    clock.now_s += MARKED_S
    await keeper.renew()


async def served(harness: HoldsHarness) -> None:
    """Sell to acme, whose account, window and turn are there from its first call on."""
    harness.tier("basic", period_tokens_max=10_000, end_user_period_tokens_max=500, requests_per_minute=600)
    harness.customer("acme", "basic")
    hold = await harness.reserve("first", "acme", 10, end_user="bob")
    await harness.settlements.settle(hold, harness.outcome(10))
    harness.blocking.delete(redis_keys.settled(hold.facts.bucket))


@pytest.mark.parametrize("named", [{}, {"conversation": "talk"}, {"end_user": "ann"}, {"input_bound": 0}])
async def test_a_call_that_the_upstream_did_not_answer_leaves_nothing(valkey_url: str, named: dict[str, Any]) -> None:
    """No mark, no conversation, no end user, no thread: neither a key more nor a byte in those that were there."""
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        before = found(harness)
        await settled(harness, keeper, clock, await harness.reserve("c0", "acme", 100, **named))
        once_more = found(harness)
        for number in range(1, 20):
            hold = await harness.reserve(f"c{number}", "acme", 100, **(named | {"conversation": f"talk{number}"}))
            await settled(harness, keeper, clock, hold)

        assert found(harness).keys() == once_more.keys() == before.keys()
        assert sum(found(harness).values()) <= sum(once_more.values()) + 64, "numbers may have a digit more"


async def test_a_call_that_came_to_nothing_leaves_a_conversation_that_was_there_as_it_was(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        await settled(harness, keeper, clock, await harness.reserve("c1", "acme", 100, conversation="talk"), tokens=40)
        before = found(harness)
        await settled(harness, keeper, clock, await harness.reserve("c2", "acme", 100, conversation="talk"))

        assert found(harness).keys() == before.keys()
        talk = conversation_in(harness.blocking, redis_keys.conversation(redis_keys.bucket_of("acme"), "acme", "talk"))
        assert talk is not None
        assert (talk.used, talk.held, talk.live) == (40, 0, 0)


async def test_a_call_that_came_to_nothing_beside_one_that_runs_leaves_its_conversation(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        running = await harness.reserve("c1", "acme", 100, conversation="talk")
        await settled(harness, keeper, clock, await harness.reserve("c2", "acme", 100, conversation="talk"))
        talk = redis_keys.conversation(running.facts.bucket, "acme", "talk")

        found = conversation_in(harness.blocking, talk)
        assert found is not None
        assert (found.used, found.held, found.live) == (0, 100, 1)
        await settled(harness, keeper, clock, running)
        assert not harness.blocking.exists(talk)


async def test_a_refused_call_leaves_nothing(valkey_url: str) -> None:
    """By its cap, its period, its end user, its spend, its turn, and by the number of calls at once."""
    async with holds_harness(valkey_url) as harness:
        limits = {"period_tokens_max": 50, "price_nanousd": 1, "conversation_tokens_max": 60}
        harness.tier("basic", **limits)
        harness.tier("poor", spend_nanousd_max=0, price_nanousd=1)
        harness.tier("slow", requests_per_minute=1)
        harness.tier("one", concurrency_max=1)
        harness.tier("users", end_user_period_tokens_max=1, price_nanousd=1)
        for tier in ("basic", "poor", "slow", "one", "users"):
            harness.customer(tier, tier)
        for tier in ("slow", "one"):
            await harness.reserve(f"{tier}0", tier, 5)
        before = found(harness)
        for tier in ("basic", "poor", "slow", "one", "users"):
            for number in range(1, 4):
                with pytest.raises(TokencapError):
                    await harness.reserve(
                        f"{tier}{number}", tier, 55, conversation=f"talk{number}", end_user=f"u{number}"
                    )

        assert found(harness) == before


@pytest.mark.parametrize("was_made", [True, False])
async def test_a_reservation_whose_reply_was_lost_leaves_nothing(valkey_url: str, was_made: bool) -> None:
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        before = found(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        hold = await harness.reserve("c1", "acme", 100)
        if not was_made:
            await harness.settlements.settle(hold, UNANSWERED)
            harness.blocking.delete(redis_keys.settled(hold.facts.bucket))
        keeper.doubt(hold)
        await keeper._withdraw_doubtful()
        assert harness.blocking.hexists(redis_keys.settled(hold.facts.bucket), "c1"), (
            "a copy of the command may still come"
        )
        clock.now_s += MARKED_S
        await keeper.renew()

        assert found(harness).keys() == before.keys()


async def test_a_call_whose_answer_is_not_kept_leaves_its_idempotency_key_free(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock, claims = Clock(), IdempotencyClaims(harness.connection, LEASE.lease_ms)
        keeper = keeper_of(harness, clock)
        before = found(harness)
        bucket = redis_keys.bucket_of("acme")
        await claims.claim(bucket, "acme", KEPT, "body", "c1")
        hold = await harness.reserve("c1", "acme", 100)
        await settled(harness, keeper, clock, hold, Once(KEPT, "body"))

        assert found(harness).keys() == before.keys()


async def test_an_answered_call_leaves_its_record_and_its_conversation_until_the_record_is_booked(
    valkey_url: str,
) -> None:
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        before = found(harness)
        hold = await harness.reserve("c1", "acme", 100, end_user="bob")
        await settled(harness, keeper, clock, hold, tokens=10)
        left = {name: size for name, size in found(harness).items() if name not in before}

        talk = redis_keys.conversation(hold.facts.bucket, "acme", "c1").encode()
        assert left.keys() == {talk}
        assert left[talk] < 350
        assert 0 < harness.blocking.pttl(talk) <= 3_600_000 + LEASE.deadline_ms


async def test_a_mark_stays_until_no_copy_of_a_command_can_come(valkey_url: str) -> None:
    """For half a minute after its reply; and where its worker died before it had one, for a day."""
    async with holds_harness(valkey_url) as harness:
        await served(harness)
        clock = Clock()
        keeper = keeper_of(harness, clock)
        hold = await harness.reserve("c1", "acme", 100)
        marks = redis_keys.settled(hold.facts.bucket)
        await keeper.settle(Live(hold, None), harness.outcome(10))
        clock.now_s += MARKED_S - 1
        await keeper.renew()
        assert harness.blocking.hexists(marks, "c1")
        assert harness.blocking.pttl(marks) == -1
        assert (await harness.settlements.settle(hold, harness.outcome(10))).charge_nanousd == 0
        assert len(harness.records("acme")) == 2
        clock.now_s += 1
        await keeper.renew()
        assert not harness.blocking.exists(marks)


async def test_marks_that_no_worker_removed_are_gone_after_a_day(valkey_url: str) -> None:
    """Its worker died, or was thought dead: until then it may only be slow."""
    async with holds_harness(valkey_url) as harness:
        marks, day_ms = redis_keys.settled(redis_keys.bucket_of("acme")), 86_400_000
        harness.blocking.hset(marks, "old", mark(0, now_ms() - day_ms - 1_000))
        harness.blocking.hset(marks, "young", mark(0, now_ms() - day_ms + 60_000))
        upkeep = Maintenance(harness.blocking, now_ms)
        for _ in range(redis_keys.BUCKETS):
            upkeep.turn()

        assert harness.blocking.hkeys(marks) == [b"young"]


@pytest.mark.parametrize("kind", ["window", "end_user"])
async def test_a_window_that_a_change_of_period_began_stays_while_any_period_may_run(
    valkey_url: str, kind: str
) -> None:
    """It may be removed by the period that the customer had before: what is used in it would be forgotten."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic", period="day")
        bucket, projection, days = redis_keys.bucket_of("acme"), Projection(harness.blocking), (5, 20, 40)
        starts = [now_ms() - day * 86_400_000 for day in days]
        name = {"window": partial(redis_keys.window, bucket, "acme"), "end_user": partial(_of_end_user, bucket)}[kind]
        use = PeriodUse(5, by_user=Counter(someone=5), read_to="0-0")
        for rev, start in enumerate(starts, start=2):
            projection.change_period(replace(harness.customers["acme"], rev=rev), (start, start + 1), use)
        harness.blocking.hdel(name(starts[0]), "carried")
        upkeep = Maintenance(harness.blocking, now_ms)
        for _ in range(3):
            upkeep.turn()

        assert [bool(harness.blocking.exists(name(start))) for start in starts] == [False, True, False]


def _of_end_user(bucket: str, start: int) -> str:
    return redis_keys.end_user(bucket, "acme", start, "someone")


async def test_kept_answers_of_a_customer_have_a_budget_that_comes_back_hour_by_hour(valkey_url: str) -> None:
    """Beyond it a key is free again, once its call has ended; other customers have budgets of their own."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        harness.customer("other", "basic")
        harness.settlements._answers_bytes_max = 10_000
        claims, kept = IdempotencyClaims(harness.connection, LEASE.lease_ms), []

        async def call(number: int, customer: str = "acme") -> bool:
            digest = f"{number:032x}"
            bucket = redis_keys.bucket_of(customer)
            await claims.claim(bucket, customer, digest, "body", f"{customer}{number}")
            hold = await harness.reserve(f"{customer}{number}", customer, 10)
            await harness.settlements.settle(
                hold, harness.outcome(10), Once(digest, "body", b"x" * 1_000, b"x" * 1_000)
            )
            left_ms = harness.blocking.pttl(redis_keys.once(bucket, customer, digest))
            assert left_ms == -2 or 82_800_000 < left_ms <= 86_400_000, "a day, or it is free again"
            return left_ms > 0

        kept = [await call(number) for number in range(12)]

        assert kept == [True] * 7 + [False] * 5
        assert await call(50, "other")
        answers = redis_keys.answers(redis_keys.bucket_of("acme"), "acme")
        [(hour, counted)] = harness.blocking.hgetall(answers).items()
        assert int(counted) == 7 * 1_400
        harness.blocking.hdel(answers, hour)
        harness.blocking.hset(answers, int(hour) - 25, int(counted))
        assert await call(100), "what was kept more than a day ago counts no more"
        assert len(harness.blocking.hgetall(answers)) == 1
