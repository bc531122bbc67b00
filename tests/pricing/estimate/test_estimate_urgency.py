"""Who is how urgent: recovered from leaving, from choosing, and from both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.answers import Floats
from pricing.estimate.choices import intervals_of, worth_from_refusals
from pricing.estimate.conversations import CannotEstimate
from pricing.estimate.mixing import (
    Mixing,
    Rows,
    climb,
    estimate_mixing,
    joined,
    rows_of_choices,
    rows_of_customers,
)
from pricing.estimate.statistics import Customers, Offer
from tests.pricing.estimate.simulated import Truth, answers_of, choosing, watch

THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
OFFER = Offer((140, 1040, None), (60_000_000, 545_000_000, 625_000_000))
BETWEEN = (0.025, 0.09)


def reached(mixing: Mixing, at: tuple[float, ...] = BETWEEN) -> Floats:
    """Return G between the types."""
    return np.array([mixing.share[mixing.urgency_per_s <= one].sum() for one in at])


def leaving(customers: Customers) -> Rows:
    return rows_of_customers(customers, [], leaving=True)[0]


def test_three_urgencies_are_recovered_from_who_leaves_when() -> None:
    random = np.random.default_rng(1)
    seen = watch(THREE, customers=2000, conversations=30, random=random).customers

    mixing = estimate_mixing(leaving(seen), draws=20, random=random)

    np.testing.assert_allclose(reached(mixing), (0.3, 0.7), atol=0.04)
    assert np.dot(mixing.share, mixing.urgency_per_s) == pytest.approx(0.068, rel=0.05)
    np.testing.assert_allclose(mixing.draws.sum(axis=1), 1)


def test_customers_weighted_equally_miss_a_market_where_the_patient_talk_more() -> None:
    """Shares are of conversations: patient customers with ten times as many are few, and most of the market."""
    random = np.random.default_rng(2)
    truth = Truth((0.01, 0.05, 0.15), (0.6, 0.25, 0.15), volume=(10, 3, 1))
    seen = watch(truth, customers=2000, conversations=20, random=random).customers
    equal = leaving(seen)
    heads = replace(equal, weight=equal.weight**2 / equal.squares, squares=equal.weight**2 / equal.squares)

    mixing = estimate_mixing(leaving(seen), draws=10, random=random)
    naive = estimate_mixing(heads, draws=10, random=random)

    np.testing.assert_allclose(reached(mixing), (0.6, 0.85), atol=0.05)
    assert reached(naive)[0] < 0.4


def test_the_converged_maximum_is_a_few_atoms_and_the_estimate_is_not() -> None:
    random = np.random.default_rng(3)
    rows = leaving(watch(THREE, customers=300, conversations=20, random=random).customers)

    mixing = estimate_mixing(rows, draws=40, random=random)
    maximum = climb(rows, mixing.urgency_per_s, rows.weight[:, None], 20_000)[:, 0]

    assert 1 / np.dot(maximum, maximum) < 15
    assert 1 / np.dot(mixing.share, mixing.share) > 60


def test_the_climb_reaches_the_maximum_of_the_likelihood() -> None:
    """At a maximum no urgency's directional derivative is above 1, and it is 1 where there is mass (Lindsay)."""
    random = np.random.default_rng(4)
    rows = leaving(watch(THREE, customers=200, conversations=10, random=random).customers)
    grid = np.geomspace(1e-3, 1, 40)

    share = climb(rows, grid, rows.weight[:, None], 30_000)[:, 0]

    likelihood = np.exp(rows.log_likelihood(grid))
    slope = likelihood.T @ (rows.weight / rows.weight.sum() / (likelihood @ share))
    assert slope.max() < 1 + 1e-3
    np.testing.assert_allclose(slope[share > 1e-2], 1, atol=1e-3)


def test_each_tier_is_best_on_one_interval_as_trying_them_all_shows() -> None:
    answers = answers_of(THREE)
    grid = np.geomspace(1e-3, 3, 300)

    intervals = intervals_of(OFFER, answers)

    gains = np.array(
        [
            [0.0]
            + [
                answers.worth(r, cap) - price
                for cap, price in zip(OFFER.caps_tokens, OFFER.prices_nanousd, strict=True)
            ]
            for r in grid.tolist()
        ]
    )
    best = gains.argmax(axis=1)
    for tier in range(4):
        inside = (grid > intervals.low[tier]) & (grid <= intervals.high[tier])
        np.testing.assert_array_equal(inside, best == tier)


def test_the_indifferent_urgency_solves_its_equation() -> None:
    answers = answers_of(THREE)

    edge = float(intervals_of(OFFER, answers).high[3])

    rise = answers.worth(edge, None) - answers.worth(edge, 1040)
    assert rise == pytest.approx(80_000_000, abs=1)


def test_a_tier_that_nobody_wants_is_nobodys_interval() -> None:
    dear = Offer((140, 1040, 4000), (60_000_000, 900_000_000, 900_000_001))

    intervals = intervals_of(dear, answers_of(THREE))

    assert intervals.low[2] >= intervals.high[2]
    assert intervals.low[3] < intervals.high[3]


def test_an_offer_whose_caps_fall_is_refused() -> None:
    with pytest.raises(CannotEstimate, match="caps of an offer rise"):
        intervals_of(Offer((300, 100), (1, 2)), answers_of(THREE))


def test_choices_alone_tell_the_shares_between_thresholds() -> None:
    """Turnbull's estimator: with one offer, the shares of the tiers themselves; refusals are the most urgent."""
    random = np.random.default_rng(5)
    truth = Truth((0.01, 0.05, 0.15, 2.0), (0.3, 0.3, 0.2, 0.2))
    taken = np.bincount(choosing(truth, OFFER, 5000, 1, random).ravel(), minlength=4)
    intervals = intervals_of(OFFER, answers_of(truth))

    mixing = estimate_mixing(rows_of_choices(intervals, tuple(taken.tolist())), draws=50, random=random)

    for tier in range(4):
        inside = (mixing.urgency_per_s > intervals.low[tier]) & (mixing.urgency_per_s <= intervals.high[tier])
        assert mixing.share[inside].sum() == pytest.approx(taken[tier] / 5000, abs=0.005)


def test_choices_sharpen_what_leaving_tells() -> None:
    """Twenty conversations a customer leave G at the thresholds blurred; the tiers they took do not."""
    random = np.random.default_rng(6)
    truth = Truth((0.03, 0.05, 0.1), (0.3, 0.4, 0.3))
    seen = watch(truth, customers=400, conversations=8, random=random).customers
    offer = Offer((500, 1200, None), (400_000_000, 570_000_000, 582_000_000))
    intervals = intervals_of(offer, answers_of(truth))
    counts = np.bincount(choosing(truth, offer, 400, 8, random).ravel(), minlength=4)
    assert (counts > 0).sum() >= 3
    edges = (float(intervals.high[3]), float(intervals.high[2]))
    right = np.array([sum(q for r, q in zip(truth.urgency_per_s, truth.share, strict=True) if r <= e) for e in edges])

    alone = estimate_mixing(leaving(seen), draws=20, random=random)
    both = estimate_mixing(
        joined([leaving(seen), rows_of_choices(intervals, tuple(counts.tolist()))]), draws=20, random=random
    )

    assert np.abs(reached(both, edges) - right).max() < np.abs(reached(alone, edges) - right).max()


def test_a_customer_whose_choices_contradict_each_other_is_counted_and_left_out() -> None:
    random = np.random.default_rng(7)
    seen = watch(THREE, customers=100, conversations=10, random=random).customers
    choices = np.full((100, 2), 2)
    choices[:7] = [1, 3]
    intervals = intervals_of(OFFER, answers_of(THREE))

    rows, contradicting = rows_of_customers(replace(seen, choices=choices), [intervals, intervals], leaving=False)

    assert contradicting == 7
    assert rows.weight.sum() == 93 * 10


def test_the_worth_of_an_answer_is_read_from_who_begins_to_refuse() -> None:
    answers = answers_of(THREE)
    edge = float(intervals_of(OFFER, answers).low[0])

    worth = worth_from_refusals(replace(answers, value_nanousd=1.0), 140, 60_000_000, edge)

    assert worth == pytest.approx(THREE.value_nanousd, rel=1e-9)


def test_a_million_customers_cost_no_more_than_their_different_histories() -> None:
    random = np.random.default_rng(8)
    urgency = random.choice([0.01, 0.05, 0.15], 10**6)
    waited = random.gamma(20, 5, 10**6)

    rows = leaving(Customers(random.poisson(urgency * waited), waited, np.full(10**6, 20)))

    assert len(rows.weight) < 5000
    assert rows.weight.sum() == 20 * 10**6
