"""Simulated customers, menus that withstand resumption, advice on the number of tiers, and menus under uncertainty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pricing.market.market import Market, read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.demand import crowd_of
from pricing.mechanism.lasting import advise, best_for_caps
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.offers import Offer
from pricing.mechanism.uncertainty import best_on_average, profit_of
from pricing.menus.menus import optimal_menu
from pricing.simulate import simulate
from tests.pricing import markets, oracles


def menu_of(market: Market, **wishes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"}
    return optimal_menu(market, **options | wishes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cost_nanousd_per_token": 1e5},
        {"cost_nanousd_per_token": 1e5, "cost_on_disconnect": "runs"},
        {"cost_nanousd_per_token": 1e5, "delay": {"family": "hyperbolic"}},
        {"cost_nanousd_per_token": 1e5, "delay": {"family": "linear"}, "first_token_s": 0.5},
    ],
    ids=["free", "stops", "runs", "hyperbolic", "linear"],
)
def test_customers_who_choose_and_resume_freely_do_as_the_menu_says(changes: dict[str, Any]) -> None:
    """200,000 conversations reproduce shares, profit and profit if resumed, within four standard errors."""
    market = read_market(markets.lognormal() | changes)
    menu = menu_of(market)
    totals = menu["totals"]
    once = simulate(market, menu, conversations=200_000, random=np.random.default_rng(1))
    again = simulate(market, menu, conversations=200_000, random=np.random.default_rng(2), resuming=True)

    assert once.shares.tolist() == pytest.approx([tier["expected"]["share"] for tier in menu["tiers"]], abs=0.005)
    assert once.profit == pytest.approx(totals["profit_nanousd"], abs=4 * once.error)
    assert again.profit == pytest.approx(totals["profit_if_resumed_nanousd"], abs=4 * again.error)
    served = sum(tier["expected"]["share"] * tier["expected"]["tokens"] for tier in menu["tiers"])
    assert once.tokens == pytest.approx(served, rel=0.01)


def test_advice_counts_tiers_once_and_under_resumption() -> None:
    """Two tiers of the lognormal market lose 1 %, resumed or not; three earn more once, but collapse if resumed."""
    valuation = valuation_of(read_market(markets.lognormal()))
    advice = advise(valuation, most=4, within=0.005)
    by_count = {line.tiers: line for line in advice.lines}

    lax = advise(valuation, most=4, within=0.2)

    strict = advise(valuation, most=2, within=0.001)

    assert (advice.tiers, advice.lasting) == (3, 2)
    assert (lax.tiers, lax.lasting) == (1, 1)
    assert advice.sentence.startswith(
        "3 tiers come within 0.5 % of the full menu; if callers resume where that pays, 2 "
    )
    assert lax.sentence.startswith("1 tier comes within 20 % of the full menu")
    assert strict.tiers is None
    assert strict.sentence.startswith("Not even 2 tiers come within 0.1 % of the full menu")
    assert menu_of(read_market(markets.lognormal()))["totals"]["recommended_tiers"] == 2
    assert by_count[3].profit > by_count[2].profit
    assert by_count[3].profit_if_resumed < by_count[1].profit_if_resumed < by_count[2].profit_if_resumed


def test_who_takes_which_of_given_caps() -> None:
    """For fixed caps, the assignment of types is the best assignment."""
    random = np.random.default_rng(29)
    for _ in range(40):
        valuation = valuation_of(read_market(markets.random_market(random, types_max=4, steps_max=6, cost=True)))
        steps = len(valuation.steps.tokens)
        caps = np.unique(random.integers(1, steps + 1, 3))
        only = oracles.exhaustive(valuation, {0, *caps.tolist()})[-1]

        assert best_for_caps(valuation, caps).profit == pytest.approx(only, abs=1e-12)


def test_an_optimal_menu_earns_its_profit_from_free_choice() -> None:
    """In the menu's own market, types that choose freely choose the tier meant for them."""
    market = read_market(markets.lognormal())
    menu = menu_of(market)
    caps = np.array([tier["conversation_tokens_max"] for tier in menu["tiers"]])
    prices = np.array([tier["price_nanousd"] for tier in menu["tiers"]], dtype=float)

    assert profit_of(valuation_of(market), caps, prices) == pytest.approx(menu["totals"]["profit_nanousd"], abs=1e-3)


def draws(count: int) -> list[Market]:
    """Return markets around one market, like bootstrap draws."""
    random = np.random.default_rng(31)
    tokens = list(range(40, 4_001, 40))
    around = []
    for _ in range(count):
        urgency = np.sort(np.array([0.005, 0.03, 0.08, 0.2]) * np.exp(random.normal(0, 0.1, 4)))
        mean = 400 * np.exp(random.normal(0, 0.1))
        chances = [np.exp(-(n - 40) / mean) - np.exp(-n / mean) for n in tokens]
        description = markets.market(
            types=markets.types(urgency, random.dirichlet(np.array([30, 30, 25, 15]))),
            answer_length={"family": "table", "tokens": tokens, "probability": chances},
            cap_tokens_max=4_000,
        )
        around.append(read_market(description))
    return around


def test_a_menu_for_many_possible_markets() -> None:
    """The choice has the best average of all tried, with its low percentile and the profit under certainty."""
    possible = draws(12)
    choice = best_on_average(possible, tiers=3)
    plain = best_on_average(possible, tiers=3, discounts=(0.0,))
    menu = menu_of(read_market(choice.market), tiers=3)
    caps = np.array([tier["conversation_tokens_max"] or 10**9 for tier in menu["tiers"]])
    prices = np.array([tier["price_nanousd"] for tier in menu["tiers"]], dtype=float)
    earned = [profit_of(valuation_of(market), caps, prices) for market in possible]

    assert choice.profits.tolist() == pytest.approx(earned)
    assert choice.mean == pytest.approx(np.mean(earned))
    assert choice.low == pytest.approx(np.percentile(earned, 5))
    assert plain.mean <= choice.mean <= choice.certain
    assert choice.discount > 0


def test_a_single_market_is_certain() -> None:
    """With a single market the choice is its optimal menu."""
    market = read_market(markets.lognormal())
    choice = best_on_average([market])

    assert choice.discount == 0
    assert choice.mean == pytest.approx(full_menu(valuation_of(market)).profit, abs=4)


def test_what_a_single_tier_earns_at_many_prices_is_what_it_earns_at_each() -> None:
    """Equal to the last bit, with and without differences in value, random tastes and cost."""
    free, dear = (
        valuation_of(read_market(markets.lognormal() | changes)) for changes in ({}, {"cost_nanousd_per_token": 1e5})
    )
    last = len(free.steps.tokens)
    for tastes in ((0.0, 0.0), (0.0, 1e6)):
        for one in (free, dear):
            crowd = crowd_of([(0.4, one, 0.0, tastes[0]), (0.6, one, 0.3, tastes[1])])
            prices = np.unique(np.floor(np.outer(crowd.worth[:, last], np.linspace(0.5, 1.2, 20)))).astype(np.int64)

            earned = crowd.single_profits(last, prices)

            alone = [crowd.profit(Offer(np.array([last]), np.array([price]))) for price in prices.tolist()]
            assert earned.tolist() == alone
