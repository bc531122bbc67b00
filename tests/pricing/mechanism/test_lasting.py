"""Menus for callers who send cut answers back, found by a joint search over caps and prices."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from pricing.certificate import verify
from pricing.market.market import Market, read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.lasting import advise, best_for_caps, if_resumed
from pricing.mechanism.offers import Offer, cleaned, offer_of
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.menus.aims import Aim, best_offer, resumed, thinned
from pricing.menus.menus import optimal_menu, written
from pricing.menus.request import Wishes
from pricing.menus.solving import solve
from tests.pricing import markets


def menu_of(market: Market, **wished: Any) -> dict[str, Any]:
    arguments = {"tiers": None, "bill": "conversation", "names": None, "created": "2025-01-01T00:00:00Z"} | wished
    return json.loads(json.dumps(optimal_menu(market, **arguments)))


@pytest.mark.parametrize(("tiers", "least"), [(2, 0.4462), (3, 0.4462)])
def test_the_lognormal_market(tiers: int, least: float) -> None:
    """A random search over caps and prices found 0.43782 with two and three tiers; at the mechanism's prices 0.4267."""
    valuation = valuation_of(read_market(markets.lognormal()))

    assert resumed(valuation, best_offer(valuation, Aim(resumed), tiers)) >= least * 1e9


def test_its_menu_is_verified_and_bounded() -> None:
    """The certificate bounds the profit of any menu if resumed, and verification repeats the search."""
    menu = menu_of(read_market(markets.lognormal()), tiers=2, objective="profit_if_resumed")
    resumption = menu["certificate"]["resumption"]
    verdict = verify(menu)

    assert verdict.ok, verdict.violation
    assert menu["totals"]["profit_if_resumed_nanousd"] <= resumption["upper_bound_nanousd"]
    assert resumption["upper_bound_nanousd"] == menu["totals"]["first_best_nanousd"]


def test_a_menu_that_earns_less_than_what_is_found_is_refused() -> None:
    """Its figures fit the offer in the file and its hashes match, but the claim is false."""
    market = read_market(markets.lognormal())
    once = menu_of(market, tiers=2)
    found = menu_of(market, tiers=2, objective="profit_if_resumed")
    forged = found | {"tiers": once["tiers"], "assignment": once["assignment"], "totals": once["totals"]}

    assert not verify(forged).ok


def test_an_offer_that_earns_one_per_cent_less_is_refused_though_all_its_figures_are_right() -> None:
    """The whole file is computed from the caps that are found, at prices one per cent lower."""
    market, wished = read_market(markets.lognormal()), Wishes(tiers=2, objective="profit_if_resumed")
    solution = solve(market, wished)
    assert solution.offer is not None
    cheaper = Offer(solution.offer.caps, np.floor(0.99 * solution.offer.prices).astype(np.int64))

    found, forged = (
        verify(json.loads(json.dumps(written(market, wished, replace(solution, offer=offer), "2025-01-01T00:00:00Z"))))
        for offer in (solution.offer, cheaper)
    )

    assert found.ok, found.violation
    assert "price_nanousd" in (forged.violation or "")


def test_every_pair_of_caps_and_prices_on_a_small_grid() -> None:
    """Trying all offers at forty prices finds nothing better."""
    random = np.random.default_rng(5)
    for _ in range(3):
        description = markets.random_market(random, types_max=3, steps_max=4)
        valuation = valuation_of(read_market(description | {"value_nanousd": 1e9}))
        steps = len(valuation.steps.tokens)
        prices = np.linspace(0.02, 0.8, 40) * 1e9
        single = [Offer(np.array([cap]), np.array([int(price)])) for cap in range(1, steps + 1) for price in prices]
        double = [
            cleaned(np.array(caps), np.array([int(low), int(high)]))
            for caps in combinations(range(1, steps + 1), 2)
            for low, high in product(prices[::2], prices[::2])
            if low < high
        ]
        tried = max(resumed(valuation, one) for one in single + double)

        assert resumed(valuation, best_offer(valuation, Aim(resumed), 2)) >= tried * (1 - 1e-6)


def test_thinned_types_keep_all_customers() -> None:
    """Runs of types are merged at the urgency of the last: profit is understated, the share is not."""
    urgency = {"family": "uniform", "low_per_s": 0.01, "high_per_s": 0.3, "points": 500}
    valuation = valuation_of(read_market(markets.market(types=None, urgency=urgency)))
    thin = thinned(valuation)

    assert len(thin.share) <= 48
    assert thin.share.sum() == pytest.approx(1)
    assert set(thin.urgency_per_s) <= set(valuation.urgency_per_s)


def test_it_earns_no_less_than_the_menus_bought_once() -> None:
    """With many types the search uses only some of them, but the final comparison uses all."""
    urgency = {"family": "uniform", "low_per_s": 0.005, "high_per_s": 0.15, "points": 100}
    description = markets.lognormal() | {"urgency": urgency}
    del description["types"]
    description["answer_length"] = {
        "family": "table",
        "tokens": [100, 300, 600, 900, 3_000, 10_000],
        "probability": [1 / 6] * 6,
    }
    valuation = valuation_of(read_market(description))
    once = [resumed(valuation, offer_of(publish(valuation, menu.caps))) for menu in best_tiers(valuation, 3)]

    assert resumed(valuation, best_offer(valuation, Aim(resumed), 3)) >= max(once)


@pytest.mark.parametrize("longest", [10**7 + 19, 9 * 10**9 + 7])
def test_long_answers_take_little_memory(longest: int) -> None:
    """With caps without a common divisor, only the places that purchases reach are computed, not every token."""
    tokens = [longest // 3_001 + 1, longest // 701 + 2, longest // 101 + 4, longest // 2 + 1, longest]
    description = markets.market(
        answer_length={"family": "table", "tokens": tokens, "probability": [0.3, 0.2, 0.2, 0.2, 0.1]},
        types=markets.types([0.01, 0.05, 0.2, 2, 9, 80], [0.2, 0.1, 0.1, 0.2, 0.2, 0.2]),
        tokens_per_s=longest / 60,
        first_token_s=0,
        cap_tokens_max=longest,
    )
    market = read_market(description)

    tracemalloc.start()
    menu = menu_of(market)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(menu["tiers"]) > 2
    assert most < 60e6
    assert verify(menu).ok


def test_the_lasting_menu_is_never_below_the_single_plan() -> None:
    """In random markets it earns at least as much if resumed as one plan without a cap, and as the advised menus."""
    random = np.random.default_rng(23)
    better, moved = 0, 0
    for _ in range(12):
        description = markets.random_market(random, types_max=5, steps_max=12, cost=bool(random.integers(2)))
        market = read_market(
            description | {"value_nanousd": 1e9, "cost_nanousd_per_token": 1e9 * description["cost_nanousd_per_token"]}
        )
        menu = menu_of(market, objective="profit_if_resumed")["totals"]
        optimal = menu_of(market)["totals"]

        assert menu["profit_if_resumed_nanousd"] >= optimal["single_plan_profit_nanousd"] - 1
        better += menu["profit_if_resumed_nanousd"] > optimal["profit_if_resumed_nanousd"] * 1.001
        by_number = max(line.profit_if_resumed for line in advise(valuation_of(market), most=5).lines)
        by_number = max(by_number, optimal["single_plan_profit_nanousd"])
        assert menu["profit_if_resumed_nanousd"] >= by_number - 1
        moved += menu["profit_if_resumed_nanousd"] > by_number * 1.0001 + 1
    assert better > 0
    assert moved > 0


def test_the_lasting_menu_is_nearly_always_above_the_best_caps_at_the_mechanisms_prices() -> None:
    """The comparison is with every set of up to three caps."""
    random = np.random.default_rng(43)
    lost = []
    for _ in range(6):
        market = read_market(markets.random_market(random, types_max=4, steps_max=20) | {"value_nanousd": 1e9})
        valuation = valuation_of(market)
        steps = range(1, len(valuation.steps.tokens) + 1)
        every = [np.array(caps) for count in (1, 2, 3) for caps in combinations(steps, count)]
        earned = [if_resumed(valuation, best_for_caps(valuation, caps).caps) for caps in every]

        lost.append(1 - resumed(valuation, best_offer(valuation, Aim(resumed), 3)) / max(earned))
    assert np.quantile(lost, 0.9) < 1e-9
    assert max(lost) < 0.03
