"""Answers of one customer are alike: the effect on bands and tests, and lengths that depend on urgency or on time."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple, replace
from functools import partial

import numpy as np
import pytest

from pricing.estimate.as_market import market_of, priced
from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from pricing.estimate.influence import without_machines
from pricing.estimate.laws.length import estimate_length
from pricing.estimate.laws.own_lengths import own_laws
from pricing.estimate.laws.pace import estimate_pace
from pricing.estimate.notes import OWN_SPREAD_LEAST
from pricing.estimate.observations.conversations import CannotEstimate, length_bin
from pricing.estimate.observations.spread import Differing, bins_of, by_urgency, own_spread
from pricing.estimate.observations.statistics import Customers, Offer, Statistics
from pricing.market.answers import Floats
from tests.pricing.estimate.crowds import UNCAPPED, Crowd, Habits, crowd_of, watched
from tests.pricing.estimate.own_laws import worth_of
from tests.pricing.estimate.recovery import CHOOSING, THREE
from tests.pricing.estimate.simulated import BRIEF, lognormal_cdf
from tests.pricing.estimate.violations import SHORT, VIOLATIONS, earned, seen_in

CUSTOMERS, EACH = 600, 30
briefly = partial(fit, sweeps=BRIEF)
GIVEN = Given(1e9, 0.0)


def crowd(random: np.random.Generator, *, sigma: float = 0.0, linked: bool = False) -> Crowd:
    """Return customers whose median lengths differ at random, or fall from 800 tokens to 150 with urgency."""
    them = crowd_of(THREE, CUSTOMERS, EACH, random)
    medians = np.select([them.urgency_per_s < 0.02, them.urgency_per_s < 0.1], [800.0, 400.0], 150.0)
    spread = THREE.median_tokens * np.exp(sigma * random.standard_normal(CUSTOMERS))
    return replace(them, median_tokens=medians if linked else spread)


def linked_lengths(statistics: Statistics) -> Differing:
    them, own = statistics.customers, statistics.own
    assert own is not None
    assert them.even is not None
    even = them.even.disconnects.astype(np.float64), them.even.waited_s
    found = by_urgency(own, them.disconnects.astype(np.float64), them.waited_s, even)
    assert found is not None
    return found


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_a_band_covers_as_often_as_it_says_where_customers_differ(sigma: float) -> None:
    """Over 60 draws at five lengths; a band that treats all answers as independent covers less than 80 %."""
    lengths: Floats = np.array([100, 200, 400, 800, 1600])
    truth = 1 - lognormal_cdf(lengths / THREE.median_tokens, float(np.hypot(THREE.sigma, sigma)))
    covered, naively = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        seen = watched(crowd(random, sigma=sigma), THREE, None, random)
        for own, counts in ((seen.own, covered), (None, naively)):
            curve = estimate_length(seen.lengths, own).pooled
            assert curve is not None
            low, high = curve.band_at(lengths.astype(np.int64))
            counts.append(np.mean((low <= truth) & (truth <= high)))

    assert 0.92 <= np.mean(covered) <= 0.985
    assert np.mean(naively) < 0.8


def test_redrawn_curves_are_as_far_apart_as_estimates_of_other_customers() -> None:
    """At the median, the bootstrap over customers is compared with fifty markets of independent customers."""
    at = np.array([400])
    found = []
    for seed in range(50):
        random = np.random.default_rng(seed)
        seen = watched(crowd(random, sigma=0.6), THREE, None, random)
        found.append(estimate_length(seen.lengths, seen.own))
    curves = [one.pooled.at(at)[0] for one in found if one.pooled is not None]
    redrawn = [found[0].redrawn(np.random.default_rng(seed)).at(at)[0] for seed in range(50)]

    assert np.std(redrawn) == pytest.approx(np.std(curves), rel=0.4)


def test_tiers_assigned_at_random_are_not_found_to_differ_in_length() -> None:
    """Of forty markets whose customers differ, the test at 1 % refuses at most two; a test that treats all answers as
    independent refuses many."""
    offer = Offer((300, 1000, UNCAPPED), (1, 2, 3))
    refused = naively = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        them = crowd(random, sigma=0.6)
        seen = watched(them, THREE, offer, random, taken=random.integers(1, 4, CUSTOMERS))
        refused += estimate_length(seen.lengths, seen.own).differs
        naively += estimate_length(seen.lengths).differs

    assert refused <= 2
    assert naively > 8


def test_lengths_that_go_with_urgency_are_told_from_lengths_that_do_not() -> None:
    """Twenty markets of each kind, in observe mode, where there are no tiers to compare."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        other = linked_lengths(watched(crowd(random, sigma=0.6), THREE, None, random))
        linked = linked_lengths(watched(crowd(random, linked=True), THREE, None, random))

        assert linked.p_value < 1e-6
        assert linked.ratio > 2
        assert other.p_value > 0.001 or 0.8 < other.ratio < 1.25


@pytest.mark.parametrize(("linked", "ratio"), [(True, 5.0), (False, 1.0)])
def test_how_much_sooner_answers_of_the_urgent_end_is_told(linked: bool, ratio: float) -> None:
    """With medians of 800 and 150 tokens for r = 0.01 and 0.15, answers of the urgent end between three and nine times
    as fast, token for token. The worth of a patient customer's own long answers is that of common answers to a more
    urgent customer."""
    random = np.random.default_rng(1)
    seen = watched(crowd(random, linked=linked), THREE, None, random)
    curve, pace = estimate_length(seen.lengths, seen.own).pooled, estimate_pace(seen.pace)
    assert seen.own is not None
    assert curve is not None
    rates = np.array(THREE.urgency_per_s)

    found = own_laws(seen.own, seen.customers, rates, np.array(THREE.share))

    times, seeming = found.times(rates), found.seeming(rates, curve, pace, np.arange(10, 4001, 10))
    assert ratio / 1.8 < times[-1] / times[0] < ratio * 1.8
    if linked:
        worth = [worth_of(THREE, SHORT)[kind, -1] / 1e9 for kind in range(3)]
        time_s = pace.first_token_s + np.arange(10, 4001, 10) / pace.tokens_per_s
        by_common = np.exp(-np.outer(seeming, time_s)) @ -np.diff(curve.at(np.arange(10, 4001, 10)), prepend=1.0)
        assert by_common == pytest.approx(worth, rel=0.1)
    else:
        assert seeming == pytest.approx(rates, rel=0.1)


def test_a_fit_refuses_lengths_that_go_with_urgency_unless_they_may_and_then_sells_one_tier() -> None:
    """An operator who states that lengths may differ gets one tier, priced by the worth of each type's own whole
    answers: priced by the common law it earned 0.62 of the maximum in two draws of five, the best single plan 0.87."""
    random = np.random.default_rng(1)
    seen = watched(crowd(random, linked=True), THREE, None, random)

    with pytest.raises(
        CannotEstimate, match=r"Answers of the third of customers who leave soonest end .* times as fast"
    ):
        briefly(seen, GIVEN, draws=4, random=random)
    estimate = briefly(seen, replace(GIVEN, lengths_may_differ=True), draws=4, random=random)

    assert any("As lengths may differ, the menu has one tier" in note for note in estimate.notes)
    assert market_of(estimate, priced(estimate))["estimate"]["tiers"] == 1
    assert earned(estimate, VIOLATIONS["2: the same, and they may"]) > 0.75


def test_lengths_that_have_changed_are_those_of_the_time_since() -> None:
    """Answers of a new model are half as long in the last of four windows."""
    random = np.random.default_rng(2)
    habits = Habits(lengths=(1.0, 1.0, 1.0, 0.5))
    seen = watched(crowd(random), THREE, None, random, habits)
    at = np.array([100, 200, 400])

    estimate = briefly(seen, GIVEN, draws=20, random=random)

    truth = 1 - lognormal_cdf(at / (0.5 * THREE.median_tokens), THREE.sigma)
    assert estimate.length.pooled is not None
    assert estimate.length.since == 3
    assert estimate.length.pooled.at(at) == pytest.approx(truth, abs=0.03)
    assert np.mean([one["answer_length"]["survival"][0] for one in estimate.draws]) > 0
    assert any("Answers have become shorter" in note for note in estimate.notes)


def test_lengths_that_do_not_change_are_those_of_all_the_time() -> None:
    for seed in range(10):
        random = np.random.default_rng(seed)
        seen = watched(crowd(random, sigma=0.4), THREE, CHOOSING, random, Habits(lengths=(1.0, 1.0, 1.0, 1.0)))

        assert estimate_length(seen.lengths, seen.own).since == 0


def test_a_bin_is_found_alike_one_by_one_and_all_at_once() -> None:
    tokens = np.arange(1, 5000)

    assert bins_of(tokens).tolist() == [length_bin(one) for one in tokens.tolist()]


def test_a_health_check_is_set_aside_with_its_answers_and_counted() -> None:
    """Three of 603 customers request one token 15,000 times, most of the conversations; none of them is used."""
    random = np.random.default_rng(3)
    people = crowd(random)
    bots = Crowd(np.full(3, 1e-6), np.full(3, 1e9), np.full(3, 0.01), np.full(3, 15_000), np.full(3, 0.8))
    both = Crowd(*(np.concatenate(pair) for pair in zip(astuple(people), astuple(bots), strict=True)))

    estimate = briefly(watched(both, THREE, None, np.random.default_rng(4)), GIVEN, draws=4, random=random)

    assert estimate.set_aside == {"customers_like_programs": 3}
    assert estimate.length.counts.observed[estimate.length.counts.tokens == 1].sum() == 0
    reached = [sum(t["share"] for t in estimate.market["types"] if t["urgency_per_s"] <= at) for at in (0.025, 0.09)]
    assert reached == pytest.approx((0.3, 0.7), abs=0.08)


@pytest.mark.parametrize(("sigma", "aside"), [(0.1, 3), (0.4, 0)])
def test_programs_of_about_one_length_are_set_aside_only_where_people_differ_more(sigma: float, aside: int) -> None:
    """They have 500 times the usual conversations, and nineteen of twenty answers within a factor of two: with them a
    menu earned nothing from people in one draw of two. A customer with as many varied answers stays and is named."""
    random = np.random.default_rng(3)
    people = crowd(random)
    many = Crowd(np.full(3, 1e-6), np.full(3, 1e9), np.full(3, 300.0), np.full(3, 15_000), np.full(3, sigma))
    both = Crowd(*(np.concatenate(pair) for pair in zip(astuple(people), astuple(many), strict=True)))

    kept = without_machines(watched(both, THREE, None, random))

    assert len(kept.customers.conversations) == CUSTOMERS + 3 - aside
    assert kept.set_aside == ({"customers_like_programs": aside} if aside else {})


def test_looking_for_programs_takes_memory_for_those_who_may_be_one_not_for_all_customers() -> None:
    """The check reads the lengths of some ten thousand customers; a table of bins for a million took 800 MB."""
    random, others = np.random.default_rng(3), 200_000
    people = crowd(random)
    bots = Crowd(np.full(3, 1e-6), np.full(3, 1e9), np.full(3, 0.01), np.full(3, 15_000), np.full(3, 0.8))
    seen = watched(
        Crowd(*(np.concatenate(pair) for pair in zip(astuple(people), astuple(bots), strict=True))), THREE, None, random
    )
    counts = (seen.customers.disconnects, seen.customers.waited_s, seen.customers.conversations)
    many = Customers(*(np.append(column, np.ones(others, dtype=column.dtype)) for column in counts))

    tracemalloc.start()
    kept = without_machines(replace(seen, customers=many))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(kept.customers.conversations) == CUSTOMERS + others
    assert most < 40e6


def test_a_few_customers_who_hold_most_of_the_conversations_are_named_with_what_they_do() -> None:
    random = np.random.default_rng(5)
    people = crowd(random)
    urgent = np.flatnonzero(people.urgency_per_s == 0.15)[:10]
    heavy = np.full(CUSTOMERS, 30)
    heavy[urgent] = 3_000

    estimate = briefly(
        watched(replace(people, conversations=heavy), THREE, None, random), GIVEN, draws=4, random=random
    )

    assert any("10 of 600 customers hold 63%" in note and "0.15" in note for note in estimate.notes), estimate.notes


def test_how_customers_differ_in_length_is_told_where_they_chose() -> None:
    """Medians differ by σ = 0.6: choices were once read under one law of lengths, and contradicted the value."""
    apart, alike = VIOLATIONS["5: the same, tiers taken"], VIOLATIONS["none: tiers taken"]
    random = np.random.default_rng(0)
    seen = seen_in(apart, random)

    estimate = briefly(seen, GIVEN, draws=2, random=random)

    honest = [seen_in(alike, np.random.default_rng(seed), 200, 20).own for seed in range(10)]
    spreads = [own_spread(own) for own in honest if own is not None]
    assert seen.own is not None
    assert len(spreads) == 10
    assert any(note.startswith("Customers differ in how long their answers are") for note in estimate.notes)
    assert max(spreads) < OWN_SPREAD_LEAST
    assert own_spread(seen.own) == pytest.approx(0.55, abs=0.05)
