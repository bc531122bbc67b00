"""A short recovery of known markets; ``make recovery`` is the long run, with a table in pricing/estimate/README.md."""

from __future__ import annotations

import pytest

from pricing.estimate.laws.sampling import Sweeps
from tests.pricing.estimate.recovery import CASES, attainable, recover, with_and_without_choices
from tests.pricing.estimate.simulated import BRIEF

FEW = 10
"""Draws of a market: enough to find by how much its value is understated."""


@pytest.mark.parametrize("name", ["three types", "lognormal urgency", "one type", "drift"])
def test_many_customers_tell_enough_for_a_menu_that_earns_nearly_all(name: str) -> None:
    """1,000 customers of 30 conversations each; the menu earns at least 0.99 of a single plan from the same data."""
    earned = recover(CASES[name], 1000, 30, seed=0, draws=FEW, sweeps=BRIEF)

    assert earned.menu > 0.93
    assert earned.against_single >= 0.99


def test_what_nobody_knows_of_the_excluded_costs_little() -> None:
    """Refusals do not tell how far the excluded are beyond the threshold; a menu for all that is known earns 0.98."""
    earned = recover(CASES["a menu that excluded a type"], 1000, 30, seed=0, draws=FEW, sweeps=BRIEF)

    assert attainable() == pytest.approx(0.983, abs=0.002)
    assert attainable() - 0.05 < earned.menu < 1


def test_choices_of_a_tier_lower_the_regret() -> None:
    """Compared with disconnects alone of the same customers, few of whom left; ``make recovery`` prints by how much."""
    both, alone = with_and_without_choices(300, 3, range(1), draws=8, sweeps=Sweeps(2, 75, 125, 75, 75))

    assert both[0] > alone[0] + 0.1
