"""Profit against customers' surplus: no menu of the frontier beats another at its own weight; both ends are known."""

from __future__ import annotations

from itertools import pairwise, product

import pytest

import pricing
from pricing.comparisons.frontiers import frontier
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.tiers import best_tiers
from tests.pricing import markets

COSTLY = markets.market(cost_nanousd_per_token=2_000, cap_tokens_max=4_000)


@pytest.mark.parametrize(("market", "tiers"), [(markets.lognormal(), None), (markets.lognormal(), 2), (COSTLY, 3)])
def test_no_menu_of_the_frontier_is_better_than_another_at_its_own_weight(
    market: markets.Json, tiers: int | None
) -> None:
    """Profit falls and surplus rises with the weight; each menu is within its bound."""
    places = frontier(read_market(market), tiers=tiers).places

    for one, other in product(places, places):
        assert other.profit + one.surplus_weight * other.surplus <= one.aim * (1 + 1e-9) + 2
    for before, after in pairwise(places):
        assert after.profit <= before.profit + 2
        assert after.surplus >= before.surplus - 2
    assert all(place.aim <= place.bound + 1e-6 for place in places)
    assert all(place.tiers <= (tiers or 100) for place in places)


def test_it_begins_with_the_most_profitable_menu_and_ends_with_all_that_answers_are_worth() -> None:
    """The first has the full menu's profit, up to rounding; the last totals the worth of answers without caps."""
    valuation = valuation_of(read_market(markets.lognormal()))
    first, *_, last = frontier(read_market(markets.lognormal())).places

    assert first.profit == pytest.approx(full_menu(valuation).profit, rel=1e-7)
    assert last.aim == pytest.approx(
        float(valuation.share @ valuation.gains(slice(None), valuation.left(slice(None))).sum(axis=1))
    )
    assert best_tiers(valuation, 1)[0].profit < first.profit


def test_the_library_draws_it() -> None:
    market = pricing.Market(types=[(0.01, 0.3), (0.05, 0.4), (0.15, 0.3)], mean_tokens=400, tokens_per_s=50)

    found = pricing.frontier(market, tiers=3, weights=(0.0, 0.5, 1.0))

    assert found.plot().startswith("<svg")
    assert found.to_columns()["surplus_weight"] == [0.0, 0.5, 1.0]
    assert found.to_json()["currency"] == "USD"
    assert len(found.summary().splitlines()) == 5
