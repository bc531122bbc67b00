"""Menus that are good on average where the market is not quite what it was taken to be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from pricing.aims import Aim, thinned
from pricing.answers import Floats
from pricing.demand import Crowd, crowd_of
from pricing.estimated import Estimated, estimated
from pricing.market import Market, read_market
from pricing.mechanism import enveloped, first_best, has_hull
from pricing.neighbourhood import Neighbourhood
from pricing.offers import Offer, cleaned, offer_of
from pricing.rounding import publish
from pricing.tiers import best_tiers
from pricing.worth import Valuation, valuation_of

LOWERED = (1.0, 0.985, 0.97, 0.95, 0.92, 0.88)
"""By what factors the prices of the mechanism's menus are lowered to begin with."""

DRAWS_WEIGHT = 3.0
"""What all draws of an estimate together count for beside all that is near its average, which counts for 1."""

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
    """

    name: str
    weight: float
    valuation: Valuation
    sigma: float


@dataclass(frozen=True, slots=True)
class Robust:
    """What a robust menu is judged over, ready to score offers.

    Attributes:
        near: the markets, the first one the market as it was taken.
        crowd: the types of all of them.
        centre: those of the first.
        floor: what a menu is to earn there; less counts twice. Nano-units.
    """

    near: tuple[Near, ...]
    crowd: Crowd
    centre: Crowd
    floor: float

    def average(self, offer: Offer) -> float:
        """Return what an offer earns on average, nano-units for each conversation offered."""
        return self.crowd.profit(offer)

    def score(self, _: Valuation, offer: Offer) -> float:
        """Return the average, less what is missing to the floor where the market is as it was taken."""
        if not len(offer.caps):
            return 0.0
        return self.average(offer) - max(0.0, self.floor - self.centre.profit(offer))

    def bound(self) -> float:
        """Return what no mechanism can earn on average, were it told which of the markets it is in."""
        return sum(one.weight * most_of(one.valuation, one.sigma) for one in self.near)

    def to_json(self, offer: Offer) -> dict[str, Any]:
        """Return what a menu earns in each of the markets, beside the best single plan made for that very market."""
        markets = []
        for one in self.near:
            crowd = crowd_of([(1.0, one.valuation, one.sigma, 0.0)])
            markets.append(
                {
                    "market": one.name,
                    "weight": round(one.weight, 12),
                    "profit_nanousd": round(crowd.profit(offer), 3),
                    "single_plan_profit_nanousd": round(best_single(crowd)[1], 3),
                }
            )
        return {
            "average_nanousd": round(self.average(offer), 3),
            "upper_bound_nanousd": round(self.bound(), 3),
            "markets": markets,
        }


def robust_of(market: Market, around: Neighbourhood, most: int) -> Robust:
    """Return what a robust menu of a market is judged over.

    An estimated market is judged over its draws, which count three times what is near its average does; there the value
    is what it is taken to be, not understated, and no profit is held to in any one market.

    Args:
        market: the market.
        around: how far it may be from what it was taken to be.
        most: how many tiers the menu may have.
    """
    beside = estimated(market)
    centre = thinned(valuation_of(market if beside is None else fully_valued(market, beside)))
    sigma = market.value_sigma
    listed = [(name, one, float(np.hypot(sigma, added))) for name, one, added in around.around(centre)]
    near = [Near(name, 1 / len(listed), one, spread) for name, one, spread in listed]
    if beside is not None and beside.draws:
        spread = beside.value.sigma if beside.value is not None else sigma
        each = DRAWS_WEIGHT / len(beside.draws)
        drawn = [thinned(valuation_of(draw)) for draw in beside.draws]
        near += [Near(f"draw {place}", each, one, spread) for place, one in enumerate(drawn, 1)]
        near = [replace(one, weight=one.weight / (1 + DRAWS_WEIGHT)) for one in near]
    floor = 0.0
    if beside is None:
        floor = (1 - around.loss_max) * best_tiers(centre, most)[-1].profit if not sigma else 0.0
    return Robust(
        near=tuple(near),
        crowd=crowd_of([(one.weight, one.valuation, one.sigma, market.taste_nanousd) for one in near]),
        centre=crowd_of([(1.0, centre, sigma, market.taste_nanousd)]),
        floor=floor,
    )


def fully_valued(market: Market, beside: Estimated) -> Market:
    """Return an estimated market with the value that it was taken to have, not understated."""
    if not beside.understated_by:
        return market
    given = json.loads(market.given)
    given["value_nanousd"] /= 1 - beside.understated_by
    return read_market(given)


def robust_aim(robust: Robust, most: int) -> Aim:
    """Return what to look for a robust menu by, beginning with the mechanism's menus at lower prices."""
    centre = robust.near[0].valuation
    return Aim(robust.score, tuple(lowered(centre, most)))


def lowered(valuation: Valuation, most: int) -> Sequence[Offer]:
    """Return the mechanism's menus of each number of tiers at prices that are lower in proportion."""
    exact = [offer_of(publish(valuation, menu.caps)) for menu in best_tiers(valuation, most)]
    offers = [cleaned(one.caps, np.floor(one.prices * factor).astype(np.int64)) for one in exact for factor in LOWERED]
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
