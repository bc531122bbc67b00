"""A short recovery of known markets; ``make recovery`` is the long one, whose table stands in pricing/estimate/README.md."""

from __future__ import annotations

import pytest

from tests.pricing.estimate.recovery import CASES, recover


@pytest.mark.parametrize(
    ("name", "least"), [("lognormal urgency", 0.95), ("heavy-tailed answers", 0.95), ("one type", 0.93)]
)
def test_many_customers_tell_enough_for_a_menu_that_earns_nearly_all(name: str, least: float) -> None:
    """3,000 customers of 50 conversations each; and tiers earn no less than one plan made from the same data."""
    earned = [recover(CASES[name], 3000, 50, seed) for seed in range(2)]

    assert min(one.menu for one in earned) > least
    assert min(one.against_single for one in earned) >= 0.99


@pytest.mark.parametrize("name", ["time-outs after 30 s", "a menu that excluded a type"])
def test_what_the_records_hide_costs_something_and_is_not_lost(name: str) -> None:
    """Without leaving, or without the excluded at work, choices and refusals alone still price most of the market."""
    earned = recover(CASES[name], 3000, 50, seed=0)

    assert earned.menu > 0.8
    assert earned.against_single > 0.97
