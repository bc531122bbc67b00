"""After a rebuild the live calls are told again by their workers: what they hold counts as before, once, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.errors import ConversationCapReached, InsufficientQuota, MeteringUnavailable, RateLimitExceeded
from gateway.holds.hold import Checkpoint, Hold
from gateway.holds.idempotency_claims import IdempotencyClaims
from gateway.holds.keeper import Keeper
from gateway.holds.settlement import Settlements
from gateway.holds.store import redis_keys
from gateway.holds.store.generation import Generation
from gateway.metrics.counters import Counters
from tests.clock import Clock
from tests.gateway.holds.harness import LEASE, HoldsHarness, holds_harness

PRICE = 7
LATER = "8"
"""The generation that a rebuild puts in force."""


async def one_call(harness: HoldsHarness, **limits: int) -> tuple[Keeper, Hold]:
    """Return a worker with one call of sixty tokens that runs."""
    harness.tier("basic", **limits)
    harness.customer("acme", "basic")
    keeper = Keeper(
        harness.settlements, IdempotencyClaims(harness.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=Clock()
    )
    hold = await harness.reserve("c1", "acme", 60, conversation="talk")
    keeper.take(hold)
    return keeper, hold


async def rebuild(harness: HoldsHarness) -> None:
    """Lose everything, and write anew what the ledger knows: of calls that run it knows nothing."""
    harness.blocking.flushall()
    harness.publications = ()
    harness.publish()
    for customer in harness.customers.values():
        harness.put(customer)
    with harness.blocking.pipeline(transaction=False) as batch:
        for bucket in redis_keys.ALL_BUCKETS:
            batch.hset(redis_keys.state(bucket), "generation", LATER)
        batch.execute()

    async def restore(_heard: object) -> str:
        return LATER

    harness.generation._restore = restore


@pytest.mark.parametrize(
    ("limits", "conversation"),
    [({"period_tokens_max": 100}, "other"), ({"conversation_tokens_max": 100}, "talk")],
    ids=["quota", "cap"],
)
async def test_the_tokens_that_a_live_call_holds_count_again(
    valkey_url: str, limits: dict[str, int], conversation: str
) -> None:
    async with holds_harness(valkey_url) as harness:
        keeper, _ = await one_call(harness, **limits)
        await rebuild(harness)
        await keeper.renew()

        assert (await harness.reserve("c2", "acme", 60, conversation=conversation)).grant == 40


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"price_nanousd": PRICE, "spend_nanousd_max": 2 * PRICE - 1}, InsufficientQuota),
        ({"concurrency_max": 1}, RateLimitExceeded),
        ({"conversation_input_tokens_max": 199}, ConversationCapReached),
    ],
    ids=["spend", "concurrency", "input"],
)
async def test_beside_a_live_call_there_is_no_room_for_another_until_it_has_ended(
    valkey_url: str, limits: dict[str, int], refusal: type[Exception]
) -> None:
    async with holds_harness(valkey_url) as harness:
        keeper, hold = await one_call(harness, **limits)
        conversation = "talk" if "conversation_input_tokens_max" in limits else "other"
        await rebuild(harness)
        await keeper.renew()

        with pytest.raises(refusal):
            await harness.reserve("c2", "acme", 60, conversation=conversation)
        await harness.settlements.settle(hold, harness.outcome(0, input_tokens=0))
        assert (await harness.reserve("c3", "acme", 60, conversation=conversation)).grant == 60


async def test_it_is_told_once_however_often(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        keeper, hold = await one_call(harness, price_nanousd=PRICE)
        before = harness.window("acme")
        await rebuild(harness)
        for _ in range(3):
            await keeper.renew()
            assert await harness.settlements.announce(hold, Checkpoint(0))

        assert harness.window("acme") == before
        await harness.settlements.settle(hold, harness.outcome(50))
        assert harness.window("acme") == {"used": 50, "held": 0, "spend_used": PRICE, "spend_held": 0}


async def test_a_call_that_is_in_the_books_is_not_held_again(valkey_url: str) -> None:
    """Its worker did not hear of it: it hears now, and relays nothing more."""
    async with holds_harness(valkey_url) as harness:
        keeper, hold = await one_call(harness, price_nanousd=PRICE)
        (live,) = keeper.holds
        await harness.settlements.settle(hold, harness.outcome(50))
        settled = harness.window("acme")

        await keeper.renew()

        assert live.is_lost
        assert not await harness.settlements.announce(hold, Checkpoint(55))
        assert harness.window("acme") == settled
        assert (await harness.settlements.settle(hold, harness.outcome(50))).charge_nanousd == PRICE
        assert harness.window("acme") == settled
        assert len(harness.records("acme")) == 1


def of_before(harness: HoldsHarness) -> Settlements:
    """Return the book of a worker that has not heard of the rebuild."""

    async def restore(_heard: object) -> str:
        return LATER

    generation = Generation(restore)
    generation.value = "7"
    return Settlements(harness.connection, generation, LEASE, now_ms=lambda: 0)


async def test_a_renewal_from_before_a_rebuild_renews_nothing_and_hears_of_it(valkey_url: str) -> None:
    """A worker that renewed in a state that is being written anew would be taken for one that its calls are known of."""
    async with holds_harness(valkey_url) as harness:
        _, hold = await one_call(harness)
        for bucket in redis_keys.ALL_BUCKETS:
            harness.blocking.hset(redis_keys.state(bucket), "generation", LATER)
        settlements = of_before(harness)

        assert await settlements.renew(hold.facts.bucket, {"c1": Checkpoint(30)}) == {"c1": "unknown"}
        assert settlements._generation.value == LATER
        assert await settlements.renew(hold.facts.bucket, {"c1": Checkpoint(30)}) == {"c1": "live"}


async def test_a_settlement_from_before_a_rebuild_is_made_in_what_it_wrote(valkey_url: str) -> None:
    """Between the two nothing is in force, so nothing is settled: it waits, and is made once."""
    async with holds_harness(valkey_url) as harness:
        _, hold = await one_call(harness, price_nanousd=PRICE)
        bucket = hold.facts.bucket
        harness.blocking.hdel(redis_keys.state(bucket), "generation")
        events: list[str] = []

        async def restore(_heard: object) -> str:
            events.append("rebuilt")
            assert harness.window("acme")["used"] == 0, "nothing was settled while nothing was in force"
            harness.blocking.hset(redis_keys.state(bucket), "generation", LATER)
            return LATER

        harness.generation._restore = restore
        settled = await harness.settlements.settle(hold, harness.outcome(50))

        assert events == ["rebuilt"]
        assert settled.charge_nanousd == PRICE
        assert harness.window("acme") == {"used": 50, "held": 0, "spend_used": PRICE, "spend_held": 0}


async def test_a_reservation_that_comes_after_it_was_taken_back_is_refused(valkey_url: str) -> None:
    """Its reply was lost and it was still under way: its worker gave it up, so nobody would ever settle it."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=PRICE)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 60)
        await harness.settlements.withdraw(hold)
        assert harness.window("acme") == {"used": 0, "held": 0, "spend_used": 0, "spend_held": 0}

        other = await harness.reserve("c2", "acme", 5)
        await harness.settlements.withdraw(replace(other, facts=replace(other.facts, id="c3")))
        with pytest.raises(MeteringUnavailable):
            await harness.reserve("c3", "acme", 60)

        assert harness.window("acme")["held"] == 5
        assert harness.records("acme") == []


async def test_a_worker_that_does_not_know_of_a_later_rebuild_tells_nothing(valkey_url: str) -> None:
    """What it holds would count in a state that may be written anew just now, and then twice."""
    async with holds_harness(valkey_url) as harness:
        _, hold = await one_call(harness)
        await rebuild(harness)
        before = harness.window("acme")

        assert await harness.settlements.announce(hold, Checkpoint(0)), "it is not closed"
        assert harness.window("acme") == before
        assert harness.in_flight("acme") == {}


async def test_a_call_is_told_again_in_the_period_that_its_customer_has_now(valkey_url: str) -> None:
    """Its worker remembers the window that it was admitted to; the customer's time zone has changed since."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", end_user_period_tokens_max=1_000)
        harness.customer("acme", "basic", period="day")
        keeper = Keeper(
            harness.settlements,
            IdempotencyClaims(harness.connection, LEASE.lease_ms),
            LEASE,
            Counters(),
            monotonic=Clock(),
        )
        hold = await harness.reserve("c1", "acme", 60, end_user="ann")
        keeper.take(hold)
        harness.customers["acme"] = replace(harness.customers["acme"], timezone="Asia/Kathmandu", rev=2)
        await rebuild(harness)

        await keeper.renew()
        assert harness.window("acme") == {"used": 0, "held": 60, "spend_used": 0, "spend_held": 0}
        assert harness.end_user("acme", "ann") == {"used": 0, "held": 60}
        await harness.settlements.settle(hold, harness.outcome(50))
        assert harness.window("acme") == {"used": 50, "held": 0, "spend_used": 0, "spend_held": 0}
        assert harness.end_user("acme", "ann") == {"used": 50, "held": 0}
