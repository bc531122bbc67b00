"""Holds whose workers were silent for a lease: what is billed, what stays held, and when the rest is free."""

from __future__ import annotations

import json

import pytest

from gateway.holds.hold import Checkpoint, Hold
from gateway.holds.store import redis_keys
from tests.clock import Clock
from tests.gateway.holds.harness import HoldsHarness, holds_harness


async def _lapsed(harness: HoldsHarness, sofar: int) -> None:
    harness.tier("basic", conversation_tokens_max=100, price_nanousd=7)
    harness.customer("acme", "basic")
    hold = await harness.reserve("c1", "acme", 80, conversation="talk")
    bucket = hold.facts.bucket
    assert await harness.settlements.renew(bucket, {"c1": Checkpoint(sofar)}) == {"c1": "live"}
    harness.end_lease("c1")


async def test_a_lapsed_hold_is_billed_at_its_checkpoint_and_its_rest_stays_held(valkey_url: str) -> None:
    """The owner may be alive behind a stalled network: what it may still give is not given to another."""
    async with holds_harness(valkey_url) as harness:
        await _lapsed(harness, sofar=30)
        await harness.settlements.beat()
        clock = Clock()
        reclaimer = harness.reclaimer(clock)
        assert reclaimer.turn() == 0, "a hold lapses only for who has had Redis at hand for a whole lease"
        clock.now_s += 60

        assert reclaimer.turn() == 1
        assert harness.window("acme") == {"used": 30, "held": 50, "spend_used": 7, "spend_held": 0}

        settled = await harness.settlements.settle(harness.holds["c1"], harness.outcome(45))
        assert settled.charge_nanousd == 0
        assert harness.window("acme") == {"used": 45, "held": 0, "spend_used": 7, "spend_held": 0}
        recovered, correction = (json.loads(entry["record"]) for entry in harness.records("acme"))
        assert (recovered["finish"], recovered["usage_source"]) == ("recovered", "checkpoint")
        assert recovered["billed_output_tokens"] == 30
        assert (correction["kind"], correction["corrects"]) == ("correction", "c1")
        assert correction["billed_output_tokens"] == 15


async def test_a_hold_is_left_alone_until_its_lease_is_over(valkey_url: str) -> None:
    """Also of a worker that does not beat, by a reclaimer that has been patient."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        await harness.reserve("c1", "acme", 80)
        clock = Clock()
        reclaimer = harness.reclaimer(clock)
        reclaimer.turn()
        clock.now_s += 60

        assert reclaimer.turn() == 0
        assert harness.window("acme")["held"] == 80


async def test_a_suspect_hold_stays_held_as_long_as_its_worker_beats(valkey_url: str) -> None:
    """It may still give what it was granted."""
    async with holds_harness(valkey_url) as harness:
        await _lapsed(harness, sofar=30)
        await harness.settlements.beat()
        clock = Clock()
        reclaimer = harness.reclaimer(clock)
        reclaimer.turn()
        clock.now_s += 60
        assert reclaimer.turn() == 1
        harness.end_lease("c1")

        assert reclaimer.turn() == 0
        assert harness.window("acme")["held"] == 50


async def test_a_dead_workers_hold_is_billed_and_freed_at_once(valkey_url: str) -> None:
    """Whoever saw the worker end left the proof; nothing is held for it any more."""
    async with holds_harness(valkey_url) as harness:
        await _lapsed(harness, sofar=30)
        harness.blocking.set(redis_keys.ended_worker("w_test"), "1")

        assert harness.reclaimer(Clock()).turn() == 1
        assert harness.window("acme") == {"used": 30, "held": 0, "spend_used": 7, "spend_held": 0}
        assert len(harness.records("acme")) == 1


async def _lapsed_with_its_input_owed(harness: HoldsHarness) -> Hold:
    """Return a hold without a token that was billed at its checkpoint: its caller had left an answer that had begun."""
    hold = await harness.reserve("c1", "acme", 80)
    harness.renew("c1", 0, owes_input=True)
    harness.renew("c1", 0)  # once owed is owed
    harness.end_lease("c1")
    await harness.settlements.beat()
    clock = Clock()
    reclaimer = harness.reclaimer(clock)
    reclaimer.turn()
    clock.now_s += 60
    reclaimer.turn()
    return hold


@pytest.mark.parametrize(("tokens", "input_tokens", "charge"), [(0, 25, 25), (0, 50, 50), (0, 20, 20), (3, 40, 50)])
async def test_input_that_a_lapsed_hold_owes_is_billed_once(
    valkey_url: str, tokens: int, input_tokens: int, charge: int
) -> None:
    """Its caller had left an answer without a token; what its worker says in the end corrects what was billed."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=7, input_nanousd_per_mtok=1_000_000, output_nanousd_per_mtok=1_000_000)
        harness.customer("acme", "basic")
        hold = await _lapsed_with_its_input_owed(harness)
        assert harness.window("acme")["spend_used"] == hold.facts.input_estimate

        await harness.settlements.settle(hold, harness.outcome(tokens, input_tokens=input_tokens, owes_input=True))

        assert harness.window("acme") == {"used": tokens, "held": 0, "spend_used": charge, "spend_held": 0}
        records = [json.loads(entry["record"]) for entry in harness.records("acme")]
        assert sum(record["input_tokens"] for record in records) == input_tokens


async def test_a_lapsed_holds_input_is_given_back_where_its_answer_failed_in_the_end(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", input_nanousd_per_mtok=1_000_000)
        harness.customer("acme", "basic")
        hold = await _lapsed_with_its_input_owed(harness)
        assert harness.window("acme")["spend_used"] > 0
        await harness.settlements.settle(hold, harness.outcome(0, finish="upstream_error", input_tokens=0))

        assert harness.window("acme") == {"used": 0, "held": 0, "spend_used": 0, "spend_held": 0}


async def test_a_suspect_hold_is_freed_once_its_owner_has_been_silent_for_a_second_lease(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await _lapsed(harness, sofar=0)
        clock = Clock()
        reclaimer = harness.reclaimer(clock)
        reclaimer.turn()
        clock.now_s += 60
        reclaimer.turn()
        assert harness.window("acme")["held"] == 80
        harness.end_lease("c1")

        assert reclaimer.turn() == 1
        assert harness.window("acme") == {"used": 0, "held": 0, "spend_used": 0, "spend_held": 0}


@pytest.mark.parametrize("sofar", [30, 35], ids=["idle", "given more"])
async def test_a_renewed_hold_is_left_alone_by_a_reclaimer_that_looked_before(valkey_url: str, sofar: int) -> None:
    """A renewal between the look and the verdict wins, also one that brings no token more."""
    async with holds_harness(valkey_url) as harness:
        await _lapsed(harness, sofar=30)
        harness.blocking.set(redis_keys.ended_worker("w_test"), "1")
        reclaimer = harness.reclaimer(Clock(), before_it_books=lambda: harness.renew("c1", sofar))

        assert reclaimer.turn() == 0
        assert harness.window("acme")["held"] == 80
        assert harness.records("acme") == []


async def test_a_call_that_was_renewed_leaves_nothing_among_those_in_flight(valkey_url: str) -> None:
    """How far it was goes with its hold."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 80)
        harness.renew("c1", 30)
        await harness.settlements.settle(hold, harness.outcome(40))

        assert not harness.blocking.exists(redis_keys.inflight(hold.facts.bucket))
