"""The limits and prices of a call, from its tier and the customer's overrides: plain numbers, decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.settings import Settings
from pricing.menus.menu import Tier, own_prices, own_version
from pricing.money import metered, metered_bound


@dataclass(frozen=True, slots=True)
class HouseLimits:
    """The installation's own limits, from its settings; they hold for every tier."""

    answer_tokens_max: int
    conversation_tokens_max: int
    grant_tokens_min: int
    observes: bool
    requests_per_minute: int | None = None
    """Applies to every customer whose tier and overrides set no such limit; so does the next field."""
    concurrency_max: int | None = None
    notice_percents: tuple[int, ...] | None = None
    """The percentages of a limit at which the webhook is notified, where they are not 80 and 100."""

    @classmethod
    def of(cls, settings: Settings) -> HouseLimits:
        """Return the limits in the settings."""
        return cls(
            answer_tokens_max=settings.answer_tokens_max,
            conversation_tokens_max=settings.conversation_tokens_max,
            grant_tokens_min=settings.grant_tokens_min,
            observes=settings.mode == "observe",
            requests_per_minute=settings.requests_per_minute,
            concurrency_max=settings.concurrency_max,
            notice_percents=None if settings.notice_percents == (80, 100) else settings.notice_percents,
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The terms of one call. ``None`` is no limit; the conversation's cap is always finite."""

    tier: str
    version: str
    conversation_tokens_max: int
    price_nanousd: int
    included_conversations: int
    input_nanousd_per_mtok: int
    output_nanousd_per_mtok: int
    period_tokens_max: int | None
    conversation_input_tokens_max: int | None
    spend_nanousd_max: int | None
    requests_per_minute: int | None
    concurrency_max: int | None
    end_user_period_tokens_max: int | None
    """The tokens of the period that each end user of the customer may have."""
    hangup_bills: str | None = None
    """How the tier bills an answer whose caller hung up; None means the installation's setting."""


def raised(offered: Offer, limits: Mapping[str, int]) -> Offer:
    """Return an offer whose limits are at least those in ``limits``; a limit that is None stays None."""
    current = {name: getattr(offered, name) for name in limits}
    return replace(offered, **{name: max(limit, limits[name]) for name, limit in current.items() if limit is not None})


def offer(tier: Tier | None, version: str | None, overrides: Mapping[str, int], house: HouseLimits) -> Offer:
    """Return the terms of a tier for one customer.

    In observe mode nothing is capped and nothing charged; only then may a customer have no tier.
    """
    cap = None if tier is None else overrides.get("conversation_tokens_max", tier.conversation_tokens_max)
    if tier is None or house.observes:
        name, version = (tier.name if tier else ""), version or ""
        return Offer(name, version, house.conversation_tokens_max, 0, 0, 0, 0, None, None, None, None, None, None)
    customer_prices = own_prices(overrides)
    if customer_prices:
        tier = tier.with_prices(customer_prices)
    return Offer(
        tier=tier.name,
        version=own_version(version or "", customer_prices),
        conversation_tokens_max=house.conversation_tokens_max if cap is None else cap,
        price_nanousd=tier.price_nanousd,
        included_conversations=tier.included_conversations or 0,
        input_nanousd_per_mtok=tier.input_nanousd_per_mtok or 0,
        output_nanousd_per_mtok=tier.output_nanousd_per_mtok or 0,
        period_tokens_max=overrides.get("period_tokens_max", tier.period_tokens_max),
        conversation_input_tokens_max=overrides.get(
            "conversation_input_tokens_max", tier.conversation_input_tokens_max
        ),
        spend_nanousd_max=overrides.get("spend_nanousd_max", tier.spend_nanousd_max),
        requests_per_minute=_else(
            overrides.get("requests_per_minute", tier.requests_per_minute), house.requests_per_minute
        ),
        concurrency_max=_else(overrides.get("concurrency_max", tier.concurrency_max), house.concurrency_max),
        end_user_period_tokens_max=overrides.get("end_user_period_tokens_max", tier.end_user_period_tokens_max),
        hangup_bills=tier.hangup_bills,
    )


def _else(limit: int | None, house: int | None) -> int | None:
    return house if limit is None else limit


@dataclass(slots=True)
class Charge:
    """The cost of a call that carries its conversation's price, and of a call that does not."""

    first: int
    again: int


NOTHING = Charge(0, 0)


def charge(
    price: int, input_rate: int, output_rate: int, *, tokens: int, input_tokens: int, owes_input: bool = False
) -> Charge:
    """Return the charge of a call that was billed ``tokens`` of output: without an output token there is no charge.

    Only a call that ``owes_input`` is then charged for its input.
    """
    if tokens == 0 and not owes_input:
        return NOTHING
    by_meter = metered(tokens, output_rate) + metered(input_tokens, input_rate)
    return Charge(price + by_meter if tokens else by_meter, by_meter)


def charge_bound(price: int, input_rate: int, output_rate: int, *, tokens: int, input_tokens: int) -> Charge:
    """Return the most that a call of up to ``tokens`` costs: the amount held of the customer's spend."""
    by_meter = metered_bound(tokens, output_rate) + metered_bound(input_tokens, input_rate)
    return Charge(price + by_meter, by_meter)
