"""Money, told as stories: what is granted, refused, charged, and what the account says then."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from gateway.errors import InsufficientQuota, InvalidKey, NoTier
from gateway.holds.offer import HouseLimits
from gateway.holds.store import redis_keys
from gateway.holds.store.packing import ConversationState, conversation_in
from tests.gateway.holds.harness import HoldsHarness, holds_harness

STORIES = {
    "a_period_is_never_overdrawn": """
        tier     basic period_tokens_max=1000 price_nanousd=5
        customer acme basic
        reserve  c1 acme 600             -> granted 600
        reserve  c2 acme 600             -> InsufficientQuota
        reserve  c3 acme 400             -> granted 400
        settle   c1 450                  -> charged 5
        account  acme                    -> used 450 held 400
        settle   c1 450                  -> charged 5
        account  acme                    -> used 450 held 400
        settle   c3 0                    -> charged 0
        account  acme                    -> used 450 held 0
    """,
    "what_is_metered_is_granted_down_to_the_least_grant": """
        tier     basic period_tokens_max=1000
        customer acme basic
        reserve  c1 acme 990             -> granted 990
        reserve  c2 acme 600             -> InsufficientQuota
        reserve  c3 acme 10              -> granted 10
        settle   c1 970                  -> charged 0
        reserve  c4 acme 600             -> granted 20
        reserve  c5 acme                 -> InsufficientQuota
    """,
    "a_conversation_has_one_cap_and_one_price": """
        tier     basic conversation_tokens_max=100 price_nanousd=7
        customer acme basic
        reserve  c1 acme conversation=talk        -> granted 100
        reserve  c2 acme conversation=talk        -> ConversationCapReached
        settle   c1 60                            -> charged 7
        reserve  c3 acme 30 conversation=talk     -> granted 30
        settle   c3 30                            -> charged 0
        reserve  c4 acme conversation=talk        -> granted 10
        settle   c4 10                            -> charged 0
        reserve  c5 acme conversation=talk        -> ConversationCapReached
        reserve  c6 acme conversation=other       -> granted 100
    """,
    "choices_share_one_cap": """
        tier     basic conversation_tokens_max=100
        customer acme basic
        reserve  c1 acme choices=3                -> granted 33
        account  acme                             -> used 0 held 99
        reserve  c2 acme conversation=c1 choices=2 -> ConversationCapReached
    """,
    "no_token_no_charge": """
        tier     basic price_nanousd=7 input_nanousd_per_mtok=1000000
        customer acme basic
        reserve  c1 acme 50 conversation=talk     -> granted 50
        spend    acme                             -> used 0 held 107
        settle   c1 0                             -> charged 0
        reserve  c2 acme 50 conversation=talk     -> granted 50
        settle   c2 1                             -> charged 17
        spend    acme                             -> used 17 held 0
    """,
    "a_spend_limit_is_never_overdrawn": """
        tier     basic price_nanousd=40 spend_nanousd_max=100
        customer acme basic
        reserve  c1 acme 50                       -> granted 50
        reserve  c2 acme 50                       -> granted 50
        reserve  c3 acme 50                       -> InsufficientQuota
        settle   c1 5                             -> charged 40
        settle   c2 0                             -> charged 0
        reserve  c4 acme 50                       -> granted 50
        spend    acme                             -> used 40 held 40
    """,
    "metered_spend_is_granted_down_to_what_it_pays_for": """
        tier     basic output_nanousd_per_mtok=2000000 spend_nanousd_max=100
        customer acme basic
        reserve  c1 acme                          -> granted 50
        settle   c1 40                            -> charged 80
        reserve  c2 acme                          -> InsufficientQuota
        reserve  c3 acme 10                       -> granted 10
    """,
    "metered_spend_pays_for_the_input_and_for_every_choice": """
        tier     basic output_nanousd_per_mtok=1000000 input_nanousd_per_mtok=1000000 spend_nanousd_max=300
        customer acme basic
        reserve  c1 acme 150 choices=2            -> granted 100
        spend    acme                             -> used 0 held 300
    """,
    "at_most_so_many_calls_at_once": """
        tier     basic concurrency_max=1
        customer acme basic
        reserve  c1 acme 5                        -> granted 5
        reserve  c2 acme 5                        -> RateLimitExceeded
        settle   c1 5                             -> charged 0
        reserve  c3 acme 5                        -> granted 5
    """,
    "at_most_so_many_calls_at_once_where_requests_a_minute_are_limited_too": """
        tier     basic concurrency_max=1 requests_per_minute=100
        customer acme basic
        reserve  c1 acme 5                        -> granted 5
        reserve  c2 acme 5                        -> RateLimitExceeded
        settle   c1 5                             -> charged 0
        reserve  c3 acme 5                        -> granted 5
    """,
    "at_most_so_many_requests_a_minute": """
        tier     basic requests_per_minute=2
        customer acme basic
        reserve  c1 acme 5                        -> granted 5
        reserve  c2 acme 5                        -> granted 5
        reserve  c3 acme 5                        -> RateLimitExceeded
        settle   c1 5                             -> charged 0
        reserve  c4 acme 5                        -> RateLimitExceeded
    """,
    "an_open_conversation_keeps_the_menu_it_was_begun_under": """
        tier     basic conversation_tokens_max=100 price_nanousd=7
        customer acme basic
        reserve  c1 acme 10 conversation=talk     -> granted 10
        tier     basic conversation_tokens_max=20 price_nanousd=9
        settle   c1 0                             -> charged 0
        reserve  c2 acme conversation=talk        -> granted 100
        settle   c2 5                             -> charged 7
        reserve  c3 acme conversation=new         -> granted 20
        settle   c3 5                             -> charged 9
    """,
    "a_subscription_includes_some_conversations_and_charges_more_of_them": """
        tier     basic price_nanousd=7 period_price_nanousd=100 included_conversations=2
        customer acme basic
        reserve  c1 acme 5 conversation=one       -> granted 5
        settle   c1 5                             -> charged 0
        reserve  c2 acme 5 conversation=one       -> granted 5
        settle   c2 5                             -> charged 0
        reserve  c3 acme 5 conversation=none      -> granted 5
        settle   c3 0                             -> charged 0
        reserve  c4 acme 5 conversation=two       -> granted 5
        settle   c4 5                             -> charged 0
        reserve  c5 acme 5 conversation=three     -> granted 5
        settle   c5 5                             -> charged 7
        spend    acme                             -> used 7 held 0
    """,
    "an_uncapped_tier_is_granted_a_finite_answer": """
        tier     basic
        customer acme basic
        reserve  c1 acme                          -> granted 16384
        reserve  c2 acme 99999999                 -> granted 16384
    """,
}


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("name", STORIES)
async def test_story(name: str, batches: bool, valkey_url: str) -> None:
    async with holds_harness(valkey_url, batches=batches) as harness:
        await harness.play(STORIES[name])


async def test_observing_meters_everything_and_refuses_and_charges_nothing(valkey_url: str) -> None:
    """A customer without a tier is served when the house only observes."""
    observing = HouseLimits(16_384, 131_072, 16, observes=True)
    async with holds_harness(valkey_url, house=observing) as harness:
        harness.customer("acme", None)
        await harness.play("""
            reserve  c1 acme 600                  -> granted 600
            settle   c1 450                       -> charged 0
            account  acme                         -> used 450 held 0
        """)

        (record,) = harness.records("acme")
        assert json.loads(record["record"])["tier"] is None


async def test_nobody_is_refused_for_what_was_only_remembered(valkey_url: str) -> None:
    """A key that was unknown, a customer without a tier: once it has one, the next call is served."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        with pytest.raises(InvalidKey):
            await harness.reserve("c1", "acme", 5)
        harness.customer("acme", None)
        with pytest.raises(NoTier):
            await harness.reserve("c2", "acme", 5)
        harness.customer("acme", "basic", rev=2)

        assert (await harness.reserve("c3", "acme", 5)).grant == 5


async def test_a_revoked_key_is_refused_at_once(valkey_url: str) -> None:
    """What a gateway remembers of a key never lets a call in."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        request = harness.request("c1", "acme", 5)
        await harness.admission.reserve(request, harness.in_doubt.append)
        harness.projection.put_keys([], [(request.bucket, request.key_digest)])

        with pytest.raises(InvalidKey):
            await harness.reserve("c2", "acme", 5)


async def test_reserving_again_with_the_same_id_holds_once(valkey_url: str) -> None:
    """redis-py repeats a command after a lost connection; the repetition gets the first answer."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=100)
        harness.customer("acme", "basic")
        first = await harness.reserve("c1", "acme", 60)
        again = await harness.reserve("c1", "acme", 60)

        assert again == first
        assert harness.window("acme")["held"] == 60


async def test_never_one_token_over_a_cap_quota_or_spend_limit(valkey_url: str) -> None:
    """400 calls at once at a quota that fits exactly 16 of them: 16 are granted."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=9_600 + 300, price_nanousd=1)
        harness.customer("acme", "basic")
        tried = await asyncio.gather(
            *(harness.reserve(f"c{number}", "acme", 600) for number in range(400)), return_exceptions=True
        )

        assert sum(not isinstance(one, BaseException) for one in tried) == 16
        assert all(isinstance(one, InsufficientQuota) for one in tried if isinstance(one, BaseException))
        assert harness.window("acme") == {"used": 0, "held": 9_600, "spend_used": 0, "spend_held": 16}


async def test_money_above_what_lua_writes_exactly_is_kept_to_the_nano_unit(valkey_url: str) -> None:
    """Lua writes 14 digits of a number; a price of 16 digits is charged to the last one."""
    price = 9_007_199_254_740_991
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", price_nanousd=price)
        harness.customer("acme", "basic")
        await harness.reserve("c1", "acme", 5)
        settled = await harness.settlements.settle(harness.holds["c1"], harness.outcome(5))

        assert settled.charge_nanousd == price
        assert harness.window("acme")["spend_used"] == price
        assert harness.records("acme")[0]["charge"] == str(price)


@pytest.mark.parametrize("was_charged", [False, True])
async def test_a_call_whose_conversation_is_over_counts_in_none_that_has_its_name(
    valkey_url: str, was_charged: bool
) -> None:
    """Its charge is that of the conversation it was admitted to; what is left of the other one stays as it is."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", conversation_tokens_max=100, price_nanousd=7)
        harness.customer("acme", "basic")
        if was_charged:
            await harness.reserve("c0", "acme", 10, conversation="talk")
            await harness.settlements.settle(harness.holds["c0"], harness.outcome(10))
        hold = await harness.reserve("c1", "acme", 40, conversation="talk")
        name = redis_keys.conversation(hold.facts.bucket, "acme", "talk")
        begun = replace(
            conversation_of(harness, name),
            first=hold.conversation_first + 1,
            used=5,
            held=0,
            was_charged=not was_charged,
        )
        harness.blocking.set(name, begun.to_bytes())
        settled = await harness.settlements.settle(hold, harness.outcome(30))

        assert (settled.charge_nanousd, settled.conversation_left) == (0 if was_charged else 7, None)
        assert conversation_of(harness, name) == begun
        assert harness.window("acme") == {
            "used": 40 if was_charged else 30,
            "held": 0,
            "spend_used": 7,
            "spend_held": 0,
        }


def conversation_of(harness: HoldsHarness, name: str) -> ConversationState:
    found = conversation_in(harness.blocking, name)
    assert found is not None
    return found


async def test_a_wiped_server_is_noticed_before_a_call_is_admitted(valkey_url: str) -> None:
    """Every script compares the generation; without the right one it answers 'rebuild' and changes nothing."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic")
        harness.customer("acme", "basic")
        await harness.reserve("c1", "acme", 5)
        bucket = harness.holds["c1"].facts.bucket
        harness.blocking.hset(redis_keys.state(bucket), "generation", "1")
        restored: list[str] = []

        async def restore(notify: object) -> str:
            restored.append("once")
            return await harness._restore(notify)

        harness.generation._restore = restore
        await harness.reserve("c2", "acme", 5)

        assert restored == ["once"]


async def test_no_clock_of_redis_ends_a_window(valkey_url: str) -> None:
    """Where it is set forward for a moment, what expires is gone: a quota would begin anew."""
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", period_tokens_max=1000)
        harness.customer("acme", "basic")
        first = await harness.reserve("c1", "acme", 10)
        window = redis_keys.window(first.facts.bucket, "acme", first.facts.period_start)
        await harness.settlements.settle(first, harness.outcome(10))

        assert harness.blocking.pttl(window) == -1
