"""What a menu sells: who takes which tier, what that takes to serve, what the house earns and customers keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, own_tokens, tokens_at, worth_at
from pricing.mechanism.rounding import Published
from pricing.menus.solving import Solution


@dataclass(frozen=True, slots=True)
class Sales:
    """What a menu of k tiers sells to n types.

    Attributes:
        valuation: the market.
        takers: the share of each type that takes each tier. Shape (n, k).
        tokens: that serving each tier to each type takes on average. Shape (n, k).
        margin: what the house earns from each type, nano-units. Shape (n,).
        surplus: what customers keep, nano-units for each conversation offered.
        differ: customers of one urgency differ.
    """

    valuation: Valuation
    takers: Floats
    tokens: Floats
    margin: Floats
    surplus: float
    differ: bool

    @property
    def profit(self) -> float:
        """Return what the house earns, nano-units for each conversation offered."""
        return float(np.dot(self.valuation.share, self.margin))

    @property
    def aim(self) -> float:
        """Return profit and what surplus counts for."""
        return self.profit + self.valuation.surplus_weight * self.surplus

    @property
    def excluded(self) -> float:
        """Return the share of conversations offered that take no tier."""
        return max(0.0, float(np.dot(self.valuation.share, 1.0 - self.takers.sum(axis=1))))

    def of_tier(self, place: int) -> tuple[float, float]:
        """Return the share of conversations offered that take a tier, and the tokens that serving one takes."""
        weight = self.valuation.share * self.takers[:, place]
        share = float(weight.sum())
        return share, float(np.dot(weight, self.tokens[:, place])) / share if share > 0 else 0.0


def sales_of(solution: Solution, published: Published) -> Sales:
    """Return what the menu of a solution sells."""
    valuation, takers = solution.valuation, solution.takers(published)
    tokens = tokens_at(valuation, published.caps)
    if solution.crowd is not None and solution.offer is not None:
        margin = np.sum(takers * (published.prices - tokens * valuation.cost_per_token), axis=1)
        surplus = solution.crowd.surplus(solution.offer)
        return Sales(valuation, takers, tokens, margin, surplus, True)
    served = own_tokens(valuation, published.by_type())
    margin = published.paid() - served * valuation.cost_per_token
    kept = float(np.dot(valuation.share, published.own(published.worth) - published.paid()))
    return Sales(valuation, takers, tokens, margin, kept, False)


def own_worth(valuation: Valuation, by_type: Ints) -> Floats:
    """Return the worth of its own cap to each type, nano-units. Shapes (n,) -> (n,)."""
    caps, places = np.unique(by_type, return_inverse=True)
    own: Floats = np.take_along_axis(worth_at(valuation, caps), places[:, None], axis=1)[:, 0]
    return own
