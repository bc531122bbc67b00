"""The full menu, every number of tiers and the bound, compared with solvers that do not use the theory."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.bounds.bound import upper_bound
from pricing.bounds.multipliers import multipliers_for
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import enveloped, full_menu, search
from pricing.mechanism.tiers import best_tiers
from pricing.menus.menus import optimal_menu
from tests.pricing import markets, oracles

pytestmark = pytest.mark.filterwarnings("error")


def test_without_cost_no_mechanism_earns_more() -> None:
    """300 random markets: menu and bound equal a linear program over lotteries with all ordered pairs."""
    random = np.random.default_rng(3)
    for _ in range(300):
        valuation = valuation_of(read_market(markets.random_market(random, types_max=6, steps_max=8)))
        full = full_menu(valuation)

        assert full.profit == pytest.approx(oracles.lottery_program(valuation), rel=1e-7)
        assert full.profit == pytest.approx(search(valuation).profit, rel=1e-12)
        assert full.profit == pytest.approx(enveloped(valuation), rel=1e-12)
        assert upper_bound(valuation, multipliers_for(valuation, full)) == pytest.approx(full.profit, rel=1e-7)


def test_with_cost_no_mechanism_beats_the_bound() -> None:
    """300 random markets: menu <= program over lotteries <= bound, and the gap is almost always zero."""
    random = np.random.default_rng(4)
    gaps = []
    for _ in range(300):
        valuation = valuation_of(read_market(markets.random_market(random, types_max=6, steps_max=8, cost=True)))
        full = full_menu(valuation)
        lottery = oracles.lottery_program(valuation)
        most = upper_bound(valuation, multipliers_for(valuation, full))

        assert lottery >= full.profit - 1e-7
        assert most >= lottery - 1e-9
        gaps.append((most - full.profit) / most if most > 1e-9 else 0.0)
    assert np.median(gaps) < 1e-9
    assert np.quantile(gaps, 0.99) < 1e-6
    assert max(gaps) < 0.005


def test_the_gap_that_a_menu_of_many_types_reports() -> None:
    """150 random markets of up to forty types and sixty steps: zero in nine of ten, never more than half a per cent."""
    random = np.random.default_rng(10)
    gaps = []
    for _ in range(150):
        description = markets.random_market(random, types_max=40, steps_max=60, cost=True)
        description |= {"value_nanousd": 1e9, "cost_nanousd_per_token": 1e9 * description["cost_nanousd_per_token"]}
        menu = optimal_menu(read_market(description), tiers=None, bill="conversation", names=None, created="2025-01-01")
        gaps.append(menu["certificate"]["bound"]["gap_share"])
    assert np.median(gaps) < 1e-7
    assert np.quantile(gaps, 0.9) < 1e-6
    assert max(gaps) < 0.005


def test_with_cost_and_a_constant_hazard_no_mechanism_earns_more() -> None:
    """200 random markets whose answers have a constant hazard, under both rules for disconnects."""
    random = np.random.default_rng(6)
    for _ in range(200):
        description = markets.random_market(random, types_max=6, steps_max=2, cost=True)
        steps = int(random.integers(1, 9))
        mean = float(random.uniform(0.5, 2) * steps)
        description |= {"answer_length": {"family": "exponential", "mean_tokens": mean}, "cap_tokens_max": steps}
        description |= {"tokens_per_s": 10.0, "cost_nanousd_per_token": float(random.uniform(0, 0.8)) / mean}
        valuation = valuation_of(read_market(description))

        assert full_menu(valuation).profit == pytest.approx(oracles.lottery_program(valuation), abs=1e-7)


@pytest.mark.parametrize("delay", ["exponential", "hyperbolic", "linear", "sunk_linear"])
@pytest.mark.parametrize("cost", [False, True])
def test_search_equals_trying_everything(delay: str, cost: bool) -> None:
    """The full menu and each number of tiers are exact among menus of caps, in every family of delay."""
    random = np.random.default_rng(5)
    for _ in range(12):
        description = markets.random_market(random, types_max=5, steps_max=12, cost=cost) | {"delay": {"family": delay}}
        valuation = valuation_of(read_market(description))
        everything = oracles.exhaustive(valuation)

        assert search(valuation).profit == pytest.approx(everything[-1], abs=1e-12)
        for used, menu in enumerate(best_tiers(valuation, 5), start=1):
            assert menu.profit == pytest.approx(everything[min(used, len(everything) - 1)], abs=1e-12)
            assert len(set(menu.caps.tolist()) - {0}) <= used


@pytest.mark.parametrize("delay", ["exponential", "hyperbolic", "linear", "sunk_linear"])
def test_many_steps_and_few(delay: str) -> None:
    """Long rows with dips, zero steps and ties give the same result as sums over one entry at a time."""
    random = np.random.default_rng(8)
    for _ in range(15):
        description = markets.random_market(random, types_max=12, steps_max=300, cost=bool(random.integers(2)))
        chances = np.array(description["answer_length"]["probability"])
        chances[random.random(len(chances)) < 0.3] = 0.0
        chances[-1] += 1e-3
        description["answer_length"]["probability"] = (chances / max(1.0, chances.sum())).tolist()
        valuation = valuation_of(read_market(description | {"delay": {"family": delay}}))

        assert search(valuation).profit == pytest.approx(oracles.entry_by_entry(valuation), abs=1e-12)
        assert best_tiers(valuation, 12)[-1].profit == pytest.approx(oracles.entry_by_entry(valuation), abs=1e-12)


def test_hyperbolic_delay_needs_no_caps() -> None:
    """With delay 1/(1 + r t) and r uniform from 0, one unlimited plan is optimal."""
    urgency = {"family": "uniform", "low_per_s": 0, "high_per_s": 0.5, "points": 60}
    description = markets.market(types=None, urgency=urgency, delay={"family": "hyperbolic"})
    menu = optimal_menu(read_market(description), tiers=None, bill="conversation", names=None, created="2025-01-01")

    assert [tier["conversation_tokens_max"] for tier in menu["tiers"]] == [None]
    assert menu["totals"]["full_menu_profit_nanousd"] == pytest.approx(menu["totals"]["single_plan_profit_nanousd"])


def test_without_cost_the_longest_cap_is_none() -> None:
    """This holds for any number of tiers: far out, doubles cannot distinguish a cap from no cap."""
    valuation = valuation_of(read_market(markets.market()))

    assert [menu.caps[0] for menu in best_tiers(valuation, 4)] == [len(valuation.steps.tokens)] * 4


def test_worth_that_falls_with_urgency() -> None:
    """The hull is then of ln(G v), and the menu still equals the program over lotteries."""
    random = np.random.default_rng(9)
    for _ in range(100):
        description = markets.random_market(random, types_max=5, steps_max=6)
        description["types"].sort(key=lambda one: one["urgency_per_s"])
        value = 1.0
        for one in description["types"]:
            one["value_nanousd"] = value
            value *= float(random.uniform(0.5, 1))
        del description["value_nanousd"]
        valuation = valuation_of(read_market(description))

        assert full_menu(valuation).profit == pytest.approx(oracles.lottery_program(valuation), rel=1e-7)
        assert full_menu(valuation).profit == pytest.approx(search(valuation).profit, rel=1e-12)
