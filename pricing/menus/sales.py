"""The sales of a menu: takers of each tier, tokens served, the operator's margin and customers' surplus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.market.answers import Floats, Ints
from pricing.market.worth import Valuation, own_tokens, tokens_at, worth_at
from pricing.mechanism.rounding import Published
from pricing.menus.solving import Solution


@dataclass(frozen=True, slots=True)
class Sales:
    """The sales of a menu of k tiers to n types.

    Attributes:
        valuation: the market.
        takers: the share of each type that takes each tier. Shape (n, k).
        tokens: average tokens that serving each tier to each type takes. Shape (n, k).
        margin: the operator's margin on each type, nano-units. Shape (n,).
        surplus: customers' surplus, nano-units for each conversation offered.
        differ: whether customers of one urgency differ.
    """

    valuation: Valuation
    takers: Floats
    tokens: Floats
    margin: Floats
    surplus: float
    differ: bool

    @property
    def profit(self) -> float:
        """Return the operator's profit, nano-units for each conversation offered."""
        return float(np.dot(self.valuation.share, self.margin))

    @property
    def aim(self) -> float:
        """Return profit plus weighted surplus."""
        return self.profit + self.valuation.surplus_weight * self.surplus

    @property
    def excluded(self) -> float:
        """Return the share of conversations offered that take no tier."""
        return max(0.0, float(np.dot(self.valuation.share, 1.0 - self.takers.sum(axis=1))))

    def of_tier(self, place: int) -> tuple[float, float]:
        """Return the share of conversations offered that take a tier, and the average tokens of such a conversation."""
        weight = self.valuation.share * self.takers[:, place]
        share = float(weight.sum())
        return share, float(np.dot(weight, self.tokens[:, place])) / share if share > 0 else 0.0


def sales_of(solution: Solution, published: Published) -> Sales:
    """Return the sales of a solution's menu."""
    valuation, takers = solution.valuation, solution.takers(published)
    tokens = tokens_at(valuation, published.caps)
    if solution.crowd is not None and solution.offer is not None:
        margin = np.sum(takers * (published.prices - tokens * valuation.cost_per_token), axis=1)
        surplus = solution.crowd.surplus(solution.offer)
        return Sales(valuation, takers, tokens, margin, surplus, True)
    served = own_tokens(valuation, published.by_type())
    margin = published.paid() - served * valuation.cost_per_token
    surplus_kept = float(np.dot(valuation.share, published.own(published.worth) - published.paid()))
    return Sales(valuation, takers, tokens, margin, surplus_kept, False)


def own_worth(valuation: Valuation, by_type: Ints) -> Floats:
    """Return the worth of each type's own cap to the type, nano-units. Shapes (n,) -> (n,)."""
    caps, places = np.unique(by_type, return_inverse=True)
    worth: Floats = np.take_along_axis(worth_at(valuation, caps), places[:, None], axis=1)[:, 0]
    return worth
