"""The multipliers of the bound are as tight as they were measured to be: a looser bound is true, but says less of a menu."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.bounds.bound import upper_bound
from pricing.bounds.multipliers import multipliers_for
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from tests.pricing import markets


@pytest.mark.parametrize(
    ("seed", "number", "types", "steps", "weights", "mean_most", "gap_most"),
    [
        (2, 150, 12, 20, [0.0], 1e-9, 1e-8),
        (3, 60, 40, 60, [0.0], 2.5e-5, 1.6e-3),
        (5, 80, 20, 30, [0.3, 0.6], 1e-10, 1e-9),
    ],
    ids=["pools", "play", "surplus"],
)
def test_gaps_in_random_markets_with_cost(
    seed: int, number: int, types: int, steps: int, weights: list[float], mean_most: float, gap_most: float
) -> None:
    """Types that share a cap, markets where play tightens the bound, and a weight of customers' surplus."""
    random = np.random.default_rng(seed)
    gaps = []
    for trial in range(number):
        market = read_market(markets.random_market(random, types_max=types, steps_max=steps, cost=True))
        valuation = replace(valuation_of(market), surplus_weight=weights[trial % len(weights)])
        full = full_menu(valuation)
        bound = upper_bound(valuation, multipliers_for(valuation, full))
        gaps.append((bound - full.profit) / bound if bound > 1e-9 else 0.0)

    assert min(gaps) >= 0
    assert np.mean(gaps) < mean_most
    assert max(gaps) < gap_most
