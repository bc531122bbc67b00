"""When disconnects must not be read as urgency: time-outs, moods, rates that are not constant."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.estimate.laws.leaving import LeavingTests, examine, spikes_at_timeouts
from pricing.estimate.observations.statistics import AgeCounts, Statistics
from pricing.market.answers import Floats, Ints
from tests.pricing.estimate.simulated import Truth, watch

THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))


def examined(statistics: Statistics) -> LeavingTests:
    return examine(statistics.customers, statistics.ages)


def test_a_market_of_constant_urgencies_passes() -> None:
    """So does a market whose volumes differ tenfold; chance rejects one in a thousand, so at most one of 40."""
    random = np.random.default_rng(1)
    markets = [THREE, Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3), volume=(10, 3, 1))]

    refused = [
        examined(watch(market, customers=300, conversations=20, random=random)).refused
        for market in markets
        for _ in range(20)
    ]

    assert sum(reason is not None for reason in refused) <= 1, refused


@pytest.mark.parametrize("timeout_s", [30, 60])
def test_a_time_out_of_clients_is_detected(timeout_s: int) -> None:
    truth = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)

    tests = examined(
        watch(
            truth,
            customers=500,
            conversations=20,
            random=np.random.default_rng(2),
            timeout_s=timeout_s,
            cap_tokens=9000,
        )
    )

    assert tests.spikes_s == (timeout_s,)
    assert tests.refused is None
    assert tests.untimed_only


def test_customers_of_two_conversations_are_not_mistaken_for_ones_who_leave_early() -> None:
    """Customers who left early waited little: their share of early disconnects is high, but not the score."""
    tests = examined(watch(THREE, customers=20_000, conversations=2, random=np.random.default_rng(6)))

    assert tests.hazard_p is not None
    assert tests.hazard_drift is not None
    assert tests.hazard_p > 0.01
    assert abs(tests.hazard_drift) < 0.03


def test_a_time_out_of_ten_minutes_is_told_from_a_rate_that_merely_falls() -> None:
    ages = np.arange(700)
    smooth = np.round(5000 * np.exp(-ages / 40) + 20).astype(np.int64)
    spiked = smooth.copy()
    spiked[600] += 60

    waited_s = np.full(700, 1e5)
    assert spikes_at_timeouts(AgeCounts(smooth, waited_s)) == ()
    assert spikes_at_timeouts(AgeCounts(spiked, waited_s)) == (600,)


def test_a_customer_of_many_moods_is_not_read_as_one_urgency() -> None:
    """Each conversation has its own urgency, so within a customer the rate falls as a wait goes on."""

    def moods(urgency: Floats, day: Ints, random: np.random.Generator) -> Floats:
        return urgency * np.where(random.random(len(urgency)) < 0.5, 0.1, 6.0)

    tests = examined(watch(THREE, customers=1000, conversations=40, random=np.random.default_rng(3), rate=moods))

    assert tests.refused is not None
    assert "soon after the start" in tests.refused


def test_a_customer_who_hurries_on_some_days_is_over_dispersed() -> None:
    def days(urgency: Floats, day: Ints, random: np.random.Generator) -> Floats:
        hurried = random.random(day.max() + 1) < 0.5
        return np.where(hurried[day], 0.09, 0.02)

    tests = examined(watch(THREE, customers=1000, conversations=40, random=np.random.default_rng(4), rate=days))

    assert tests.refused is not None
    assert tests.dispersion_p is not None
    assert tests.dispersion_p < 1e-6


def test_what_was_not_kept_is_not_tested() -> None:
    seen = watch(THREE, customers=100, conversations=10, random=np.random.default_rng(5)).customers

    tests = examine(type(seen)(seen.disconnects, seen.waited_s, seen.conversations), None)

    assert tests == LeavingTests(None, None, (), None, None, None)
