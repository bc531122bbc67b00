"""Choosing a menu when the market is not known exactly: the profit of each candidate over many possible markets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.fields import NotAMarket
from pricing.market.market import Market, read_market
from pricing.market.worth import Valuation, tokens_at, valuation_of, worth_at
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.rounding import Published, publish
from pricing.mechanism.tiers import best_tiers

DISCOUNTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
"""Shares by which the value of an answer is understated, so that the menu still sells where customers value less."""

FINE_DISCOUNTS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)

TIERS: tuple[int | None, ...] = (1, 2, 3, 4, None)
"""Numbers of tiers that are tried by default; None is the full menu."""

LOW = 5
"""The percentile of the profits that represents a bad case."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that earns the most on average over the markets.

    Attributes:
        market: the market whose optimal menu is the candidate, as ``market.json``: one of the markets, its value
            understated.
        draw: the number of that market, from 0.
        discount: the share by which its value is understated.
        mean: average profit over the markets, nano-units for each conversation offered.
        low: the 5th percentile of the profits.
        profits: profit in each market, nano-units. Shape (draws,).
        certain: average profit if the menu could be chosen after the market is known; less ``mean``, it is the value of
            knowing the market.
    """

    market: dict[str, Any]
    draw: int
    discount: float
    mean: float
    low: float
    profits: Floats
    certain: float


def best_on_average(
    markets: Sequence[Market], *, tiers: int | None = None, discounts: Sequence[float] = DISCOUNTS
) -> Choice:
    """Return the menu that earns the most on average over equally likely markets, such as bootstrap draws.

    Candidates are the optimal menus of the markets themselves, and of the same markets with the value of an answer
    understated. Where serving costs nothing, that lowers every price in proportion and leaves the caps unchanged. In
    each market every type chooses freely.

    Args:
        markets: equally likely markets of one currency.
        tiers: the most tiers; None is the full menu.
        discounts: the shares by which values are understated, each in [0, 1).

    Raises:
        NotAMarket: there is no market, or the markets differ in currency.
    """
    if not markets or len({market.currency for market in markets}) > 1:
        raise NotAMarket("Choosing under uncertainty takes at least one market, all of one currency.")
    candidates = [
        (draw, discount, _menu_of(_discounted(market, discount), tiers))
        for draw, market in enumerate(markets)
        for discount in discounts
    ]
    profits = np.empty((len(candidates), len(markets)))
    for draw, market in enumerate(markets):
        valuation = valuation_of(market)
        for row, (_, _, menu) in enumerate(candidates):
            profits[row, draw] = profit_of(valuation, *menu)
    best = int(profits.mean(axis=1).argmax())
    draw, discount, _ = candidates[best]
    undiscounted = np.arange(len(markets)) * len(discounts) + int(np.argmin(discounts))
    return Choice(
        market=json.loads(_discounted(markets[draw], discount).given),
        draw=draw,
        discount=discount,
        mean=float(profits[best].mean()),
        low=float(np.percentile(profits[best], LOW)),
        profits=profits[best],
        certain=float(np.mean(profits[undiscounted, np.arange(len(markets))])),
    )


@dataclass(frozen=True, slots=True)
class Understated:
    """A market whose value is understated so that its menu earns the most on average over the draws.

    Attributes:
        market: as ``market.json``.
        discount: the share by which its value is understated.
        tiers: the most tiers of the menu; None is the full menu.
        mean: average profit of its menu over the draws, nano-units for each conversation offered.
        low: the 5th percentile of the profits.
    """

    market: dict[str, Any]
    discount: float
    tiers: int | None
    mean: float
    low: float


def understated(
    market: Market,
    draws: Sequence[Market],
    *,
    tiers: Sequence[int | None] = TIERS,
    discounts: Sequence[float] = FINE_DISCOUNTS,
) -> Understated:
    """Return the best discount and number of tiers for a market that is known only up to equally likely draws.

    The distribution of urgency may be averaged over the draws, because profit is linear in it. Lengths and pace may
    not: where answers are a little longer than assumed, each type's worth is a little below a price that takes all of
    the assumed worth. With an understated value, prices take less than all of the worth; where serving costs nothing,
    the caps stay the same. Uncertainty costs menus of few tiers less than menus of many.

    Args:
        market: the average.
        draws: equally likely markets of the same currency.
        tiers: candidates for the largest number of tiers; None is the full menu. Of equally good candidates, the first
            wins.
        discounts: the shares by which the value may be understated, each in [0, 1).
    """
    lowered = [_discounted(market, discount) for discount in discounts]
    menus, caps = list[tuple[Ints, Floats]](), list[Ints]()
    for valuation in map(valuation_of, lowered):
        # Where serving costs nothing, profit is proportional to the value, so the best caps are the same.
        caps = _caps_of(valuation, tiers) if valuation.cost_per_token or not caps else caps
        menus += [_sold(valuation, by_type) for by_type in caps]
    profits = np.empty((len(menus), len(draws)))
    for column, draw in enumerate(draws):
        profits[:, column] = _profits_of(valuation_of(draw), menus)
    best = int(profits.mean(axis=1).argmax())
    discount_index, tiers_index = divmod(best, len(tiers))
    return Understated(
        market=json.loads(lowered[discount_index].given),
        discount=discounts[discount_index],
        tiers=tiers[tiers_index],
        mean=float(profits[best].mean()),
        low=float(np.percentile(profits[best], LOW)),
    )


def profit_of(valuation: Valuation, caps_tokens: Ints, prices: Floats) -> float:
    """Return the profit of a menu in a market where every type takes the tier with its largest gain, or none.

    Args:
        valuation: n types, m steps.
        caps_tokens: caps in tokens, rising. Shape (k,).
        prices: prices, nano-units. Shape (k,).

    Returns:
        Nano-units for each conversation offered. Of equally good tiers, the larger is taken.
    """
    return float(_profits_of(valuation, [(caps_tokens, prices)])[0])


def _profits_of(valuation: Valuation, menus: Sequence[tuple[Ints, Floats]]) -> Floats:
    """Return the profit of each menu, as ``profit_of`` does; the worth of each cap to each type is computed once."""
    caps_offered = np.unique(np.concatenate([caps for caps, _ in menus]))
    steps = np.searchsorted(valuation.steps.tokens, caps_offered, side="right")
    worth = worth_at(valuation, steps)
    costs = tokens_at(valuation, steps) * valuation.cost_per_token if valuation.cost_per_token else None
    rows = np.arange(len(worth))
    profits = np.empty(len(menus))
    for number, (caps, prices) in enumerate(menus):
        places = np.searchsorted(caps_offered, caps)
        gains = worth[:, places] - prices
        choice = gains.shape[1] - 1 - gains[:, ::-1].argmax(axis=1)
        margin = prices[choice] - (0.0 if costs is None else costs[rows, places[choice]])
        profits[number] = np.dot(valuation.share, np.where(gains[rows, choice] >= 0, margin, 0.0))
    return profits


def _menu_of(market: Market, tiers: int | None) -> tuple[Ints, Floats]:
    valuation = valuation_of(market)
    return _sold(valuation, _caps_of(valuation, (tiers,))[0])


def _caps_of(valuation: Valuation, tiers: Sequence[int | None]) -> list[Ints]:
    """Return the best caps by type for each number of tiers."""
    by_tiers = best_tiers(valuation, max((number for number in tiers if number is not None), default=1))
    return [
        full_menu(valuation).caps if number is None else by_tiers[min(number, len(by_tiers)) - 1].caps
        for number in tiers
    ]


def _sold(valuation: Valuation, by_type: Ints) -> tuple[Ints, Floats]:
    """Return the menu that sells caps: caps in tokens and prices."""
    published: Published = publish(valuation, by_type)
    limits = [valuation.steps.cap_tokens(cap) for cap in published.caps.tolist()]
    tokens = [np.iinfo(np.int64).max if limit is None else limit for limit in limits]
    return np.array(tokens, dtype=np.int64), published.prices.astype(np.float64)


def _discounted(market: Market, discount: float) -> Market:
    """Return the same market with every value understated."""
    if discount == 0:
        return market
    fields = json.loads(market.given)
    for owner in (fields, *fields.get("types", ())):
        if "value_nanousd" in owner:
            owner["value_nanousd"] *= 1 - discount
    if "value_by_urgency" in fields:
        values = fields["value_by_urgency"]["value_nanousd"]
        fields["value_by_urgency"]["value_nanousd"] = [value * (1 - discount) for value in values]
    return read_market(fields)
