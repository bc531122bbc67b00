"""Menus that earn much on average over the assumed market and the markets near it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pricing.market.answers import Floats, Ints
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
from pricing.menus.held import HELD, Near, claims_of, is_one_kind, together

LOWERED = (1.0, 0.985, 0.97, 0.95, 0.92, 0.88)
"""The factors by which the prices of the mechanism's menus are lowered at the start of a search."""

DRAWS_WEIGHT = 3.0
"""The weight of all draws of an estimate together; the market of its average and those near it weigh 1 together."""

CENTRE_WEIGHTS = (0.2, 0.5, 0.8, 0.93)
"""Weights of the assumed market in the combined markets from whose menus the search starts."""

MISSING_WEIGHT = 3.0
"""The weight of a nano-unit of shortfall in one market, against a nano-unit of the average over the markets without the
draws."""

STARTS = 8
"""How many of the mechanism's offers the search starts with."""

UNDERCUT_WEIGHT = 100.0
"""The weight of an offer's shortfall from the single plan of one price, so large that no offer that falls short is
chosen."""

SINGLE_PRICES = 61
"""How many prices around each worth are tried for a single plan where customers of one urgency differ."""


@dataclass(frozen=True)
class Robust:
    """The markets over which a robust menu is judged, ready to score offers.

    Attributes:
        near: the markets, the assumed market first.
        crowd: the types of all markets, market by market.
        around: how far the markets differ, and the least shares of profit that are wanted.
        exact: profit of the assumed market's best menu, nano-units; None where no formula gives it.
        most: the most tiers of a menu.
        one_price: the price, in nano-units, of the single plan that earns the most on average over the assumed market
            and the markets near it; 0 where no single plan earns anything.
        floors: the profit of that plan in each market, nano-units. Shape (markets,).
    """

    near: tuple[Near, ...]
    crowd: Crowd
    around: Neighbourhood
    exact: float | None
    most: int
    one_price: int
    floors: Floats

    @cached_property
    def weights(self) -> Floats:
        """Return the weights of all markets. Shape (markets,)."""
        return np.array([market.weight for market in self.near])

    @cached_property
    def near_weights(self) -> Floats:
        """Return the weights of the assumed market and the markets near it, and 0 for draws. Shape (markets,)."""
        return np.array([0.0 if market.is_draw else market.weight for market in self.near])

    @property
    def single_plan(self) -> Offer:
        """Return the single plan of one price, or an offer without tiers where no single plan earns anything."""
        tiers = 1 if self.one_price else 0
        return Offer(np.full(tiers, self.crowd.worth.shape[1] - 1), np.full(tiers, self.one_price))

    def profits(self, offer: Offer) -> Floats:
        """Return an offer's profit in each market, nano-units for each conversation offered. Shape (markets,)."""
        profits: Floats = np.add.reduceat(self.crowd.earned(offer), self._first_types) / self.weights
        return profits

    def average(self, profits: Floats) -> float:
        """Return the average profit over the markets, by their weights."""
        return float(np.dot(profits, self.weights))

    def score(self, _: Valuation, offer: Offer) -> float:
        """Return the average profit, less several times the shortfall from the least profit in each market.

        An offer that falls short of the single plan of one price scores below all offers that do not.
        """
        profits = self.profits(offer)
        weight = MISSING_WEIGHT * float(self.near_weights.sum())
        score = self.average(profits) - weight * float(self.missing(profits).sum())
        undercut = self.undercut(profits)
        return score - UNDERCUT_WEIGHT * (self.near[0].single + undercut) if undercut else score

    def undercut(self, profits: Floats) -> float:
        """Return by how much profits fall short of those of the single plan of one price, nano-units.

        In the assumed market and in each market near it, profits have to reach the share ``single_share_min`` of the
        plan's profit; on average over these markets, all of it. A shortfall that rounding may explain is 0.
        """
        weights = self.near_weights
        short = np.where(weights > 0, self.around.single_share_min * self.floors - profits, 0.0)
        on_average = float(np.dot(weights, self.floors - profits))
        below = float(np.maximum(0.0, short).sum()) + max(0.0, on_average)
        return below if below > HELD * float(np.dot(weights, self.floors)) else 0.0

    def missing(self, profits: Floats) -> Floats:
        """Return the shortfall from the least profit in each market, nano-units. Shape (markets,)."""
        return np.maximum(0.0, self._leasts - profits)

    @cached_property
    def _leasts(self) -> Floats:
        return np.array([market.least for market in self.near])

    @cached_property
    def _first_types(self) -> Ints:
        """Return the index in the crowd of the first type of each market. Shape (markets,)."""
        sizes = [len(market.valuation.share) for market in self.near]
        return np.cumsum([0, *sizes[:-1]])

    def bound(self) -> float:
        """Return a bound on the average profit of any mechanism, even of a mechanism that knows the market."""
        return sum(market.weight * most_of(market.valuation, market.sigma) for market in self.near)

    def to_json(self, offer: Offer) -> dict[str, Any]:
        """Return a menu's profit and the best single plan's profit in each market, with averages, bounds and claims."""
        profits = self.profits(offer)
        markets = [
            {
                "market": market.name,
                "weight": round(market.weight, 12),
                "profit_nanousd": round(profit, 3),
                "single_plan_profit_nanousd": round(market.single, 3),
            }
            for market, profit in zip(self.near, profits.tolist(), strict=True)
        ]
        return {
            "average_nanousd": round(self.average(profits), 3),
            "upper_bound_nanousd": round(self.bound(), 3),
            "markets": markets,
            "one_price": self._one_price(profits),
            "held": claims_of(self.near, profits, self.around, self.exact, self.most),
        }

    def _one_price(self, profits: Floats) -> dict[str, Any]:
        """Return the price of the single plan of one price, and a menu's profits as shares of that plan's profits."""
        shares = [
            profit / floor
            for market, profit, floor in zip(self.near, profits.tolist(), self.floors.tolist(), strict=True)
            if floor > 0 and not market.is_draw
        ]
        average, floor = np.dot(self.near_weights, profits), np.dot(self.near_weights, self.floors)
        return {
            "price_nanousd": self.one_price,
            "share_least": round(min(shares, default=1.0), 12),
            "share_on_average": round(float(average / floor), 12) if floor > 0 else 1.0,
        }


def robust_of(market: Market, around: Neighbourhood, most: int) -> Robust:
    """Return the markets over which a robust menu of a market is judged.

    A menu of an estimated market is also judged over the draws, which together have three times the weight of the
    market of the average and those near it. In these markets the value is the estimated value, not understated. In a
    draw a menu only has to make no loss.

    Args:
        market: the market.
        around: how far the market may differ from the assumed market, and which shares of profit a menu has to reach.
        most: the most tiers of the menu.
    """
    estimate = estimated(market)
    centre = thinned(valuation_of(market if estimate is None else fully_valued(market, estimate)))
    sigma, taste = market.value_sigma, market.taste_nanousd
    exact = None if sigma or taste else best_tiers(centre, most)[-1].profit
    neighbours = [
        (name, neighbour, float(np.hypot(sigma, added_sigma))) for name, neighbour, added_sigma in around.around(centre)
    ]
    near = [_near(name, 1 / len(neighbours), neighbour, spread, taste) for name, neighbour, spread in neighbours]
    near = [replace(neighbour, least=around.single_share_min * neighbour.single) for neighbour in near]
    near[0] = replace(near[0], least=(1 - around.loss_max) * exact if exact is not None else 0.0)
    one_price = best_single(_crowd(near, taste))[0]
    if estimate is not None and estimate.draws:
        spread = estimate.value.sigma if estimate.value is not None else sigma
        draw_weight = DRAWS_WEIGHT / len(estimate.draws)
        draws = [thinned(valuation_of(draw)) for draw in estimate.draws]
        near += [
            replace(_near(f"draw {place}", draw_weight, neighbour, spread, taste), is_draw=True)
            for place, neighbour in enumerate(draws, 1)
        ]
        near = [replace(neighbour, weight=neighbour.weight / (1 + DRAWS_WEIGHT)) for neighbour in near]
    robust = Robust(tuple(near), _crowd(near, taste), around, exact, most, one_price, np.zeros(len(near)))
    return replace(robust, floors=robust.profits(robust.single_plan))


def _crowd(near: Sequence[Near], taste: float) -> Crowd:
    return crowd_of([(market.weight, market.valuation, market.sigma, taste) for market in near])


def _near(name: str, weight: float, valuation: Valuation, sigma: float, taste: float) -> Near:
    return Near(name, weight, valuation, sigma, best_single(crowd_of([(1.0, valuation, sigma, taste)]))[1], 0.0)


def fully_valued(market: Market, beside: Estimated) -> Market:
    """Return an estimated market with its estimated value, not understated."""
    if not beside.understated_by:
        return market
    fields = json.loads(market.given)
    fields["value_nanousd"] /= 1 - beside.understated_by
    return read_market(fields)


def robust_aim(robust: Robust) -> Aim:
    """Return the objective of a robust menu, with the offers that its search starts with.

    The offers are the single plan of one price and the best of the mechanism's menus at lower prices. These menus are
    those of the assumed market, and those of its combinations, at several weights, with all markets that differ only in
    urgency or pace: for a combination, the average has an exact optimum.
    """
    centre = robust.near[0].valuation
    starts = list(lowered(centre, robust.most, LOWERED))
    alike = [candidate for candidate in robust.near[1:] if is_one_kind(centre, candidate)]
    for weight in CENTRE_WEIGHTS if alike else ():
        rest = (1 - weight) / len(alike)
        factors = [(rest, float(candidate.valuation.urgency_per_s[0] / centre.urgency_per_s[0])) for candidate in alike]
        starts += lowered(together(centre, [(weight, 1.0), *factors]), robust.most, (1.0, 0.97, 0.93))
    best = sorted(starts, key=lambda candidate: (-robust.score(centre, candidate), candidate.key))[:STARTS]
    return Aim(robust.score, tuple(best) + ((robust.single_plan,) if robust.one_price else ()))


def lowered(valuation: Valuation, most: int, factors: Sequence[float]) -> Sequence[Offer]:
    """Return the mechanism's menus of each number of tiers at proportionally lower prices."""
    exact = [offer_of(publish(valuation, menu.caps)) for menu in best_tiers(valuation, most)]
    offers = [
        cleaned(offer.caps, np.floor(offer.prices * factor).astype(np.int64)) for offer in exact for factor in factors
    ]
    return [offer for offer in {offer.key: offer for offer in offers}.values() if len(offer.caps)]


def best_single(crowd: Crowd) -> tuple[int, float]:
    """Return the price of the best single plan without a cap, and its profit; 0 and 0 where no plan earns anything."""
    last = crowd.worth.shape[1] - 1
    worth = np.unique(crowd.worth[:, last])
    if len(worth) > 24:
        worth = worth[np.unique(np.linspace(0, len(worth) - 1, 24).round().astype(int))]
    factors: Floats = np.linspace(0.7, 1.05, SINGLE_PRICES) if crowd.sigma.any() or crowd.taste.any() else np.ones(1)
    prices = np.unique(np.floor(worth[:, None] * factors)).astype(np.int64)
    prices = prices[prices >= 1]
    profits = crowd.single_profits(last, prices)
    if profits.max(initial=0.0) <= 0:
        return 0, 0.0
    best = int(profits.argmax())
    return int(prices[best]), float(profits[best])


def most_of(valuation: Valuation, sigma: float = 0.0, taste: float = 0.0, tiers: int = 0) -> float:
    """Return a quick bound on the profit of any mechanism that is paid at the start: not always the least bound.

    Without cost and with exponential delay, the bound is the profit of the full menu; otherwise it is the first best.
    Without cost, dispersion of value adds nothing, because the mean value stays the same. With cost, the bound is
    convex in the value and 0 at 0, so it lies below its chord up to the mean and below the bound without cost beyond
    the mean. Tastes add at most the excess of the best of ``tiers`` + 1 extreme-value shocks over the mean of one
    shock.
    """
    most = enveloped(valuation) if has_hull(valuation) else first_best(valuation)
    if sigma and valuation.cost_per_token:
        # E[(z - 1)^+] of a lognormal z of mean 1.
        beyond = math.erf(sigma / math.sqrt(8))
        most += beyond * first_best(replace(valuation, cost_per_token=0.0))
    return most + taste * float(np.log(tiers + 1))
