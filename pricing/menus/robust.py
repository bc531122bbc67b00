"""Menus that are good on average where the market is not quite what it was taken to be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from pricing.market.answers import Floats
from pricing.market.estimated import Estimated, estimated
from pricing.market.market import Market, read_market
from pricing.market.neighbourhood import Neighbourhood
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.demand import Crowd, crowd_of
from pricing.mechanism.mechanism import enveloped, first_best, has_hull
from pricing.mechanism.offers import Offer, cleaned, offer_of
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.menus.aims import Aim, thinned

LOWERED = (1.0, 0.985, 0.97, 0.95, 0.92, 0.88)
"""By what factors the prices of the mechanism's menus are lowered to begin with."""

DRAWS_WEIGHT = 3.0
"""What all draws of an estimate together count for beside all that is near its average, which counts for 1."""

CENTRE_WEIGHTS = (0.2, 0.5, 0.8, 0.93)
"""What the market as it was taken counts for where menus of several markets together are begun with."""

BOUND_WEIGHTS = tuple(2.0 ** (place / 2) for place in range(-12, 3))
"""What another market counts for beside the market as it was taken, to bound what a menu may earn in both."""

MISSING_WEIGHT = 3.0
"""What a nano-unit that is missing in one market counts for beside one of the average."""

STARTS = 8
"""How many offers the search begins with."""

HELD = 1e-9
"""What may be missing of the average where a menu counts as held to: what rounding could do."""

SINGLE_PRICES = 61
"""How many prices below a type's worth are tried for a single plan where customers of one urgency differ."""


@dataclass(frozen=True, slots=True)
class Near:
    """One of the markets that a menu is judged over.

    Attributes:
        name: what is different about it.
        weight: what it counts for, adding up to 1 over all.
        valuation: the market.
        sigma: standard deviation of the logarithm of the value between customers of one urgency.
        single: profit of the single plan that is best in it, nano-units for each conversation offered.
        least: what a menu is held to earn in it, 0 for nothing.
    """

    name: str
    weight: float
    valuation: Valuation
    sigma: float
    single: float
    least: float


@dataclass(frozen=True, slots=True)
class Robust:
    """What a robust menu is judged over, ready to score offers.

    Attributes:
        near: the markets, the first one the market as it was taken.
        crowd: the types of all of them, market by market.
        exact: what the most profitable menu earns in the first, None where only a search could tell. Nano-units.
        most: how many tiers a menu may have.
    """

    near: tuple[Near, ...]
    crowd: Crowd
    exact: float | None
    most: int

    def profits(self, offer: Offer) -> Floats:
        """Return what an offer earns in each of the markets, nano-units for each conversation offered. Shape (markets,)."""
        sizes = [len(one.valuation.share) for one in self.near]
        first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        profits: Floats = np.add.reduceat(self.crowd.earned(offer), first) / [one.weight for one in self.near]
        return profits

    def average(self, profits: Floats) -> float:
        """Return what is earned on average over the markets, by their weights."""
        return float(np.dot(profits, [one.weight for one in self.near]))

    def score(self, _: Valuation, offer: Offer) -> float:
        """Return the average, less several times what is missing in any market to what a menu is held to earn there."""
        if not len(offer.caps):
            return 0.0
        profits = self.profits(offer)
        return self.average(profits) - MISSING_WEIGHT * float(self.missing(profits).sum())

    def missing(self, profits: Floats) -> Floats:
        """Return what is missing in each market. Shapes (markets,)."""
        return np.maximum(0.0, np.array([one.least for one in self.near]) - profits)

    def bound(self) -> float:
        """Return what no mechanism can earn on average, were it told which of the markets it is in."""
        return sum(one.weight * most_of(one.valuation, one.sigma) for one in self.near)

    def to_json(self, offer: Offer) -> dict[str, Any]:
        """Return what a menu earns in each of the markets, beside the best single plan made for that very market."""
        profits = self.profits(offer)
        markets = [
            {
                "market": one.name,
                "weight": round(one.weight, 12),
                "profit_nanousd": round(profit, 3),
                "single_plan_profit_nanousd": round(one.single, 3),
            }
            for one, profit in zip(self.near, profits.tolist(), strict=True)
        ]
        return {
            "average_nanousd": round(self.average(profits), 3),
            "upper_bound_nanousd": round(self.bound(), 3),
            "markets": markets,
            "held": self._held(profits),
        }

    def _held(self, profits: Floats) -> dict[str, Any]:
        """Return whether the menu earns what it is held to, and if not, what no menu of as many tiers that does exceeds."""
        is_held = bool(self.missing(profits).sum() <= HELD * abs(self.average(profits)))
        most = None if is_held or self.exact is None else self.as_taken_at_most()
        return {
            "all": is_held,
            "as_taken_share": None if not self.exact else round(float(profits[0]) / self.exact, 12),
            "as_taken_share_at_most": None if most is None or not self.exact else round(most / self.exact, 12),
        }

    def as_taken_at_most(self) -> float:
        """Return what no menu that is held to the least elsewhere earns in the market as it was taken, nano-units.

        For any weight w >= 0, a menu that earns p as taken and at least l in another market has p + w l at most the
        most that p + w p' can be, p' being its profit in the other. That is the profit of the best menu for the types
        of both, if they can be put in one order: an exact program again. The least over some weights and markets.
        """
        assert self.exact is not None
        centre, found = self.near[0].valuation, [self.exact]
        for one in self.near[1:]:
            if one.least and is_one_kind(centre, one):
                for weight in BOUND_WEIGHTS:
                    both = together(
                        centre, [(1.0, 1.0), (weight, one.valuation.urgency_per_s[0] / centre.urgency_per_s[0])]
                    )
                    found.append((1 + weight) * best_tiers(both, self.most)[-1].profit - weight * one.least)
        return min(found)


def is_one_kind(centre: Valuation, one: Near) -> bool:
    """Return whether a market has the same lengths and values as another, so that all types are in one order."""
    return one.sigma == 0 and one.valuation.steps is centre.steps and bool(np.ptp(centre.value) == 0)


def together(valuation: Valuation, parts: Sequence[tuple[float, float]]) -> Valuation:
    """Return the types of a market and of those near it, by weights, as one market.

    Args:
        valuation: n types of one value.
        parts: of each market its weight and by what factor urgency is larger in it.
    """
    total = sum(weight for weight, _ in parts)
    urgency = np.concatenate([valuation.urgency_per_s * factor for _, factor in parts])
    share = np.concatenate([valuation.share * (weight / total) for weight, _ in parts])
    order = np.argsort(urgency, kind="stable")
    return replace(
        valuation,
        urgency_per_s=urgency[order],
        share=share[order],
        cumulative=np.cumsum(share[order]),
        value=np.full(len(order), valuation.value[0]),
        kept=None,
    )


def robust_of(market: Market, around: Neighbourhood, most: int) -> Robust:
    """Return what a robust menu of a market is judged over.

    An estimated market is judged over its draws, which count three times what is near its average does; there the value
    is what it is taken to be, not understated, and no profit is held to in any one market.

    Args:
        market: the market.
        around: how far it may be from what it was taken to be, and what a menu is held to.
        most: how many tiers the menu may have.
    """
    beside = estimated(market)
    centre = thinned(valuation_of(market if beside is None else fully_valued(market, beside)))
    sigma, taste = market.value_sigma, market.taste_nanousd
    exact = None if beside is not None or sigma or taste else best_tiers(centre, most)[-1].profit
    listed = [(name, one, float(np.hypot(sigma, added))) for name, one, added in around.around(centre)]
    near = [_near(name, 1 / len(listed), one, spread, taste) for name, one, spread in listed]
    if beside is None:
        near = [replace(one, least=around.single_share_min * one.single) for one in near]
        near[0] = replace(near[0], least=(1 - around.loss_max) * exact if exact is not None else 0.0)
    elif beside.draws:
        spread = beside.value.sigma if beside.value is not None else sigma
        each = DRAWS_WEIGHT / len(beside.draws)
        drawn = [thinned(valuation_of(draw)) for draw in beside.draws]
        near += [_near(f"draw {place}", each, one, spread, taste) for place, one in enumerate(drawn, 1)]
        near = [replace(one, weight=one.weight / (1 + DRAWS_WEIGHT)) for one in near]
    crowd = crowd_of([(one.weight, one.valuation, one.sigma, taste) for one in near])
    return Robust(tuple(near), crowd, exact, most)


def _near(name: str, weight: float, valuation: Valuation, sigma: float, taste: float) -> Near:
    return Near(name, weight, valuation, sigma, best_single(crowd_of([(1.0, valuation, sigma, taste)]))[1], 0.0)


def fully_valued(market: Market, beside: Estimated) -> Market:
    """Return an estimated market with the value that it was taken to have, not understated."""
    if not beside.understated_by:
        return market
    given = json.loads(market.given)
    given["value_nanousd"] /= 1 - beside.understated_by
    return read_market(given)


def robust_aim(robust: Robust) -> Aim:
    """Return what to look for a robust menu by: the best of some offers to begin with.

    These are the mechanism's menus at lower prices, of the market as it was taken and of all those that differ in
    urgency or pace alone, put together by several weights: there the average has an exact optimum.
    """
    centre = robust.near[0].valuation
    starts = list(lowered(centre, robust.most, LOWERED))
    alike = [one for one in robust.near[1:] if is_one_kind(centre, one)]
    for weight in CENTRE_WEIGHTS if alike else ():
        rest = (1 - weight) / len(alike)
        factors = [(rest, float(one.valuation.urgency_per_s[0] / centre.urgency_per_s[0])) for one in alike]
        starts += lowered(together(centre, [(weight, 1.0), *factors]), robust.most, (1.0, 0.97, 0.93))
    return Aim(robust.score, tuple(sorted(starts, key=lambda one: (-robust.score(centre, one), one.key))[:STARTS]))


def lowered(valuation: Valuation, most: int, factors: Sequence[float]) -> Sequence[Offer]:
    """Return the mechanism's menus of each number of tiers at prices that are lower in proportion."""
    exact = [offer_of(publish(valuation, menu.caps)) for menu in best_tiers(valuation, most)]
    offers = [cleaned(one.caps, np.floor(one.prices * factor).astype(np.int64)) for one in exact for factor in factors]
    return [one for one in {one.key: one for one in offers}.values() if len(one.caps)]


def best_single(crowd: Crowd) -> tuple[int, float]:
    """Return the price of the best single plan without a cap, and its profit; 0 and 0 where none earns."""
    last = crowd.worth.shape[1] - 1
    worth = np.unique(crowd.worth[:, last])
    if len(worth) > 24:
        worth = worth[np.unique(np.linspace(0, len(worth) - 1, 24).round().astype(int))]
    factors: Floats = np.linspace(0.7, 1.05, SINGLE_PRICES) if crowd.sigma.any() or crowd.taste.any() else np.ones(1)
    best = (0, 0.0)
    for price in np.unique(np.floor(worth[:, None] * factors)).astype(np.int64).tolist():
        if price >= 1:
            earned = crowd.profit(Offer(np.array([last]), np.array([price])))
            best = max(best, (price, earned), key=lambda one: one[1])
    return best


def most_of(valuation: Valuation, sigma: float = 0.0, taste: float = 0.0, tiers: int = 0) -> float:
    """Return what no mechanism that is paid at the start can earn in a market, quickly: not always the least bound.

    Without cost, and with exponential delay, it is the profit of the full menu; else the first best. A dispersion of
    value adds nothing without cost, for the mean stays; with cost the bound is convex in the value and 0 at 0, so it
    lies below its chord up to the mean and below the bound without cost beyond. Tastes add at most what the best of
    ``tiers`` + 1 extreme-value shocks is above the mean of one.
    """
    most = enveloped(valuation) if has_hull(valuation) else first_best(valuation)
    if sigma and valuation.cost_per_token:
        # E[(z - 1)^+] of a lognormal z of mean 1.
        beyond = float(ndtr(sigma / 2) - ndtr(-sigma / 2))
        most += beyond * first_best(replace(valuation, cost_per_token=0.0))
    return most + taste * float(np.log(tiers + 1))
