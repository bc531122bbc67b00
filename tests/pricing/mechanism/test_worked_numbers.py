"""The worked numbers of the mechanism's specification."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.bounds.bound import upper_bound
from pricing.bounds.multipliers import multipliers_for
from pricing.market.answers import Steps
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.tiers import best_tiers
from pricing.menus.menus import optimal_menu
from tests.pricing import closed_forms, markets, oracles
from tests.pricing.continuous import continuous_menu, exponential_worth


def test_three_types_without_cost() -> None:
    """Example 3: caps, prices and profit in continuous time, to twelve digits."""
    menu = continuous_menu(np.array([0.2, 0.6, 1.5]), np.array([0.3, 0.45, 0.25]), 0.8)

    assert menu.caps_s.tolist() == pytest.approx([np.inf, 2.29072682968539, 0.319646747168645], abs=1e-12)
    assert menu.prices.tolist() == pytest.approx([0.604166348960361, 0.523212040860051, 0.181072851733483], abs=1e-12)
    assert menu.profit == pytest.approx(0.461963536008502, abs=1e-12)


def test_pooled_types() -> None:
    """Example 4: the two most urgent types have rising slopes, so they share the slope of their chord."""
    menu = continuous_menu(np.array([0.1, 0.2, 1.0, 1.1]), np.array([0.3, 0.2, 0.2, 0.3]), 0.8)

    pooled = [np.inf, 5.10825623765991, 0.770163533955495, 0.770163533955495]
    assert menu.caps_s.tolist() == pytest.approx(pooled, abs=1e-12)
    assert menu.profit == pytest.approx(0.509035816566164, abs=1e-12)


def test_profit_in_continuous_time_is_virtual_surplus() -> None:
    """Prices and virtual surplus give the same profit."""
    urgency, share = np.array([0.2, 0.6, 1.5]), np.array([0.3, 0.45, 0.25])
    menu, cumulative = continuous_menu(urgency, share, 0.8), np.cumsum(share)
    own = cumulative * exponential_worth(urgency, menu.caps_s, 0.8)
    rent = cumulative[:-1] * exponential_worth(urgency[:-1], menu.caps_s[1:], 0.8)

    assert menu.profit == pytest.approx(own.sum() - rent.sum(), abs=1e-14)


def cells(low: float, high: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the right ends and the shares of equally likely cells of a uniform urgency."""
    return low + (high - low) * np.arange(1, points + 1) / points, np.full(points, 1 / points)


@pytest.mark.parametrize(
    ("low", "high", "rate", "profit", "cells_lose"),
    [
        (1, 2, 0.5, 0.201980574316197, 1e-8),
        (0, 1, 0.1, 0.127709708012310, 1.2e-8),
        (0, 1, 0.5, 0.361921211898248, 1e-8),
        (0, 1, 2, 0.669454272859317, 1e-8),
    ],
)
def test_uniform_urgency(low: float, high: float, rate: float, profit: float, cells_lose: float) -> None:
    """Examples 1 and 2: 10,000 right ends of equal cells earn the same as the continuum, to 1e-8 (once 1.2e-8)."""
    urgency, share = cells(low, high, 10_000)

    assert continuous_menu(urgency, share, rate).profit == pytest.approx(profit, rel=cells_lose)
    assert closed_forms.profit(low, high, rate) == pytest.approx(profit, rel=1e-12)


def test_caps_and_prices_of_uniform_urgency() -> None:
    """Example 1: the closed forms give its numbers, and the menu of 10,000 types agrees with them."""
    caps = [closed_forms.cap(r, low=1) for r in (2, 1.5, 1.25, 1.1)]
    prices = [closed_forms.price(t, low=1, high=2, rate=0.5) for t in (1, 2, 4)]
    urgency, share = cells(1, 2, 10_000)
    menu = continuous_menu(urgency, share, 0.5)

    assert caps == pytest.approx([1, 2, 4, 10], rel=1e-12)
    assert prices == pytest.approx([0.183583000275220, 0.204839453520275, 0.210640705828002], abs=1e-12)
    for row in (999, 2_499, 4_999, 9_999):
        # A slope of the hull belongs to the middle of its cell.
        assert menu.caps_s[row] == pytest.approx(closed_forms.cap(urgency[row] - 0.5e-4, low=1), rel=1e-6)
        expected = closed_forms.price(menu.caps_s[row], low=1, high=2, rate=0.5)
        assert menu.prices[row] == pytest.approx(expected, rel=1e-7)


def test_single_plan_and_first_best_of_uniform_urgency() -> None:
    """Example 1: the profit of one unlimited plan, and the profit if every urgency were known."""
    urgency, share = cells(1, 2, 10_000)
    unlimited = exponential_worth(urgency, np.full(10_000, np.inf), 0.5)

    assert np.max(np.cumsum(share) * unlimited) == pytest.approx(0.2, rel=1e-8)
    assert 0.5 * np.log(2.5 / 1.5) == pytest.approx(0.2554128118830, rel=1e-10)


def test_uniform_urgency_with_cost() -> None:
    """Example 5: Lambert's W gives the caps; 10,000 types earn the stated profit to 1e-8."""
    caps = [closed_forms.cap(r, low=1, ratio=0.1) for r in (1, 1.5, 2)]
    urgency, share = cells(1, 2, 10_000)
    menu = continuous_menu(urgency, share, 0.5, cost_per_s=0.05)

    assert caps == pytest.approx([2.302585092994, 1.043387414246, 0.640195425177], abs=1e-12)
    assert menu.profit == pytest.approx(0.1505966814955, rel=1e-8)
    for row in (999, 4_999, 9_999):
        expected = closed_forms.cap(urgency[row] - 0.5e-4, low=1, ratio=0.1)
        assert menu.caps_s[row] == pytest.approx(expected, rel=1e-6)


def test_few_tiers_of_uniform_urgency() -> None:
    """Example 2, K tiers: the stationary menus have the stated numbers, and the exact search in steps finds them."""
    stated = {1: 0.3333333333333, 2: 0.3559633022079, 3: 0.3594443416909}
    points, tokens_per_s = 400, 400
    description = markets.market(
        types=None,
        urgency={"family": "uniform", "low_per_s": 0, "high_per_s": 1, "points": points},
        value_nanousd=1,
        answer_length={"family": "exponential", "mean_tokens": tokens_per_s / 0.5},
        tokens_per_s=tokens_per_s,
        first_token_s=0,
    )
    valuation = valuation_of(read_market(description))
    found = best_tiers(valuation, 3)

    for count, profit in stated.items():
        assert closed_forms.tiers(count, 0.5)[0] == pytest.approx(profit, rel=1e-10)
        assert found[count - 1].profit == pytest.approx(profit, rel=2e-3)
    _, caps, prices = closed_forms.tiers(3, 0.5)
    assert caps == pytest.approx([np.inf, 2.64562016947, 1.33830649278], rel=1e-5)
    assert prices == pytest.approx([0.46833084875, 0.37721326373, 0.288556842158], rel=1e-5)
    in_steps = sorted(set(found[2].caps.tolist()))
    assert valuation.steps.time_s[np.array(in_steps[:2]) - 1] == pytest.approx([1.33830649278, 2.64562016947], rel=1e-2)


def test_lotteries_can_earn_a_little_more() -> None:
    """Section 3: with cost and a hazard that is not constant, a random cap for a type may earn more."""
    steps = Steps(
        tokens=np.array([1, 2]),
        size=np.ones(2),
        time_s=np.array([0.5, 1.3]),
        wait_s=np.array([0.5, 0.8]),
        probability=np.array([0.06, 0.92]),
        survival=np.array([1.0, 0.94]),
        first_token_s=0.0,
        tokens_per_s=1.0,
        uncapped=False,
    )
    share = np.array([0.11, 0.44, 0.45])
    valuation = Valuation(
        np.array([0.1, 1.5, 1.8]), share, np.cumsum(share), np.ones(3), "exponential", steps, 0.02, stops=False
    )
    full = full_menu(valuation)
    lottery = oracles.lottery_program(valuation)

    assert full.caps.tolist() == [2, 1, 0]
    assert full.profit == pytest.approx(0.0913833538496, abs=1e-13)
    assert lottery == pytest.approx(0.0917081272043, abs=1e-12)
    assert upper_bound(valuation, multipliers_for(valuation, full)) >= lottery - 1e-15


def test_lognormal_answers() -> None:
    """Section 5.5: an optimal menu that collapses if callers resume."""
    description = read_market(markets.lognormal())
    menu = optimal_menu(description, tiers=None, bill="conversation", names=None, created="2025-01-01T00:00:00Z")
    valuation, totals = valuation_of(description), menu["totals"]

    assert [tier["conversation_tokens_max"] for tier in menu["tiers"]] == [100, 575, 3050, 10_000]
    assert full_menu(valuation).profit == pytest.approx(0.420821997e9, abs=0.5)
    assert totals["profit_nanousd"] == pytest.approx(0.420821997e9, abs=4)
    assert totals["profit_if_resumed_nanousd"] == pytest.approx(0.175996262e9, abs=4)
    assert totals["single_plan_profit_nanousd"] == pytest.approx(0.3686e9, abs=5e4)
