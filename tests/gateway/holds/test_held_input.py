"""Input is held while a call runs, and only so long: a conversation's input has a limit, too."""

from __future__ import annotations

import pytest

from gateway.errors import ConversationCapReached, InsufficientQuota
from gateway.holds.hold import UNANSWERED, Outcome
from tests.gateway.holds.desk import Desk, desk

BOUND = 100
"""Input of each call, at most."""


async def opened(at: Desk, **limits: int) -> None:
    at.tier("basic", **limits)
    at.customer("acme", "basic")


async def begin(at: Desk, name: str) -> None:
    await at.reserve(name, "acme", 5, conversation="talk", input_bound=BOUND)


async def test_calls_that_run_at_once_hold_the_input_of_each(valkey_url: str) -> None:
    """Two of a hundred fit into 250; the third would be too much if both are as long as they may be."""
    async with desk(valkey_url) as at:
        await opened(at, conversation_input_tokens_max=250)
        await begin(at, "c1")
        await begin(at, "c2")

        with pytest.raises(ConversationCapReached):
            await begin(at, "c3")


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
    async with desk(valkey_url) as at:
        await opened(at, conversation_input_tokens_max=250)
        await begin(at, "c1")
        await begin(at, "c2")
        await at.settlements.settle(at.holds["c1"], came_to)

        if is_admitted:
            await begin(at, "c3")
            with pytest.raises(ConversationCapReached):
                await begin(at, "c4")
        else:
            with pytest.raises(ConversationCapReached):
                await begin(at, "c3")


async def test_whoever_settled_all_of_its_calls_holds_no_input(valkey_url: str) -> None:
    """Ten calls of a hundred, one after another, of which each reads ten: together they are a hundred of 200."""
    async with desk(valkey_url) as at:
        await opened(at, conversation_input_tokens_max=200)
        for number in range(10):
            await begin(at, f"c{number}")
            await at.settlements.settle(at.holds[f"c{number}"], Outcome(True, "complete", 5, 5, input_tokens=10))

        await begin(at, "last")
        with pytest.raises(ConversationCapReached):
            await begin(at, "beyond")


async def test_input_that_is_charged_is_held_of_the_spend(valkey_url: str) -> None:
    """At one nano-unit a token: a hundred each, so two calls of 205 nano-units."""
    async with desk(valkey_url) as at:
        await opened(at, spend_nanousd_max=205, input_nanousd_per_mtok=1_000_000)
        await begin(at, "c1")
        await begin(at, "c2")

        with pytest.raises(InsufficientQuota):
            await begin(at, "c3")
        await at.settlements.settle(at.holds["c1"], Outcome(True, "complete", 5, 5, input_tokens=5))
        await begin(at, "c4")
        assert at.window("acme")["spend_used"] == 5
