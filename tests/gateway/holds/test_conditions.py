"""A worker that has served a customer before serves it under what holds now: its terms, the menu, the period, the fee."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.clock import now_ms
from gateway.errors import CustomerBlocked, EndUserQuotaReached, InsufficientQuota, NoTier, TierNotFound
from gateway.holds.admission import Admission
from gateway.holds.conditions import Conditions
from gateway.holds.store.cache import LookupCache
from gateway.holds.terms import Customer, Increase, Subscription, period_of
from tests.gateway.holds.harness import HOUSE, LEASE, HoldsHarness, holds_harness

CAP = 100
DAY_MS = 86_400_000


async def warm(harness: HoldsHarness, **limits: int) -> None:
    """Have a worker serve a customer once."""
    harness.tier("basic", conversation_tokens_max=CAP, price_nanousd=7, **limits)
    harness.customer("acme", "basic", period="day")
    assert (await harness.reserve("warm", "acme", 10)).grant == 10


async def test_a_change_of_the_customer_holds_for_its_next_call(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await warm(harness)
        harness.put(replace(harness.customers["acme"], overrides={"conversation_tokens_max": 30}, rev=2))
        assert (await harness.reserve("c1", "acme", CAP)).grant == 30

        harness.put(replace(harness.customers["acme"], status="blocked", rev=3))
        with pytest.raises(CustomerBlocked):
            await harness.reserve("c2", "acme", CAP)
        harness.put(replace(harness.customers["acme"], status="active", tier=None, rev=4))
        with pytest.raises(NoTier):
            await harness.reserve("c3", "acme", CAP)


async def test_a_publication_holds_for_the_next_conversation_and_not_for_one_that_has_begun(valkey_url: str) -> None:
    """What has begun keeps its cap, its price and its version."""
    async with holds_harness(valkey_url) as harness:
        await warm(harness)
        began = await harness.reserve("c1", "acme", 10, conversation="talk")
        harness.tier("basic", conversation_tokens_max=30, price_nanousd=9, output_nanousd_per_mtok=1_000_000)

        goes_on = await harness.reserve("c2", "acme", CAP, conversation="talk")
        anew = await harness.reserve("c3", "acme", CAP)

        assert (goes_on.grant, anew.grant) == (CAP - began.grant, 30)
        assert (goes_on.facts.price_nanousd, anew.facts.price_nanousd) == (7, 9)
        assert (goes_on.facts.output_nanousd_per_mtok, anew.facts.output_nanousd_per_mtok) == (0, 1_000_000)
        assert goes_on.facts.menu_version == began.facts.menu_version != anew.facts.menu_version


async def test_own_prices_hold_for_the_next_conversation_and_not_for_one_that_has_begun(valkey_url: str) -> None:
    """A call in flight and a conversation keep their terms, also where the prices change again or go."""
    own = {"price_nanousd": 5, "output_nanousd_per_mtok": 2_000_000}

    async with holds_harness(valkey_url) as harness:
        await warm(harness)
        before = await harness.reserve("c1", "acme", 10, conversation="talk")
        harness.put(replace(harness.customers["acme"], overrides=own, rev=2))
        goes_on = await harness.reserve("c2", "acme", 10, conversation="talk")
        began = await harness.reserve("c3", "acme", 10, conversation="own")
        settled = await harness.settlements.settle(before, harness.outcome(10))
        harness.put(replace(harness.customers["acme"], overrides={"price_nanousd": 4}, rev=3))
        kept = await harness.reserve("c4", "acme", 10, conversation="own")
        harness.put(replace(harness.customers["acme"], overrides={}, rev=4))
        still = await harness.reserve("c5", "acme", 10, conversation="own")
        anew = await harness.reserve("c6", "acme", 10)

        assert settled.charge_nanousd == 7
        assert [one.facts.price_nanousd for one in (before, goes_on, began, kept, still, anew)] == [7, 7, 5, 5, 5, 7]
        assert began.facts.menu_version == f"{before.facts.menu_version}+c5,o2000000" == still.facts.menu_version
        assert still.facts.output_nanousd_per_mtok == 2_000_000
        assert (await harness.settlements.settle(began, harness.outcome(10))).charge_nanousd == 5 + 20
        assert (await harness.settlements.settle(still, harness.outcome(10))).charge_nanousd == 20


async def test_a_tier_that_a_caller_chooses_is_one_of_the_menu(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        await warm(harness)
        harness.tier("large", conversation_tokens_max=500)

        chosen = await harness.reserve("c1", "acme", 400, tier_chosen="large")
        usual = await harness.reserve("c2", "acme", 400)

        assert (chosen.grant, chosen.facts.tier, usual.grant, usual.facts.tier) == (400, "large", CAP, "basic")
        with pytest.raises(TierNotFound):
            await harness.reserve("c3", "acme", 400, tier_chosen="huge")


async def read_clock(harness: HoldsHarness, clock: Callable[[], int]) -> None:
    """Let admissions go by a worker's clock of this time, ms."""
    harness.admission = Admission(
        harness.connection,
        LookupCache(harness.connection),
        harness.generation,
        lease=LEASE,
        house=HOUSE,
        currency="USD",
        now_ms=clock,
    )
    await harness.admission.compare_clocks()


async def test_the_next_period_begins_with_nothing_used(valkey_url: str) -> None:
    """The worker has served it a day before, and knows its terms."""
    ahead_ms = 0

    async with holds_harness(valkey_url) as harness:
        await read_clock(harness, lambda: now_ms() + ahead_ms)
        await warm(harness, period_tokens_max=50)
        with pytest.raises(InsufficientQuota):
            await harness.reserve("c1", "acme", 50)
        ahead_ms = DAY_MS

        tomorrow = await harness.reserve("c2", "acme", 50)

        assert tomorrow.grant == 50
        assert tomorrow.facts.period_start == period_of(harness.customers["acme"], now_ms() + DAY_MS)[0]


@pytest.mark.parametrize(
    ("limit", "most", "more"),
    [("period_tokens_max", 50, 90), ("spend_nanousd_max", 60, 400), ("end_user_period_tokens_max", 50, 90)],
)
@pytest.mark.parametrize(("apart_ms", "is_over"), [(-3_000, True), (3_000, False)])
async def test_an_increase_ends_by_the_servers_clock(
    valkey_url: str, limit: str, most: int, more: int, apart_ms: int, is_over: bool
) -> None:
    """At the very next call of a worker that has served it before, and whose own clock says something else."""
    differs_ms = 0

    async with holds_harness(valkey_url) as harness:
        await read_clock(harness, lambda: now_ms() + differs_ms)
        await warm(harness, output_nanousd_per_mtok=1_000_000, **{limit: most})
        with pytest.raises((InsufficientQuota, EndUserQuotaReached)):
            await harness.reserve("c1", "acme", 45)
        differs_ms = apart_ms
        until = now_ms() + (-1_000 if is_over else 1_000)
        harness.put(replace(harness.customers["acme"], increase=Increase({limit: more}, until), rev=2))

        if is_over:
            with pytest.raises((InsufficientQuota, EndUserQuotaReached)):
                await harness.reserve("c2", "acme", 45)
        else:
            assert (await harness.reserve("c2", "acme", 45)).grant == 45


async def test_an_increase_never_lowers_what_applies_without_it(valkey_url: str) -> None:
    """A tier or an override that is above it by now applies, and what is not limited stays so."""
    async with holds_harness(valkey_url) as harness:
        await warm(harness, period_tokens_max=50)
        later = now_ms() + 600_000
        raised = Increase({"period_tokens_max": 70, "conversation_tokens_max": 20, "concurrency_max": 1}, later)
        harness.put(replace(harness.customers["acme"], increase=raised, rev=2))
        assert (await harness.reserve("c1", "acme", 60)).grant == 60
        with pytest.raises(InsufficientQuota):
            await harness.reserve("c2", "acme", 1)

        harness.put(replace(harness.customers["acme"], overrides={"period_tokens_max": 90}, rev=3))

        assert (await harness.reserve("c3", "acme", 20)).grant == 20


async def test_a_paid_period_holds_its_menu_until_its_last_millisecond(valkey_url: str) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", conversation_tokens_max=CAP)
        harness.tier("basic", conversation_tokens_max=30)
        start, until = now_ms() + 500_000, now_ms() + 1_000_000
        paid = Subscription("basic", "v1", start, until)
        harness.customer("acme", "basic", subscription=paid)
        cache = LookupCache(harness.connection)
        conditions = Conditions(cache, HOUSE)
        await cache.read_timeline()
        customer = await cache.customer("acme", fresh=True)
        assert customer is not None

        async def cap(moment: int) -> int:
            return (await conditions.of(customer, None, None, moment)).offer.conversation_tokens_max

        moments = (start - 1, start, until - 1, until)
        assert [await cap(moment) for moment in moments] == [30, CAP, CAP, 30]


async def test_what_was_worked_out_is_good_for_this_customer_as_it_is_and_these_publications_alone(
    valkey_url: str,
) -> None:
    async with holds_harness(valkey_url) as harness:
        harness.tier("basic", conversation_tokens_max=CAP)
        harness.customer("acme", "basic")
        cache = LookupCache(harness.connection)
        conditions = Conditions(cache, HOUSE)
        await cache.read_timeline()
        known = harness.customers["acme"]

        async def cap(customer: Customer) -> int:
            return (await conditions.of(customer, None, None, now_ms())).offer.conversation_tokens_max

        assert await cap(known) == CAP
        assert await cap(replace(known, overrides={"conversation_tokens_max": 30})) == 30
        assert await cap(known) == CAP
        harness.tier("basic", conversation_tokens_max=50)
        assert await cap(known) == CAP, "nobody has read the new publication yet"
        await cache.read_timeline()
        assert await cap(known) == 50
