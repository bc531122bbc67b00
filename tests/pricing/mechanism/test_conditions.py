"""Own choice and participation, by hand: two types, two tiers, and each type's gain from another choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.conditions import conditions
from pricing.mechanism.rounding import Published
from tests.pricing import markets

TABLE = {"family": "table", "tokens": [10, 20], "probability": [0.5, 0.5]}
NAMES = ["small", "large"]
ERROR = 0.01


def market() -> Valuation:
    return valuation_of(read_market(markets.market(types=markets.types([0.1, 0.3], [0.5, 0.5]), answer_length=TABLE)))


def sold(prices: tuple[int, int], takes: tuple[int, int] = (1, 0), error: float = ERROR) -> Published:
    """Return a menu: the small tier is worth 10 to the patient type and 8 to the urgent, the large tier 20 and 12."""
    worth = np.array([[10.0, 20.0], [8.0, 12.0]])
    return Published(np.array([1, 2]), np.array(prices), np.array(takes), worth, error, 0, 0.0, 0.0)


def broken(published: Published) -> str:
    return conditions(market(), published, NAMES).broken or ""


@pytest.mark.parametrize(
    ("prices", "own_choice", "participation"), [((8, 17), 1.0, 0.0), ((7, 15), 2.0, 1.0), ((8, 13), 1.0, 0.0)]
)
def test_slacks_are_the_least_that_a_wrong_choice_costs_and_that_anybody_keeps(
    prices: tuple[int, int], own_choice: float, participation: float
) -> None:
    found = conditions(market(), sold(prices), NAMES)

    assert (found.own_choice, found.participation, found.broken) == (own_choice, participation, None)


def test_who_would_rather_have_another_tier_is_named() -> None:
    """The patient type keeps 1 in large and would keep 2 in small; or the urgent type would keep 1 in large."""
    assert broken(sold((8, 19))) == "The type of urgency 0.1/s gains 1 nano-units by taking small instead of large."
    assert broken(sold((8, 11))) == "The type of urgency 0.3/s gains 1 nano-units by taking large instead of small."


def test_who_takes_nothing_and_would_rather_have_a_tier_is_named() -> None:
    wrong = broken(sold((5, 14), takes=(1, -1)))

    assert wrong == "The type of urgency 0.3/s gains 3 nano-units by taking small instead of nothing."
    assert broken(sold((8, 17), takes=(1, -1))) == ""


def test_who_pays_more_than_a_tier_is_worth_is_named() -> None:
    assert broken(sold((9, 18))) == "The type of urgency 0.3/s pays 1 nano-units more for small than it is worth to it."


def test_what_the_error_of_a_worth_may_have_made_is_no_break() -> None:
    """Each of the two worths may be off by the error."""
    assert broken(sold((8, 19), error=0.5)) == ""
    assert "gains 1" in broken(sold((8, 19), error=0.49))
    assert broken(sold((9, 18), error=0.5)) == ""
    assert "pays 1" in broken(sold((9, 18), error=0.49))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (replace(sold((8, 17)), caps=np.array([2, 2])), "The caps of the tiers do not rise."),
        (replace(sold((8, 17)), caps=np.array([2, 1])), "The caps of the tiers do not rise."),
        (sold((9, 8)), "The prices of the tiers fall where their caps rise."),
        (sold((8, 17), takes=(0, 1)), "A more urgent type takes a larger tier than a more patient one."),
        (sold((8, 17), takes=(-1, 0)), "A more urgent type takes a larger tier than a more patient one."),
    ],
)
def test_caps_prices_and_takers_are_in_order(wrong: Published, sentence: str) -> None:
    assert broken(wrong) == sentence


def test_a_menu_without_tiers_breaks_nothing() -> None:
    none = np.array([], dtype=np.int64)
    found = conditions(market(), Published(none, none, np.array([-1, -1]), np.empty((2, 0)), 0.0, 0, 0.0, 0.0), [])

    assert (found.own_choice, found.participation, found.broken) == (0.0, 0.0, None)
