"""Prices tried on some new customers tell the value of an answer where the menu in force leaves it open."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.estimate.comparison import BEYOND, Sold
from pricing.estimate.experiment import Limits, experiment_of
from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from tests.pricing.estimate.arms import (
    EACH,
    MARKETS,
    NEW,
    OLD,
    SOLD,
    TIMES,
    in_arms,
    market_of,
    offer_of,
    with_and_without_arms,
)
from tests.pricing.estimate.crowds import crowd_of, watched
from tests.pricing.estimate.recovery import CHOOSING, THREE, Case, earned, plainly
from tests.pricing.estimate.simulated import BRIEF

briefly = partial(fit, sweeps=BRIEF)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("market", MARKETS)
def test_arms_tell_a_value_within_a_tenth(market: str, times: float) -> None:
    """120 customers in each of up to five arms, prices changed by up to a factor of two; one draw of each market."""
    truth = replace(MARKETS[market], value_nanousd=times * 1e9)

    _, after = with_and_without_arms(truth, 0)

    assert after.best_nanousd == pytest.approx(truth.value_nanousd, rel=0.1)
    assert not after.is_open


@pytest.mark.parametrize("times", TIMES)
def test_without_arms_three_kinds_leave_it_open(times: float) -> None:
    truth = replace(MARKETS["three kinds"], value_nanousd=times * 1e9)

    before, _ = with_and_without_arms(truth, 0)

    assert before.is_open


def test_a_fit_reads_the_arms_and_its_menu_earns_what_a_value_left_open_loses() -> None:
    """Three kinds would pay 1.85 times the least possible value: without arms the menu is made for that least value."""
    truth, random = replace(THREE, value_nanousd=1.85e9), np.random.default_rng(3)
    crowd = crowd_of(truth, OLD, EACH, random)
    alone = briefly(watched(crowd, truth, CHOOSING, random), Given(None, 0.0), draws=3, random=random)
    assert alone.value is not None
    between = alone.value.low_nanousd, alone.value.high_nanousd
    arms = experiment_of(market_of(truth), between, SOLD, Limits(5, 1.5, 1.0, NEW))
    new = [(crowd_of(truth, NEW, EACH, random), offer_of(arm)) for arm in arms.arms]

    both = briefly(in_arms([(crowd, CHOOSING), *new], truth, random), Given(None, 0.0), draws=3, random=random)

    assert both.value is not None
    assert both.value.best_nanousd == pytest.approx(truth.value_nanousd, rel=0.1)
    case = Case(truth, plainly)
    assert earned(alone, case).menu < 0.7
    assert earned(both, case).menu > 0.9


@settings(deadline=None, max_examples=60)
@given(
    prices=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    caps=st.lists(st.integers(1, 5000), min_size=5, max_size=5, unique=True),
    is_open=st.booleans(),
    price_factor=st.floats(1, 4),
    cap_factor=st.floats(1, 4),
    number=st.integers(1, 5),
)
def test_no_arm_goes_beyond_a_limit(
    prices: list[int], caps: list[int], is_open: bool, price_factor: float, cap_factor: float, number: int
) -> None:
    """For any menu in force, prices and caps of an arm are whole, in order, and within the limits."""
    sizes = np.array(sorted(caps)[: len(prices)], dtype=np.int64)
    sizes[-1] = BEYOND if is_open else sizes[-1]
    offer = Sold(tuple(f"t{place}" for place in range(len(prices))), sizes, np.array(sorted(prices), dtype=np.float64))
    limits = Limits(number, price_factor, cap_factor, 100)

    found = experiment_of(market_of(THREE), (0.7e9, 1.5e9), offer, limits)

    assert len(found.arms) <= number
    for arm in found.arms:
        assert np.all(arm.prices * price_factor >= offer.prices)
        assert np.all(arm.prices <= offer.prices * price_factor)
        assert np.all(arm.prices == np.round(arm.prices))
        assert np.all(np.diff(arm.prices) >= 0)
        assert np.all(
            arm.caps_tokens <= np.where(sizes == BEYOND, BEYOND, np.floor(np.minimum(sizes, 5000) * cap_factor))
        )
        assert np.all(arm.caps_tokens * cap_factor >= np.minimum(sizes, BEYOND / 8))
        assert np.all(np.diff(arm.caps_tokens) > 0)


def test_caps_alone_tell_something_where_prices_stay() -> None:
    """With three kinds and a value between the truth and twice the truth, changed caps separate values better."""
    still = Limits(4, 1.0, 2.0, NEW)

    found = experiment_of(market_of(THREE), (1e9, 2e9), SOLD, still)

    assert found.arms
    assert all(np.array_equal(arm.prices, SOLD.prices) for arm in found.arms)
    assert (
        found.told_apart
        > experiment_of(market_of(THREE), (1e9, 2e9), SOLD, replace(still, cap_factor_max=1.0)).told_apart
    )


def test_where_nothing_within_the_limits_tells_more_nothing_is_proposed() -> None:
    found = experiment_of(market_of(THREE), (1e9, 2e9), SOLD, Limits(4, 1.0, 1.0, NEW))

    assert found.arms == ()
    assert found.told_apart < 0.5
