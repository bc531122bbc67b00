"""Whole prices at which each type still chooses its own tier, at a loss of a few nano-units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.conditions import conditions
from pricing.mechanism.lasting import margins
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.rounding import Published, publish
from pricing.menus.menus import optimal_menu
from tests.pricing import markets


def alike(types: int, value: float, cost: float = 0.0) -> Valuation:
    """Return a market of types that hardly differ, where a nano-unit matters."""
    random = np.random.default_rng(types)
    urgency = 0.2 + np.cumsum(random.uniform(1e-4, 1e-2, types))
    share = random.dirichlet(np.full(types, 0.6)) + 1e-3
    table = {"family": "table", "tokens": list(range(5, 301, 5)), "probability": [1 / 60] * 60}
    description = markets.market(
        types=markets.types(urgency, share / share.sum()),
        value_nanousd=value,
        answer_length=table,
        tokens_per_s=20,
        cost_nanousd_per_token=cost * value,
        cap_tokens_max=300,
    )
    return valuation_of(read_market(description))


def broken(valuation: Valuation, published: Published) -> str | None:
    return conditions(valuation, published, [f"t{place}" for place in range(len(published.caps))]).broken


@pytest.mark.parametrize("cost", [0.0, 5e-4])
@pytest.mark.parametrize("value", [30, 300, 3_000, 10**6])
@pytest.mark.parametrize("types", [3, 12, 60])
def test_rounding_keeps_every_choice_and_loses_little(types: int, value: float, cost: float) -> None:
    """Each sold or merged tier loses at most two nano-units."""
    valuation = alike(types, value, cost)
    full = full_menu(valuation)
    published = publish(valuation, full.caps)
    profit = float(np.dot(valuation.share, margins(valuation, published)))

    assert broken(valuation, published) is None
    assert (published.prices >= 1).all()
    assert full.profit - profit <= 2 * (len(published.caps) + published.merged)


def test_tiers_are_merged_where_rounding_breaks_a_choice() -> None:
    """A nano-unit cannot separate sixty types that hardly differ; rounding each price separately breaks the menu."""
    valuation = alike(60, 300)
    published = publish(valuation, full_menu(valuation).caps)
    caps = np.unique(full_menu(valuation).caps)
    unmerged = publish(alike(60, 10**9), full_menu(valuation).caps)
    each_alone = Published(
        unmerged.caps,
        np.floor(unmerged.prices / (10**9 / 300)).astype(np.int64),
        unmerged.takes,
        unmerged.worth * (300 / 10**9),
        published.error,
        0,
        0.0,
        0.0,
    )

    assert published.merged > 0
    assert len(published.caps) + published.merged == len(caps)
    assert broken(valuation, published) is None
    assert "gains" in (broken(valuation, each_alone) or "")


@pytest.mark.parametrize(("cost_per_token", "kept"), [(0.0, 60), (10.0, 10)])
def test_a_tier_is_merged_onto_the_cap_that_loses_less(cost_per_token: float, kept: int) -> None:
    """Two types that hardly differ: without cost both get the long cap, at a high cost both get the short cap."""
    share = np.array([0.5, 0.5])
    valuation = Valuation(
        np.array([0.2, 0.2001]),
        share,
        np.cumsum(share),
        np.full(2, 40.0),
        "exponential",
        alike(2, 40).steps,
        cost_per_token,
        stops=True,
    )

    assert publish(valuation, np.array([60, 10])).caps.tolist() == [kept]


def test_a_price_above_worth_is_named() -> None:
    """No type pays more than its tier is worth to it."""
    valuation = alike(3, 10**6)
    published = publish(valuation, full_menu(valuation).caps)
    dearer = replace(published, prices=published.prices + 10)

    assert broken(valuation, published) is None
    assert "pays" in (broken(valuation, dearer) or "")
    assert "rise" in (broken(valuation, replace(published, caps=published.caps[::-1])) or "")
    assert "fall" in (broken(valuation, replace(published, prices=published.prices[::-1])) or "")
    assert "larger tier" in (broken(valuation, replace(published, takes=published.takes[::-1])) or "")


def test_what_is_worth_less_than_a_nano_unit_is_not_sold() -> None:
    description = read_market(markets.market(value_nanousd=0.9))
    menu = optimal_menu(description, tiers=None, bill="conversation", names=None, created="2025-01-01")

    assert menu["tiers"] == []
    assert menu["totals"]["excluded_share"] == 1


def test_a_worth_that_is_a_whole_number_is_the_price() -> None:
    """Nobody is urgent, so the worth is exactly the value, whatever the last digit of the sums."""
    tokens = list(range(10, 101, 10))
    description = markets.market(
        types=[{"urgency_per_s": 0, "share": 1}],
        value_nanousd=1_000_000,
        answer_length={"family": "table", "tokens": tokens, "probability": [0.1] * 10},
    )
    menu = optimal_menu(read_market(description), tiers=None, bill="conversation", names=None, created="2025-01-01")

    assert [tier["price_nanousd"] for tier in menu["tiers"]] == [1_000_000]
