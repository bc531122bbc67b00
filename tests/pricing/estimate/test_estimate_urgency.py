"""The distribution of urgency, recovered from disconnects, from choices, and from both."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.special import gammaincinv

from pricing.estimate.drift import changed, steady_from
from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from pricing.estimate.laws.choices import intervals_of, worth_from_refusals
from pricing.estimate.laws.grouped_customers import Chosen, Rows, chosen_of, joined, rows_of_customers
from pricing.estimate.laws.sampling import Sweeps
from pricing.estimate.laws.urgency import Mixing, estimate_mixing
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Customers, Offer, Windows
from pricing.market.answers import Floats
from tests.pricing.estimate.naive import by_heads, maximum_likelihood
from tests.pricing.estimate.simulated import BRIEF, Truth, answers_of, choosing, watch

THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
OFFER = Offer((140, 1040, None), (60_000_000, 545_000_000, 625_000_000))
BETWEEN = (0.025, 0.09)

shortly = partial(estimate_mixing, sweeps=Sweeps(chains=2, burnt=75, kept=125))
"""A quarter of production's sweeps are enough for these claims."""


def reached(mixing: Mixing, at: tuple[float, ...] = BETWEEN) -> Floats:
    """Return the cumulative share G at urgencies between the types."""
    return np.array([mixing.share[mixing.urgency_per_s <= one].sum() for one in at])


def leaving(customers: Customers) -> Rows:
    return rows_of_customers(customers, [], leaving=True)[0]


def nobody() -> Rows:
    """Return the rows of no customer."""
    none = np.array([], dtype=np.int64)
    return rows_of_customers(Customers(none, np.zeros(0), none), [], leaving=True)[0]


NOBODY_CHOSE: Chosen = joined([])


def test_three_urgencies_are_recovered_from_who_leaves_when() -> None:
    random = np.random.default_rng(1)
    seen = watch(THREE, customers=2000, conversations=30, random=random).customers

    mixing = shortly(leaving(seen), NOBODY_CHOSE, draws=20, random=random)

    np.testing.assert_allclose(reached(mixing), (0.3, 0.7), atol=0.04)
    assert np.dot(mixing.share, mixing.urgency_per_s) == pytest.approx(0.068, rel=0.05)
    np.testing.assert_allclose(mixing.draws.sum(axis=1), 1)


def test_customers_weighted_equally_miss_a_market_where_the_patient_talk_more() -> None:
    """Shares are of conversations: patient customers with ten times as many are few, but most of the market."""
    random = np.random.default_rng(2)
    truth = Truth((0.01, 0.05, 0.15), (0.6, 0.25, 0.15), volume=(10, 3, 1))
    seen = watch(truth, customers=2000, conversations=20, random=random).customers
    mixing = shortly(leaving(seen), NOBODY_CHOSE, draws=10, random=random)
    naive = shortly(by_heads(leaving(seen)), NOBODY_CHOSE, draws=10, random=random)

    np.testing.assert_allclose(reached(mixing), (0.6, 0.85), atol=0.05)
    assert reached(naive)[0] < 0.4


def test_one_urgency_is_found_to_be_one() -> None:
    """The maximum of the likelihood splits one kind of customers into several; the posterior mean hardly does."""
    random = np.random.default_rng(3)
    one = Truth((0.05,), (1.0,))
    rows = leaving(watch(one, customers=1000, conversations=30, random=random).customers)

    mixing = shortly(rows, NOBODY_CHOSE, draws=20, random=random)
    maximum = maximum_likelihood(rows, mixing.urgency_per_s, 500)

    near = np.abs(np.log(mixing.urgency_per_s / 0.05)) < 0.05
    assert mixing.share[near].sum() > 0.9
    assert maximum[near].sum() < 0.8


def test_urgencies_without_gaps_come_out_smooth() -> None:
    """Each draw has few kinds, but different draws have different kinds."""
    random = np.random.default_rng(4)
    rates = tuple(np.geomspace(0.01, 0.2, 40).tolist())
    seen = watch(Truth(rates, (1 / 40,) * 40), customers=1000, conversations=30, random=random).customers

    mixing = shortly(leaving(seen), NOBODY_CHOSE, draws=20, random=random)

    right = np.array([np.mean(np.array(rates) <= at) for at in mixing.urgency_per_s])
    assert np.abs(np.cumsum(mixing.share) - right).max() < 0.1
    assert 1 / np.dot(mixing.share, mixing.share) > 40
    assert max(1 / np.dot(draw, draw) for draw in mixing.draws) < 20


def test_chains_from_different_starts_come_to_the_same() -> None:
    random = np.random.default_rng(12)
    seen = watch(THREE, customers=1000, conversations=30, random=random).customers

    mixing = estimate_mixing(leaving(seen), NOBODY_CHOSE, draws=20, random=random)

    assert mixing.apart < 1.05


def test_the_posterior_of_one_kind_is_the_gamma_law() -> None:
    """For ten customers of one kind, urgency has the gamma law of all disconnects and all seconds."""
    random = np.random.default_rng(13)
    waited = np.full(10, 200.0)
    left = np.array([8, 9, 10, 10, 10, 10, 10, 10, 11, 12])
    rows = leaving(Customers(left, waited, np.full(10, 20)))

    mixing = estimate_mixing(rows, NOBODY_CHOSE, draws=400, random=random)

    middle = [float(mixing.urgency_per_s[np.searchsorted(np.cumsum(mixing.share), q)]) for q in (0.25, 0.5, 0.75)]
    np.testing.assert_allclose(middle, gammaincinv(100, (0.25, 0.5, 0.75)) / 2000, rtol=0.03)


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
    """Turnbull's estimator: with one offer, these are the shares of the tiers; refusals are the most urgent."""
    random = np.random.default_rng(5)
    truth = Truth((0.01, 0.05, 0.15, 2.0), (0.3, 0.3, 0.2, 0.2))
    taken = np.bincount(choosing(truth, OFFER, 5000, 1, random).ravel(), minlength=4)
    intervals = intervals_of(OFFER, answers_of(truth))

    mixing = shortly(nobody(), chosen_of(intervals, int(taken[0]), tuple(taken[1:].tolist())), draws=50, random=random)

    for tier in range(4):
        inside = (mixing.urgency_per_s > intervals.low[tier]) & (mixing.urgency_per_s <= intervals.high[tier])
        assert mixing.share[inside].sum() == pytest.approx(taken[tier] / 5000, abs=0.005)


def test_choices_sharpen_what_leaving_tells() -> None:
    """Eight conversations of each customer leave G at the thresholds imprecise; the chosen tiers make it precise."""
    random = np.random.default_rng(6)
    truth = Truth((0.03, 0.05, 0.1), (0.3, 0.4, 0.3))
    seen = watch(truth, customers=400, conversations=8, random=random).customers
    offer = Offer((500, 1200, None), (400_000_000, 570_000_000, 582_000_000))
    intervals = intervals_of(offer, answers_of(truth))
    counts = np.bincount(choosing(truth, offer, 400, 8, random).ravel(), minlength=4)
    assert (counts > 0).sum() >= 3
    edges = (float(intervals.high[3]), float(intervals.high[2]))
    right = np.array([sum(q for r, q in zip(truth.urgency_per_s, truth.share, strict=True) if r <= e) for e in edges])

    alone = shortly(leaving(seen), NOBODY_CHOSE, draws=20, random=random)
    both = shortly(
        leaving(seen), chosen_of(intervals, int(counts[0]), tuple(counts[1:].tolist())), draws=20, random=random
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
    assert rows.conversations.sum() == 93 * 10


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

    assert len(rows.customers) < 5000
    assert rows.customers.sum() == 10**6
    assert rows.conversations.sum() == 20 * 10**6


def test_what_all_did_at_other_rates_before_sharpens_who_is_how_urgent_now() -> None:
    """Everyone is half as urgent in the second half as in the first; the estimate is of the second half, from both."""
    random = np.random.default_rng(14)
    before, now = (
        watch(
            Truth(tuple(f * r for r in THREE.urgency_per_s), THREE.share), customers=600, conversations=20, random=again
        ).customers
        for f, again in ((2.0, np.random.default_rng(15)), (1.0, np.random.default_rng(15)))
    )
    windows = Windows(
        (0, 1),
        np.column_stack((before.disconnects, now.disconnects)),
        np.column_stack((before.waited_s, now.waited_s)),
    )
    both = Customers(
        before.disconnects + now.disconnects,
        before.waited_s + now.waited_s,
        before.conversations + now.conversations,
        windows=changed(windows),
    )

    mixing = shortly(leaving(both), NOBODY_CHOSE, draws=20, random=random)

    assert both.windows is not None
    np.testing.assert_allclose(reached(mixing), (0.3, 0.7), atol=0.06)
    assert np.dot(mixing.share, mixing.urgency_per_s) == pytest.approx(0.068, rel=0.08)


def test_windows_alike_are_not_told_apart_and_others_are() -> None:
    """Chance alone separates at most one in a hundred; the comparison goes back from the last window."""
    found = [
        steady_from(windows_seen(drift, seed))
        for drift in ((1.0, 1.0, 1.0, 1.0), (1.5, 1.5, 1.0, 1.0))
        for seed in range(20)
    ]

    assert sum(first != 0 for first in found[:20]) <= 1
    assert sum(first != 2 for first in found[20:]) <= 1


def windows_seen(drift: tuple[float, ...], seed: int) -> Windows:
    random = np.random.default_rng(seed)
    windows = watch(THREE, customers=600, conversations=40, random=random, drift=drift).customers.windows
    assert windows is not None
    return windows


@pytest.mark.parametrize(("urgency_per_s", "left"), [(1e-9, 0), (1e-5, 1), (1e-4, 17)])
def test_where_hardly_anybody_leaves_the_interval_holds_the_truth(urgency_per_s: float, left: int) -> None:
    """Urgency is far below the inverse of any customer's wait: the interval covers what all waits together allow."""
    random = np.random.default_rng(0)
    seen = watch(Truth((urgency_per_s,), (1.0,)), customers=600, conversations=30, random=random)

    estimate = fit(seen, Given(1e9, 0.0), draws=20, random=random, sweeps=BRIEF)

    beside = estimate.market["intervals"]["urgency"]
    rates = np.array(beside["urgency_per_s"])
    low, high = (
        rates[min(int(np.searchsorted(np.array(beside[name]), 0.5)), len(rates) - 1)]
        for name in ("cumulative_share_high", "cumulative_share_low")
    )
    assert int(seen.customers.disconnects.sum()) == left
    assert high < 3e-4
    assert low <= max(urgency_per_s, 1e-6) <= high * 1.5
    assert any("conversations were left: urgency is at most" in note for note in estimate.notes) == (left < 10)
