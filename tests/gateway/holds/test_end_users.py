"""Each end user's part of a customer's period: told as stories, at once by many, and whatever becomes of a hold."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.errors import EndUserQuotaReached
from gateway.holds.hold import Checkpoint
from gateway.holds.store import redis_keys
from tests.gateway.holds.harness import holds_harness

STORIES = {
    "an_end_user_has_its_own_part_of_the_period": """
        tier     basic end_user_period_tokens_max=100 price_nanousd=1
        customer acme basic
        reserve  c1 acme 60 end_user=ann          -> granted 60
        reserve  c2 acme 60 end_user=ann          -> EndUserQuotaReached
        reserve  c3 acme 60 end_user=bob          -> granted 60
        settle   c1 30                            -> charged 1
        settle   c1 30                            -> charged 1
        user     acme ann                         -> used 30 held 0
        reserve  c4 acme 70 end_user=ann          -> granted 70
        reserve  c5 acme 1 end_user=ann           -> EndUserQuotaReached
        reserve  c6 acme 20 end_user=bob choices=2 -> granted 20
        reserve  c7 acme 1 end_user=bob           -> EndUserQuotaReached
        user     acme bob                         -> used 0 held 100
        account  acme                             -> used 30 held 170
    """,
    "calls_that_name_no_end_user_have_one_part_together": """
        tier     basic end_user_period_tokens_max=100 price_nanousd=1
        customer acme basic
        reserve  c1 acme 60                       -> granted 60
        reserve  c2 acme 60                       -> EndUserQuotaReached
        reserve  c3 acme 60 end_user=ann          -> granted 60
    """,
    "what_is_metered_is_granted_down_to_the_least_grant_of_an_end_user": """
        tier     basic end_user_period_tokens_max=100
        customer acme basic
        reserve  c1 acme 70 end_user=ann          -> granted 70
        reserve  c2 acme 60 end_user=ann          -> granted 30
        settle   c1 60                            -> charged 0
        reserve  c3 acme 60 end_user=ann          -> EndUserQuotaReached
    """,
    "the_least_of_a_period_and_an_end_users_part_is_told": """
        tier     basic end_user_period_tokens_max=100 period_tokens_max=120 price_nanousd=1
        customer acme basic
        reserve  c1 acme 90 end_user=ann          -> granted 90
        reserve  c2 acme 20 end_user=ann          -> EndUserQuotaReached
        reserve  c3 acme 40 end_user=bob          -> InsufficientQuota
        reserve  c4 acme 30 end_user=bob          -> granted 30
    """,
}


@pytest.mark.parametrize("name", STORIES)
async def test_story(name: str, valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await harness.play(STORIES[name])


async def test_never_one_token_over_an_end_users_part_of_the_period(valkey_url: str) -> None:
    """400 calls at once of two end users, of which each may have what fits exactly 8 of them: 16 are granted."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", end_user_period_tokens_max=8 * 600 + 300, price_nanousd=1)
        harness.customer("acme", "basic")
        tried = await asyncio.gather(
            *(
                harness.reserve(f"c{number}", "acme", 600, end_user="ann" if number % 2 else "bob")
                for number in range(400)
            ),
            return_exceptions=True,
        )

        assert sum(not isinstance(one, BaseException) for one in tried) == 16
        assert all(isinstance(one, EndUserQuotaReached) for one in tried if isinstance(one, BaseException))
        assert harness.end_user("acme", "ann") == harness.end_user("acme", "bob") == {"used": 0, "held": 4_800}


async def test_an_end_users_tokens_are_taken_back_told_again_and_corrected_like_a_periods(valkey_url: str) -> None:
    """A hold that is announced, lapses and is settled late moves both windows alike."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", end_user_period_tokens_max=200, price_nanousd=7)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 80, end_user="ann", conversation="talk")
        facts = hold.facts
        assert facts.end_user_window is not None
        window = redis_keys.window(facts.bucket, "acme", facts.period_start)
        harness.blocking.delete(redis_keys.inflight(facts.bucket), facts.end_user_window, window)
        assert await harness.settlements.announce(hold, Checkpoint(30))
        assert harness.end_user("acme", "ann") == {"used": 0, "held": 80}
        await harness.settlements.beat()
        harness.end_lease("c1")
        moment = 0.0
        reclaimer = harness.reclaimer(lambda: moment)
        reclaimer.turn()
        moment = 60.0
        reclaimer.turn()
        assert harness.end_user("acme", "ann") == {"used": 30, "held": 50}
        await harness.settlements.settle(hold, harness.outcome(45))

        assert harness.end_user("acme", "ann") == {"used": 45, "held": 0}
        assert harness.window("acme")["used"] == 45
        assert [json.loads(entry["record"])["end_user"] for entry in harness.records("acme")] == ["ann", "ann"]


async def test_an_end_user_without_a_limit_leaves_nothing_in_redis(valkey_url: str) -> None:
    """Only its record names it."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=7)
        harness.customer("acme", "basic")
        hold = await harness.reserve("c1", "acme", 80, end_user="ann")
        await harness.settlements.settle(hold, harness.outcome(45))

        assert harness.blocking.keys("*:end_user:*") == []
        assert json.loads(harness.records("acme")[0]["record"])["end_user"] == "ann"
