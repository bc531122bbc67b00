"""The condition under which a customer's calls are admitted: computed once, valid until one of its inputs changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from struct import Struct
from typing import Any

from gateway.errors import CustomerBlocked, NoTier, TierNotFound
from gateway.holds.offer import HouseLimits, Offer, offer, raised
from gateway.holds.store import packing
from gateway.holds.store.cache import LookupCache, Remembered
from gateway.holds.terms import Customer, Standing, Timeline, period_of, standing
from pricing.menus.menu import split_version

NUMBERS = Struct("<11d")


@dataclass(frozen=True, slots=True)
class Condition:
    """The terms of a call and the period in which the call counts."""

    offer: Offer
    period: tuple[int, int]
    holds: tuple[int, int]
    """The part of the period in which the terms hold: the end of an increase divides a period, to the millisecond."""
    packed_arguments: bytes
    """The terms and when they hold, packed as the script that reserves reads them."""
    facts: dict[str, Any]
    """The facts that are the same for every call under this condition."""

    @classmethod
    def of(
        cls, customer: Customer, offered: Offer, period: tuple[int, int], holds: tuple[int, int], house: HouseLimits
    ) -> Condition:
        numbers = (
            *holds,
            offered.conversation_tokens_max,
            offered.price_nanousd,
            house.grant_tokens_min,
            *(math.inf if limit is None else limit for limit in (offered.period_tokens_max, offered.spend_nanousd_max)),
            _limit(offered.conversation_input_tokens_max),
            -1 if offered.requests_per_minute is None else offered.requests_per_minute,
            _limit(offered.concurrency_max),
            _limit(offered.end_user_period_tokens_max),
        )
        packed = NUMBERS.pack(*numbers) + packing.texts(offered.tier, offered.version)
        return cls(offered, period, holds, packed, _facts(customer, offered, period, house))


def _facts(customer: Customer, offered: Offer, period: tuple[int, int], house: HouseLimits) -> dict[str, Any]:
    start, end = period
    return {
        "customer": customer.id,
        "tier": offered.tier or None,
        "menu_version": offered.version or None,
        "price_nanousd": offered.price_nanousd,
        "included_conversations": offered.included_conversations,
        "input_nanousd_per_mtok": offered.input_nanousd_per_mtok,
        "output_nanousd_per_mtok": offered.output_nanousd_per_mtok,
        "conversation_tokens_max": offered.conversation_tokens_max,
        "period_start": start,
        "period_end": end,
        "period_tokens_max": offered.period_tokens_max,
        "spend_nanousd_max": offered.spend_nanousd_max,
        "hangup_bills": offered.hangup_bills,
        "notice_percents": house.notice_percents if customer.notice_percents is None else customer.notice_percents,
    }


def _limit(limit: int | None) -> float:
    return packing.MOST if limit is None else limit


@dataclass(frozen=True, slots=True)
class _Computed:
    """A condition and its inputs; the condition is valid from ``since`` until before ``until``."""

    condition: Condition
    customer: Customer
    timeline: Timeline
    since: int
    until: float


class Conditions:
    """Remembers a condition for each customer and each tier that its callers choose."""

    def __init__(self, cache: LookupCache, house: HouseLimits) -> None:
        self._cache = cache
        self._house = house
        self._computed: Remembered[tuple[str, str | None], _Computed] = Remembered(100_000)

    async def of(
        self, customer: Customer, tier_chosen: str | None, begun: tuple[str, str] | None, now: int
    ) -> Condition:
        """Return the condition in force now: the tier's limits, and the prices of the conversation.

        These are the prices of the tier and menu version with which the conversation was ``begun``, or the present
        prices where that is None.

        Raises:
            CustomerBlocked, NoTier, TierNotFound: the customer, or the tier that it chose, allows no call.
        """
        timeline = self._cache.timeline
        key = (customer.id, tier_chosen)
        cached = self._computed.get(key)
        if (
            cached is None
            or cached.customer is not customer
            or cached.timeline is not timeline
            or not cached.since <= now < cached.until
        ):
            cached = await self._compute(customer, timeline, tier_chosen, now)
            self._computed.put(key, cached)
        offered = cached.condition.offer
        if begun is None or begun == (offered.tier, offered.version):
            return cached.condition
        current, repriced = cached.condition, await self._at_begun_prices(offered, *begun)
        return Condition.of(customer, repriced, current.period, current.holds, self._house)

    async def _compute(self, customer: Customer, timeline: Timeline, tier_chosen: str | None, now: int) -> _Computed:
        if customer.status != "active":
            raise CustomerBlocked("This customer is blocked.")
        current = standing(customer, timeline, now)
        tier_name = tier_chosen or current.tier
        menu = await self._cache.menu(current.version) if current.version else None
        tier = menu.tier(tier_name) if menu and tier_name else None
        if tier is None and tier_chosen:
            raise TierNotFound(f"There is no tier called {tier_chosen}.", param="X-Tokencap-Tier")
        if tier is None and not self._house.observes:
            raise NoTier("This customer has no tier; the operator sets one.")
        offered = raised(offer(tier, current.version, customer.overrides, self._house), customer.raised(now))
        period = period_of(customer, now)
        condition = Condition.of(customer, offered, period, _part(period, customer, now), self._house)
        return _Computed(condition, customer, timeline, now, _until(customer, current, period, now))

    async def _at_begun_prices(self, offered: Offer, name: str, version: str) -> Offer:
        base, own_prices = split_version(version)
        menu = await self._cache.menu(base) if base else None
        begun = offer(menu.tier(name) if menu else None, base, own_prices, self._house)
        return replace(
            offered,
            tier=name,
            version=version,
            price_nanousd=begun.price_nanousd,
            included_conversations=begun.included_conversations,
            input_nanousd_per_mtok=begun.input_nanousd_per_mtok,
            output_nanousd_per_mtok=begun.output_nanousd_per_mtok,
        )


def _part(period: tuple[int, int], customer: Customer, now: int) -> tuple[int, int]:
    """Return the part of a period in which ``now`` falls: up to the end of an increase, or from there on."""
    start, end = period
    if customer.increase is None:
        return period
    until = customer.increase.until
    return (start, min(end, until)) if now < until else (max(start, until), end)


def _until(customer: Customer, current: Standing, period: tuple[int, int], now: int) -> float:
    """Return the first moment after ``now`` at which the condition may change."""
    next_change = math.inf if current.next is None else current.next.effective
    subscription = customer.subscription
    moments = (
        [] if subscription is None else [moment for moment in (subscription.start, subscription.until) if moment > now]
    )
    if customer.increase is not None and customer.increase.until > now:
        moments.append(customer.increase.until)
    return min(period[1], next_change, *moments)
