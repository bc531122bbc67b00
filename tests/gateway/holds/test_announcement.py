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
from tests.gateway.holds.desk import LEASE, Desk, desk

PRICE = 7
LATER = "8"
"""The generation that a rebuild puts in force."""


async def one_call(at: Desk, **limits: int) -> tuple[Keeper, Hold]:
    """Return a worker with one call of sixty tokens that runs."""
    at.tier("basic", **limits)
    at.customer("acme", "basic")
    keeper = Keeper(
        at.settlements, IdempotencyClaims(at.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=Clock()
    )
    hold = await at.reserve("c1", "acme", 60, conversation="talk")
    keeper.take(hold)
    return keeper, hold


async def rebuild(at: Desk) -> None:
    """Lose everything, and write anew what the ledger knows: of calls that run it knows nothing."""
    at.blocking.flushall()
    at.publications = ()
    at.publish()
    for customer in at.customers.values():
        at.put(customer)
    with at.blocking.pipeline(transaction=False) as batch:
        for bucket in redis_keys.ALL_BUCKETS:
            batch.hset(redis_keys.state(bucket), "generation", LATER)
        batch.execute()

    async def restore(_heard: object) -> str:
        return LATER

    at.generation._restore = restore


@pytest.mark.parametrize(
    ("limits", "conversation"),
    [({"period_tokens_max": 100}, "other"), ({"conversation_tokens_max": 100}, "talk")],
    ids=["quota", "cap"],
)
async def test_the_tokens_that_a_live_call_holds_count_again(
    valkey_url: str, limits: dict[str, int], conversation: str
) -> None:
    async with desk(valkey_url) as at:
        keeper, _ = await one_call(at, **limits)
        await rebuild(at)
        await keeper.renew()

        assert (await at.reserve("c2", "acme", 60, conversation=conversation)).grant == 40


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
    async with desk(valkey_url) as at:
        keeper, hold = await one_call(at, **limits)
        conversation = "talk" if "conversation_input_tokens_max" in limits else "other"
        await rebuild(at)
        await keeper.renew()

        with pytest.raises(refusal):
            await at.reserve("c2", "acme", 60, conversation=conversation)
        await at.settlements.settle(hold, at.outcome(0, input_tokens=0))
        assert (await at.reserve("c3", "acme", 60, conversation=conversation)).grant == 60


async def test_it_is_told_once_however_often(valkey_url: str) -> None:
    async with desk(valkey_url) as at:
        keeper, hold = await one_call(at, price_nanousd=PRICE)
        before = at.window("acme")
        await rebuild(at)
        for _ in range(3):
            await keeper.renew()
            assert await at.settlements.announce(hold, Checkpoint(0))

        assert at.window("acme") == before
        await at.settlements.settle(hold, at.outcome(50))
        assert at.window("acme") == {"used": 50, "held": 0, "spend_used": PRICE, "spend_held": 0}


async def test_a_call_that_is_in_the_books_is_not_held_again(valkey_url: str) -> None:
    """Its worker did not hear of it: it hears now, and relays nothing more."""
    async with desk(valkey_url) as at:
        keeper, hold = await one_call(at, price_nanousd=PRICE)
        (live,) = keeper.holds
        await at.settlements.settle(hold, at.outcome(50))
        settled = at.window("acme")

        await keeper.renew()

        assert live.is_lost
        assert not await at.settlements.announce(hold, Checkpoint(55))
        assert at.window("acme") == settled
        assert (await at.settlements.settle(hold, at.outcome(50))).charge_nanousd == PRICE
        assert at.window("acme") == settled
        assert len(at.records("acme")) == 1


def of_before(at: Desk) -> Settlements:
    """Return the book of a worker that has not heard of the rebuild."""

    async def restore(_heard: object) -> str:
        return LATER

    generation = Generation(restore)
    generation.value = "7"
    return Settlements(at.connection, generation, LEASE, now_ms=lambda: 0)


async def test_a_renewal_from_before_a_rebuild_renews_nothing_and_hears_of_it(valkey_url: str) -> None:
    """A worker that renewed in a state that is being written anew would be taken for one that its calls are known of."""
    async with desk(valkey_url) as at:
        _, hold = await one_call(at)
        for bucket in redis_keys.ALL_BUCKETS:
            at.blocking.hset(redis_keys.state(bucket), "generation", LATER)
        settlements = of_before(at)

        assert await settlements.renew(hold.facts.bucket, {"c1": Checkpoint(30)}) == {"c1": "unknown"}
        assert settlements._generation.value == LATER
        assert await settlements.renew(hold.facts.bucket, {"c1": Checkpoint(30)}) == {"c1": "live"}


async def test_a_settlement_from_before_a_rebuild_is_made_in_what_it_wrote(valkey_url: str) -> None:
    """Between the two nothing is in force, so nothing is settled: it waits, and is made once."""
    async with desk(valkey_url) as at:
        _, hold = await one_call(at, price_nanousd=PRICE)
        bucket = hold.facts.bucket
        at.blocking.hdel(redis_keys.state(bucket), "generation")
        heard: list[str] = []

        async def restore(_heard: object) -> str:
            heard.append("rebuilt")
            assert at.window("acme")["used"] == 0, "nothing was settled while nothing was in force"
            at.blocking.hset(redis_keys.state(bucket), "generation", LATER)
            return LATER

        at.generation._restore = restore
        settled = await at.settlements.settle(hold, at.outcome(50))

        assert heard == ["rebuilt"]
        assert settled.charge_nanousd == PRICE
        assert at.window("acme") == {"used": 50, "held": 0, "spend_used": PRICE, "spend_held": 0}


async def test_a_reservation_that_comes_after_it_was_taken_back_is_refused(valkey_url: str) -> None:
    """Its reply was lost and it was still under way: its worker gave it up, so nobody would ever settle it."""
    async with desk(valkey_url) as at:
        at.tier("basic", price_nanousd=PRICE)
        at.customer("acme", "basic")
        made = await at.reserve("c1", "acme", 60)
        await at.settlements.withdraw(made)
        assert at.window("acme") == {"used": 0, "held": 0, "spend_used": 0, "spend_held": 0}

        other = await at.reserve("c2", "acme", 5)
        await at.settlements.withdraw(replace(other, facts=replace(other.facts, id="c3")))
        with pytest.raises(MeteringUnavailable):
            await at.reserve("c3", "acme", 60)

        assert at.window("acme")["held"] == 5
        assert at.records("acme") == []


async def test_a_worker_that_does_not_know_of_a_later_rebuild_tells_nothing(valkey_url: str) -> None:
    """What it holds would count in a state that may be written anew just now, and then twice."""
    async with desk(valkey_url) as at:
        _, hold = await one_call(at)
        await rebuild(at)
        before = at.window("acme")

        assert await at.settlements.announce(hold, Checkpoint(0)), "it is not closed"
        assert at.window("acme") == before
        assert at.in_flight("acme") == {}


async def test_a_call_is_told_again_in_the_period_that_its_customer_has_now(valkey_url: str) -> None:
    """Its worker remembers the window that it was admitted to; the customer's time zone has changed since."""
    async with desk(valkey_url) as at:
        at.tier("basic", end_user_period_tokens_max=1_000)
        at.customer("acme", "basic", period="day")
        keeper = Keeper(
            at.settlements, IdempotencyClaims(at.connection, LEASE.lease_ms), LEASE, Counters(), monotonic=Clock()
        )
        hold = await at.reserve("c1", "acme", 60, end_user="ann")
        keeper.take(hold)
        at.customers["acme"] = replace(at.customers["acme"], timezone="Asia/Kathmandu", rev=2)
        await rebuild(at)

        await keeper.renew()
        assert at.window("acme") == {"used": 0, "held": 60, "spend_used": 0, "spend_held": 0}
        assert at.end_user("acme", "ann") == {"used": 0, "held": 60}
        await at.settlements.settle(hold, at.outcome(50))
        assert at.window("acme") == {"used": 50, "held": 0, "spend_used": 0, "spend_held": 0}
        assert at.end_user("acme", "ann") == {"used": 50, "held": 0}
