"""What the version before left in Redis, conversations and holds as hashes, is taken as it is beside what is written now."""

from __future__ import annotations

import json

import pytest

from gateway.clock import now_ms
from gateway.errors import ConversationCapReached, InsufficientQuota
from gateway.holds.hold import Facts
from gateway.holds.maintenance.census import Census
from gateway.holds.maintenance.redis_erasure import erase_customer
from gateway.holds.store import redis_keys
from gateway.holds.store.cache import LookupCache
from gateway.holds.store.threads import Threads
from gateway.holds.terms import period_of
from tests.clock import Clock
from tests.gateway.holds.harness import GENERATION, HoldsHarness, digest_of, holds_harness

BUCKET = redis_keys.bucket_of("acme")


def begin(harness: HoldsHarness, **changes: int) -> str:
    """Write acme's conversation ``talk`` as the version before does; return its key."""
    now = now_ms()
    fields: dict[str, str | int] = {"first": now - 5_000, "tier": "basic", "version": "v1", "cap": 100, "price": 7}
    fields |= {"charged": 1, "last": now, "live": 0, "held": 0, "input_held": 0, "used": 60, "input_used": 30}
    name = redis_keys.conversation(BUCKET, "acme", "talk")
    harness.blocking.hset(name, items=[part for pair in (fields | changes).items() for part in pair])
    harness.blocking.pexpire(name, 4_500_000)
    return name


async def hold(harness: HoldsHarness, sofar: int, leased_ms: int) -> Facts:
    """Make acme's hold ``c1`` of 40 tokens in ``talk`` as the version before does."""
    held = await harness.reserve("c1", "acme", 40, conversation="talk")
    harness.blocking.delete(redis_keys.inflight(BUCKET))
    now = now_ms()
    fields = {"owner": "w_older", "state": "live", "admitted": now - 9_000, "deadline": now + 60_000, "grant": 40}
    amounts = {"tokens": 40, "money": held.money, "input": 100, "sofar": sofar, "charged": 1}
    about = {"window": redis_keys.window(BUCKET, "acme", held.facts.period_start), "first": held.conversation_first}
    stored = fields | amounts | about | {"facts": held.facts.to_json().decode(), "reply": "[]"}
    name = f"{{b{BUCKET}}}:hold:c1"
    harness.blocking.hset(name, items=[part for pair in stored.items() for part in pair])
    harness.blocking.zadd(f"{{b{BUCKET}}}:holds", {"c1": now + leased_ms})
    return held.facts


async def test_a_window_of_the_version_before_counts_on_until_its_period_is_over(valkey_url: str) -> None:
    """It stays as it is, field by field, so that a worker of the version before admits nobody beyond its limit."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=100, price_nanousd=0)
        harness.customer("acme", "basic")
        window = redis_keys.window(BUCKET, "acme", period_of(harness.customers["acme"], now_ms())[0])
        was = ["used", "40", "held", "30", "spend_used", "9", "spend_held", "0", "tokens_max", "100", "spend_max", ""]
        harness.blocking.hset(window, items=was)
        first = await harness.reserve("c1", "acme", 100)
        assert first.grant == 30
        assert harness.window("acme") == {"used": 40, "held": 60, "spend_used": 9, "spend_held": 0}
        await harness.settlements.settle(first, harness.outcome(20))

        assert harness.blocking.hmget(window, "used", "held", "amounts") == [b"60", b"30", None]
        with pytest.raises(InsufficientQuota):
            await harness.reserve("c2", "acme", 11)


async def test_a_window_that_both_versions_have_written_counts_what_both_say(valkey_url: str) -> None:
    """As where a worker of the version before admits a call into a period that one of this version has begun."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=100)
        harness.customer("acme", "basic")
        first = await harness.reserve("c1", "acme", 50)
        window = redis_keys.window(BUCKET, "acme", first.facts.period_start)
        harness.blocking.hset(window, mapping={"held": "20", "spend_held": "0"})
        second = await harness.reserve("c2", "acme", 50)
        assert second.grant == 30
        assert harness.window("acme")["held"] == 100
        for hold in (first, second):
            await harness.settlements.settle(hold, harness.outcome(10))

        assert harness.window("acme") == {"used": 20, "held": 20, "spend_used": 0, "spend_held": 0}


def sold(harness: HoldsHarness) -> None:
    harness.tier("basic", conversation_tokens_max=100, price_nanousd=7)
    harness.customer("acme", "basic")


async def test_a_conversation_goes_on_where_the_version_before_left_it(valkey_url: str) -> None:
    """Its cap, its tokens and its charge hold; it stays a hash, which a worker of the version before can read."""
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        name = begin(harness)
        first = await harness.reserve("c1", "acme", 100, conversation="talk")
        assert (first.grant, first.was_charged) == (40, True)
        assert (await harness.settlements.settle(first, harness.outcome(30))).conversation_left == 10

        assert harness.blocking.hmget(name, "used", "held", "live", "input_used") == [b"90", b"0", b"0", b"40"]
        assert harness.blocking.pttl(name) > 3_600_000
        assert (await harness.reserve("c2", "acme", 100, conversation="talk")).grant == 10
        with pytest.raises(ConversationCapReached):
            await harness.reserve("c3", "acme", 100, conversation="talk")


async def test_a_conversation_of_the_version_before_that_is_over_begins_anew_as_they_are_written_now(
    valkey_url: str,
) -> None:
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        name = begin(harness, last=now_ms() - 3_600_001)
        assert (await harness.reserve("c1", "acme", 100, conversation="talk")).grant == 100

        assert harness.blocking.type(name) == b"string"


async def test_what_was_said_in_a_conversation_of_the_version_before_is_known_and_erased(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        name = begin(harness)
        threads = Threads(harness.connection, LookupCache(harness.connection), harness.admission.in_force)
        assert await threads.tokens_so_far(BUCKET, digest_of("acme"), "talk") == 90

        erase_customer(harness.blocking, "acme")
        assert not harness.blocking.exists(name)
        name = begin(harness, live=1)
        erase_customer(harness.blocking, "acme")
        assert harness.blocking.exists(name), "a running call needs it"


async def test_holds_of_the_version_before_are_counted_beside_those_of_now(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        begin(harness, used=0)
        await hold(harness, sofar=5, leased_ms=60_000)
        await harness.reserve("c2", "acme", 10, conversation="other")

        count = Census(harness.blocking, lambda: GENERATION).take([])

        assert set(count.windows.values()) == {None}
        assert (sum(count.holds.values()), sum(count.tokens.values())) == (2, 50)


async def test_a_hold_of_the_version_before_is_left_to_a_worker_that_could_not_beat(valkey_url: str) -> None:
    """Redis was away: its worker beats again in a moment, and renews the hold as it knows it."""
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        begin(harness, used=0)
        await hold(harness, sofar=12, leased_ms=-1)
        harness.reclaimer(Clock()).turn()

        assert harness.blocking.exists(f"{{b{BUCKET}}}:hold:c1")
        assert harness.in_flight("acme") == {}


@pytest.mark.parametrize("beats", [True, False])
async def test_a_hold_of_the_version_before_is_taken_back_once_its_worker_is_dead(valkey_url: str, beats: bool) -> None:
    """It is billed what it came to at its last renewal; a worker that lives keeps it."""
    async with holds_harness(valkey_url) as harness:
        sold(harness)
        begin(harness, used=0)
        await hold(harness, sofar=12, leased_ms=-1)
        if beats:
            harness.blocking.set(redis_keys.worker("w_older"), "1", px=60_000)
        clock = Clock()
        reclaimer = harness.reclaimer(clock)
        for _ in range(4):
            reclaimer.turn()
            clock.now_s += 60
            if "c1" in harness.in_flight("acme"):
                harness.end_lease("c1")

        assert harness.blocking.exists(f"{{b{BUCKET}}}:hold:c1") == beats
        assert harness.window("acme")["held"] == (40 if beats else 0)
        records = [json.loads(entry["record"]) for entry in harness.records("acme")]
        assert [record["billed_output_tokens"] for record in records] == ([] if beats else [12])
