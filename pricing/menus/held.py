"""A robust menu's profit as a share of the most profitable menu's and of single plans', and bounds on such shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from pricing.market.answers import Floats
from pricing.market.neighbourhood import Neighbourhood
from pricing.market.worth import Valuation
from pricing.mechanism.tiers import best_tiers

BOUND_WEIGHTS = (0.0, *(2.0 ** (place / 2) for place in range(-12, 5)))
"""The weights tried for each other market, against 1 for the assumed market, in the bounds on a menu's profits."""

ROUNDS = 2
"""How often the weight of each market is chosen again while the other weights stay fixed."""

BETTER = 1e-9
"""The relative gain below which a weight does not count as better, so that every machine finds the same bound."""

HELD = 1e-9
"""The shortfall, as a share, within which a menu counts as meeting a least profit: rounding."""


@dataclass(frozen=True, slots=True)
class Near:
    """One of the markets over which a menu is judged.

    Attributes:
        name: how the market differs.
        weight: weight of the market; the weights of all markets add up to 1.
        valuation: the market.
        sigma: standard deviation of the logarithm of the value between customers of one urgency.
        single: profit of the market's best single plan, nano-units for each conversation offered.
        least: the profit that a menu has to reach in the market, nano-units; 0 where a menu only has to make no loss.
        is_draw: whether the market is a draw of an estimate.
    """

    name: str
    weight: float
    valuation: Valuation
    sigma: float
    single: float
    least: float
    is_draw: bool = False


def claims_of(
    near: Sequence[Near], profits: Floats, around: Neighbourhood, exact: float | None, most: int
) -> dict[str, Any]:
    """Return a menu's shares of profit in the assumed market and in the markets near it, with bounds on short shares.

    Where no menu reaches the least profits elsewhere, there is no bound on the profit in the assumed market of a menu
    that does.

    Args:
        near: the assumed market, the markets near it, the draws of an estimate.
        profits: profit of the menu in each of these markets, nano-units. Shape (markets,).
        around: the least shares that are wanted.
        exact: profit of the most profitable menu of the assumed market, nano-units; None where no formula gives it.
        most: the most tiers of a menu.
    """
    shares = [
        profit / market.single
        for market, profit in zip(near[1:], profits.tolist()[1:], strict=True)
        if market.single > 0 and not market.is_draw
    ]
    as_taken = float(profits[0]) / exact if exact else 1.0
    elsewhere, average = min(shares, default=1.0), float(np.mean(shares)) if shares else 1.0
    claims = {
        "as_taken": as_taken >= 1 - around.loss_max - HELD,
        "elsewhere": elsewhere >= around.single_share_min - HELD,
        "on_average": average > 1,
    }
    is_held = all(claims.values())
    elsewhere_most = None if claims["elsewhere"] else elsewhere_at_most(near, most)
    is_possible = elsewhere_most is None or elsewhere_most >= around.single_share_min
    as_taken_most = as_taken_at_most(near, exact, most) / exact if exact and is_possible and not is_held else None
    return {
        "all": is_held,
        "claims": claims,
        "as_taken_share": round(as_taken, 12) if exact else None,
        "as_taken_share_at_most": _rounded(as_taken_most),
        "elsewhere_share": round(elsewhere, 12),
        "elsewhere_share_at_most": _rounded(elsewhere_most),
        "elsewhere_share_on_average": round(average, 12),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 12)


def as_taken_at_most(near: Sequence[Near], exact: float, most: int) -> float:
    """Return a bound on the profit in the assumed market if the least profits elsewhere are reached, nano-units.

    For any weights w >= 0, a menu that earns p in the assumed market and p_k >= l_k in others has
    p + sum of w_k l_k <= p + sum of w_k p_k, which is at most the largest such sum of any menu. The largest sum is the
    profit of the best menu for the types of all these markets together, if the types can be put in one order; the exact
    program computes it.
    """
    centre = near[0].valuation
    bound_by = [market for market in near[1:] if market.least and is_one_kind(centre, market)]

    def bound(weights: Sequence[float]) -> float:
        kept = sum(weight * market.least for weight, market in zip(weights, bound_by, strict=True))
        return _most([1.0, *weights], [near[0], *bound_by], most) - kept

    return min(exact, _lowest(bound, [0.0] * len(bound_by)))


def elsewhere_at_most(near: Sequence[Near], most: int) -> float | None:
    """Return a bound on the least share of the single plan's profit that a menu keeps in every other market.

    For any weights of sum 1 the least share is at most the weighted sum of the shares. That sum is the menu's profit in
    a market made of all these markets, so it is at most the profit of the best menu there. Returns None where no other
    market's types can be put in one order with those of the assumed market.
    """
    centre = near[0].valuation
    others = [market for market in near[1:] if market.single > 0 and is_one_kind(centre, market)]
    if not others:
        return None

    def bound(weights: Sequence[float]) -> float:
        total = sum(weights)
        if not total:
            return np.inf
        return _most(
            [weight / total / market.single for weight, market in zip(weights, others, strict=True)], others, most
        )

    return _lowest(bound, [1.0] * len(others))


def _lowest(bound: Callable[[Sequence[float]], float], weights: list[float]) -> float:
    """Return the lowest bound found by choosing one weight after another; no set of weights is tried twice."""
    bound_at = cache(bound)
    lowest = bound_at(tuple(weights))
    for place in list(range(len(weights))) * ROUNDS:
        for weight in BOUND_WEIGHTS:
            tried = [*weights[:place], weight, *weights[place + 1 :]]
            found = bound_at(tuple(tried))
            if found < lowest - BETTER * abs(lowest):
                lowest, weights = found, tried
    return lowest


def _most(weights: Sequence[float], markets: Sequence[Near], most: int) -> float:
    """Return the largest weighted sum of a menu's profits in markets that differ only in urgency, nano-units."""
    centre = markets[0].valuation
    parts = [
        (weight, float(market.valuation.urgency_per_s[0] / centre.urgency_per_s[0]))
        for weight, market in zip(weights, markets, strict=True)
        if weight > 0
    ]
    return sum(weight for weight, _ in parts) * best_tiers(together(centre, parts), most)[-1].profit


def is_one_kind(centre: Valuation, one: Near) -> bool:
    """Return whether a market has the centre's lengths and its one value, so that the types of both have one order."""
    return one.sigma == 0 and one.valuation.steps is centre.steps and bool(np.ptp(centre.value) == 0)


def together(valuation: Valuation, parts: Sequence[tuple[float, float]]) -> Valuation:
    """Return the types of a market and of markets near it, weighted, as one market.

    Args:
        valuation: n types, all of one value.
        parts: for each market, its weight and the factor by which its urgencies exceed those of ``valuation``.
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
