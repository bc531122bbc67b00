"""Input is held while a call runs, and only so long: a conversation's input has a limit, too."""

from __future__ import annotations

import pytest

from gateway.errors import ConversationCapReached, InsufficientQuota
from gateway.holds.hold import UNANSWERED, Outcome
from tests.gateway.holds.harness import HoldsHarness, holds_harness

BOUND = 100
"""Input of each call, at most."""


async def opened(harness: HoldsHarness, **limits: int) -> None:
    harness.tier("basic", **limits)
    harness.customer("acme", "basic")


async def begin(harness: HoldsHarness, name: str) -> None:
    await harness.reserve(name, "acme", 5, conversation="talk", input_bound=BOUND)


async def test_calls_that_run_at_once_hold_the_input_of_each(valkey_url: str) -> None:
    """Two of a hundred fit into 250; the third would be too much if both are as long as they may be."""
    async with holds_harness(valkey_url) as harness:
        await opened(harness, conversation_input_tokens_max=250)
        await begin(harness, "c1")
        await begin(harness, "c2")

        with pytest.raises(ConversationCapReached):
            await begin(harness, "c3")


@pytest.mark.parametrize(
    ("came_to", "is_admitted"),
    [
        (Outcome(True, "complete", 5, 5, input_tokens=50), True),
        (Outcome(True, "complete", 5, 5, input_tokens=51), False),
        (UNANSWERED, True),
    ],
)
async def test_what_is_held_of_it_is_given_back_and_what_was_read_counts(
    valkey_url: str, came_to: Outcome, is_admitted: bool
) -> None:
    """Of 250 a hundred are held by the other call; the third finds its hundred where the first read no more than fifty."""
    async with holds_harness(valkey_url) as harness:
        await opened(harness, conversation_input_tokens_max=250)
        await begin(harness, "c1")
        await begin(harness, "c2")
        await harness.settlements.settle(harness.holds["c1"], came_to)

        if is_admitted:
            await begin(harness, "c3")
            with pytest.raises(ConversationCapReached):
                await begin(harness, "c4")
        else:
            with pytest.raises(ConversationCapReached):
                await begin(harness, "c3")


async def test_whoever_settled_all_of_its_calls_holds_no_input(valkey_url: str) -> None:
    """Ten calls of a hundred, one after another, of which each reads ten: together they are a hundred of 200."""
    async with holds_harness(valkey_url) as harness:
        await opened(harness, conversation_input_tokens_max=200)
        for number in range(10):
            await begin(harness, f"c{number}")
            await harness.settlements.settle(
                harness.holds[f"c{number}"], Outcome(True, "complete", 5, 5, input_tokens=10)
            )

        await begin(harness, "last")
        with pytest.raises(ConversationCapReached):
            await begin(harness, "beyond")


async def test_input_that_is_charged_is_held_of_the_spend(valkey_url: str) -> None:
    """At one nano-unit a token: a hundred each, so two calls of 205 nano-units."""
    async with holds_harness(valkey_url) as harness:
        await opened(harness, spend_nanousd_max=205, input_nanousd_per_mtok=1_000_000)
        await begin(harness, "c1")
        await begin(harness, "c2")

        with pytest.raises(InsufficientQuota):
            await begin(harness, "c3")
        await harness.settlements.settle(harness.holds["c1"], Outcome(True, "complete", 5, 5, input_tokens=5))
        await begin(harness, "c4")
        assert harness.window("acme")["spend_used"] == 5
