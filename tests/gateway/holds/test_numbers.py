"""No number, however large, and no key of another kind stops a script half-way: what it cannot do whole it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from gateway.errors import AccountInconsistent, InsufficientQuota, MeteringUnavailable, TokencapError
from gateway.holds.hold import UNANSWERED, Hold, Once
from gateway.holds.maintenance.census import Census
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import window_state
from gateway.holds.store.scripts import source
from pricing.money import MOST
from tests.gateway.holds.harness import GENERATION, HoldsHarness, holds_harness

BUCKET = redis_keys.bucket_of("acme")


def breaches(harness: HoldsHarness) -> list[str]:
    census = Census(harness.blocking, lambda: GENERATION)
    return [fault for fault in census.take([]).windows.values() if fault is not None]


async def test_prices_that_no_sum_can_hold_are_refused_before_anything_is_written(valkey_url: str) -> None:
    """A thousand conversations at the highest price: the first is held, for each other its customer is told why not."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("dear", price_nanousd=MOST, output_nanousd_per_mtok=MOST)
        harness.tier("cheap", price_nanousd=7)
        harness.customer("acme", "dear")
        harness.customer("other", "cheap")
        with pytest.raises(InsufficientQuota, match="the most there can be"):
            await harness.reserve("c0", "acme", 100)
        harness.tier("dear", price_nanousd=MOST)
        hold = await harness.reserve("c1", "acme", 100)
        before = harness.window("acme")
        for number in range(2, 1_002):
            with pytest.raises(InsufficientQuota):
                await harness.reserve(f"c{number}", "acme", 100)
        assert harness.window("acme") == before
        assert (await harness.settlements.settle(hold, harness.outcome(10))).charge_nanousd == MOST

        assert harness.window("acme") == {"used": 10, "held": 0, "spend_used": MOST, "spend_held": 0}
        assert breaches(harness) == []
        assert (await harness.reserve("d1", "other", 100)).grant == 100


async def test_a_settlement_that_meets_a_window_beyond_counting_books_its_record(valkey_url: str) -> None:
    """As a release before this one left it: the record is the truth, and the window is found not to add up."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=7)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 100)
        window = redis_keys.window(BUCKET, "acme", hold.facts.period_start)
        harness.blocking.hset(
            window, "amounts", replace(window_state(harness.blocking, window), spend_used=2**63 - 1).to_bytes()
        )
        for _ in range(3):
            assert (await harness.settlements.settle(hold, harness.outcome(10))).charge_nanousd == 7

        assert len(harness.records("acme")) == 1
        assert harness.window("acme") == {"used": 10, "held": 0, "spend_used": MOST, "spend_held": 0}
        with pytest.raises(InsufficientQuota):
            await harness.reserve("c2", "acme", 100)


async def test_whose_window_is_known_not_to_add_up_is_not_served(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 100)
        harness.blocking.hset(redis_keys.window(BUCKET, "acme", hold.facts.period_start), "breach", "1")
        with pytest.raises(AccountInconsistent):
            await harness.reserve("c2", "acme", 100)
        await harness.settlements.settle(hold, harness.outcome(10))

        assert harness.window("acme")["held"] == 0


WRITTEN = ("inflight", "settled", "window", "conversation", "pace", "usage", "key", "customer", "end_user", "state")


THREAD = "call-1"
"""A thread to the conversation of a call."""


def of_kind(harness: HoldsHarness, kind: str, hold: Hold) -> str:
    """Return the key of one kind that a call of acme's touches."""
    facts = hold.facts
    names = {
        "inflight": redis_keys.inflight(BUCKET),
        "settled": redis_keys.settled(BUCKET),
        "window": redis_keys.window(BUCKET, "acme", facts.period_start),
        "conversation": redis_keys.conversation(BUCKET, "acme", "talk"),
        "pace": redis_keys.pace(BUCKET, "acme"),
        "usage": redis_keys.usage(BUCKET),
        "key": redis_keys.api_key(BUCKET, harness.request("x", "acme", 1).key_digest),
        "customer": redis_keys.customer(BUCKET, "acme"),
        "end_user": redis_keys.end_user(BUCKET, "acme", facts.period_start, "ann"),
        "state": redis_keys.state(BUCKET),
        "once": redis_keys.once(BUCKET, "acme", "0" * 32),
        "answers": redis_keys.answers(BUCKET, "acme"),
        "notices": redis_keys.notices(BUCKET),
        "thread": redis_keys.thread(BUCKET, "acme", THREAD),
    }
    return names[kind]


@pytest.mark.parametrize("kind", WRITTEN)
async def test_a_reservation_that_meets_a_key_of_another_kind_writes_nothing(valkey_url: str, kind: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", end_user_period_tokens_max=1_000, requests_per_minute=100)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 100, end_user="ann", conversation="talk")
        name = of_kind(harness, kind, hold)
        harness.blocking.delete(name)
        harness.blocking.set(name, "a string")
        before = harness.dumped()
        with pytest.raises(TokencapError):
            await harness.reserve("c2", "acme", 100, end_user="ann", conversation="talk")

        assert harness.dumped() == before


@pytest.mark.parametrize(
    "kind", ["window", "conversation", "usage", "end_user", "state", "inflight", "settled", "once", "answers"]
)
async def test_a_settlement_that_meets_a_key_of_another_kind_writes_nothing(valkey_url: str, kind: str) -> None:
    """It is tried again, and is done whole once that is mended."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", end_user_period_tokens_max=1_000, period_tokens_max=100, price_nanousd=3)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 100, end_user="ann", conversation="talk")
        harness.blocking.hset(redis_keys.once(BUCKET, "acme", "0" * 32), "call", "c1")
        name = of_kind(harness, kind, hold)
        was = harness.blocking.dump(name)
        harness.blocking.delete(name)
        harness.blocking.set(name, "a string")
        before, once = harness.dumped(), Once("0" * 32, "body", b"x", b"x")
        with pytest.raises(MeteringUnavailable):
            await harness.settlements.settle(hold, harness.outcome(90), once)
        assert harness.dumped() == before
        harness.blocking.delete(name)
        if was is not None:
            harness.blocking.restore(name, 0, was)

        assert (await harness.settlements.settle(hold, harness.outcome(90), once)).charge_nanousd == 3
        assert harness.window("acme") == {"used": 90, "held": 0, "spend_used": 3, "spend_held": 0}


@pytest.mark.parametrize("kind", ["pace", "notices", "thread"])
async def test_a_settlement_is_done_whole_beside_a_key_of_another_kind_that_it_can_do_without(
    valkey_url: str, kind: str
) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=100, price_nanousd=3)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 100, conversation="talk")
        name = of_kind(harness, kind, hold)
        harness.blocking.delete(name)
        harness.blocking.rpush(name, "a list")
        await harness.settlements.settle(hold, harness.outcome(90, threads=(THREAD,)))

        assert harness.window("acme") == {"used": 90, "held": 0, "spend_used": 3, "spend_held": 0}
        assert len(harness.records("acme")) == 1
        assert harness.in_flight("acme") == {}


@pytest.mark.parametrize("verb", ["renew", "announce"])
def test_no_verb_writes_after_it_may_fail(verb: str) -> None:
    """What reads stands before what writes, in the text: the scripts have no branch that goes back."""
    text = (files("gateway.holds") / "lua" / f"{verb}.lua").read_text("utf-8")
    reads = [text.rfind(name) for name in ("'HGET'", "'HMGET'", "'HEXISTS'", "conversation_at(")]
    writes = [text.find(name) for name in ("call('HSET'", "put_conversation(") if name in text]

    assert max(reads) < min(writes)


AMOUNTS = st.one_of(st.integers(0, 50), st.sampled_from([MOST, MOST - 1, MOST // 2, MOST // 3, 2**52, 2**31]))
STEP = st.tuples(
    st.sampled_from(["reserve", "settle", "leave", "price"]), AMOUNTS, AMOUNTS, st.sampled_from(["a", "b"])
)


@given(steps=st.lists(STEP, max_size=25))
@settings(max_examples=60)
async def test_any_mixture_of_extreme_amounts_leaves_everything_adding_up(
    valkey_server: str, steps: list[tuple[str, int, int, str]]
) -> None:
    """Prices, rates, caps and spend limits up to 2^53 - 1: each window is what its holds and records come to."""
    async with holds_harness(valkey_server) as harness:
        harness.blocking.flushall()
        harness.tier("t", price_nanousd=1)
        harness.customer("acme", "t")
        live: list[Hold] = []
        for number, (verb, first, second, name) in enumerate(steps):
            if verb == "price":
                harness.tier(
                    "t", price_nanousd=first, output_nanousd_per_mtok=second, spend_nanousd_max=MOST - first % 3
                )
            elif verb == "reserve":
                try:
                    hold = await harness.reserve(f"c{number}", "acme", min(first + 1, 2**31), conversation=name)
                except TokencapError as error:
                    assert not isinstance(error, MeteringUnavailable)
                else:
                    live.append(hold)
            elif live:
                hold = live.pop(first % len(live))
                came_to = UNANSWERED if verb == "leave" else harness.outcome(min(second, hold.tokens), input_tokens=0)
                await harness.settlements.settle(hold, came_to)
        assert breaches(harness) == []
        window, records = harness.window("acme"), harness.records("acme")
        assert window["used"] == sum(json.loads(one["record"])["billed_output_tokens"] for one in records)
        assert window["spend_used"] == sum(int(one["charge"]) for one in records)
        assert window["held"] == sum(hold.tokens for hold in live)
        assert window["spend_held"] == sum(hold.money for hold in live)
        assert all(0 <= amount <= MOST for amount in window.values())


async def test_a_list_that_is_too_deep_is_refused_before_anything_is_written(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        await harness.reserve("c1", "acme", 100)
        before = harness.dumped()
        names: list[Any] = [redis_keys.state(BUCKET)] * 11
        for verb in ("reserve", "settle"):
            with pytest.raises(ResponseError):
                harness.blocking.register_script(source(verb))(keys=names, args=["[" * 5_000, "", "", ""])

        assert harness.dumped() == before
