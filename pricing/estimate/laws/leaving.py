"""Tests of whether customers who leave in the middle of an answer are impatient, against three other explanations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import bdtrc, ndtr

from pricing.estimate.laws.length import Survival
from pricing.estimate.laws.other_leaving import Otherwise, left_otherwise
from pricing.estimate.laws.pace import Pace
from pricing.estimate.observations.conversations import EARLY_MS, UNTIMED_MS
from pricing.estimate.observations.statistics import AgeCounts, Customers, Part
from pricing.market.answers import Floats, Ints

EARLY_S, UNTIMED_S = EARLY_MS / 1000, UNTIMED_MS / 1000

TIMEOUTS_S = (30, 60, 600)
"""Time-outs of the usual client libraries, seconds: they give up then, whether or not their caller is urgent."""

NEIGHBOURS_S = 6
"""The seconds on either side of a time-out with which the time-out is compared."""

ALPHA = 0.001
"""The level of each test: small, because a test that rejects excludes a whole source."""

SPIKE_LEAST = 1.5
"""A time-out shows as a rate above this multiple of the rate around it, so that a natural decline is not a time-out."""

DRIFT_LEAST = 0.1
"""Rates early and late in a wait that differ by at most this share do no harm, however significant the difference is."""

EXCESS_LEAST = 0.1
"""A variance between days that exceeds that of a constant rate by at most this share does no harm either."""


OTHERWISE_MOST = 0.15
"""Where a larger share of conversations ends for another reason than impatience, the rest identifies urgency too poorly."""

EARLY = "Customers leave more often soon after the start than a constant urgency makes them"
LATE = "Customers leave more often late than a constant urgency makes them"


@dataclass(frozen=True, slots=True)
class LeavingTests:
    """The results of the tests of leaving as a measure of urgency; None for a test whose data were not kept.

    Attributes:
        hazard_p: p-value of each customer leaving at the same rate early and late in a wait (two-sided).
        hazard_drift: how much higher the rate is early than late, as a share of their sum; -1 to 1.
        spikes_s: the time-outs at which more customers leave than just before and after, seconds.
        dispersion_p: p-value of a customer's rates on even and on odd days differing only by chance (one-sided).
        dispersion_excess: the share by which the variance of that difference exceeds its variance by chance.
        untimed_only: whether only the first ``UNTIMED_MS`` of each wait may be read, because clients give up later.
        refused: why leaving is not used, one sentence; None if it is used.
        otherwise: leaving for other reasons, which the estimate removes; None where there is no sign of it.
    """

    hazard_p: float | None
    hazard_drift: float | None
    spikes_s: tuple[int, ...]
    dispersion_p: float | None
    dispersion_excess: float | None
    refused: str | None
    untimed_only: bool = False
    otherwise: Otherwise | None = None


def examine(customers: Customers, ages: AgeCounts | None) -> LeavingTests:
    """Return whether disconnects may be read as customers of a constant rate r whose patience ended.

    Each test compares a customer with itself, or a second with its neighbours. So a market of many urgencies, in which
    the pooled rate falls because the urgent leave first, is not rejected for that reason. Where clients time out, waits
    before the time-out still identify the rate at which customers leave; differences between early and late, and
    between days, are then not tested.
    """
    spikes = () if ages is None else spikes_at_timeouts(ages)
    if spikes:
        seconds = ", ".join(str(second) for second in spikes)
        reason = f"Disconnects pile up after {seconds} s: clients give up there, urgent or not."
        has_untimed = customers.untimed is not None
        return LeavingTests(None, None, spikes, None, None, None if has_untimed else reason, untimed_only=has_untimed)
    hazard_p, drift = (None, None) if customers.early is None else _constant_hazard(customers, customers.early)
    dispersion_p, excess = (None, None) if customers.even is None else _dispersion(customers, customers.even)
    refused = None
    if hazard_p is not None and drift is not None and hazard_p < ALPHA and abs(drift) > DRIFT_LEAST:
        refused = f"{EARLY if drift > 0 else LATE} (p = {hazard_p:.2g})."
    elif dispersion_p is not None and excess is not None and dispersion_p < ALPHA and excess > EXCESS_LEAST:
        refused = f"One customer's urgency differs from day to day (p = {dispersion_p:.2g})."
    return LeavingTests(hazard_p, drift, spikes, dispersion_p, excess, refused)


def with_otherwise(tests: LeavingTests, customers: Customers, curve: Survival, pace: Pace) -> LeavingTests:
    """Return the tests with leaving for other reasons, estimated where customers leave significantly more often early.

    Leaving is refused where the share that leaves for other reasons is above ``OTHERWISE_MOST``.
    """
    if tests.refused is not None or tests.hazard_p is None or tests.hazard_drift is None:
        return tests
    if tests.hazard_p >= ALPHA or tests.hazard_drift <= 0:
        return tests
    others = left_otherwise(customers, curve, pace)
    if others is None or others.share <= OTHERWISE_MOST:
        return replace(tests, otherwise=others)
    low, high = others.interval
    refused = (
        f"{EARLY} (p = {tests.hazard_p:.2g}): {others.share:.0%} of the conversations ({low:.0%} to {high:.0%}) end "
        f"as if customers had what they need or connections broke. Above {OTHERWISE_MOST:.0%}, leaving tells too little of "
        "urgency."
    )
    return replace(tests, refused=refused)


def spikes_at_timeouts(ages: AgeCounts) -> tuple[int, ...]:
    """Return the time-outs at which more customers leave than chance and the neighbouring seconds explain.

    Depending on how clocks round, a time-out at T shows between T-1 and T+2 seconds. Given the number who left there
    and in the neighbouring seconds together, the number who left there is binomial, with the share of the waiting there
    as its probability. Mixtures of constant rates fall smoothly with age, so they do not show up.
    """
    spikes = []
    for timeout in TIMEOUTS_S:
        near = slice(max(0, timeout - 1), timeout + 2)
        beside = _beside(len(ages.disconnects), near)
        left_near, left_beside = int(ages.disconnects[near].sum()), int(ages.disconnects[beside].sum())
        waited, waited_beside = float(ages.waited_s[near].sum()), float(ages.waited_s[beside].sum())
        if left_near == 0 or waited <= 0 or waited_beside <= 0:
            continue
        expected = waited / (waited + waited_beside)
        p_value = float(bdtrc(left_near - 1, left_near + left_beside, expected))
        if p_value < ALPHA and left_near / waited > SPIKE_LEAST * left_beside / waited_beside:
            spikes.append(timeout)
    return tuple(spikes)


def _beside(ages: int, near: slice) -> Ints:
    places = np.arange(max(0, near.start - NEIGHBOURS_S), min(ages, near.stop + NEIGHBOURS_S))
    beside: Ints = places[(places < near.start) | (places >= near.stop)]
    return beside


def _constant_hazard(customers: Customers, early: Part) -> tuple[float, float]:
    """Return the p-value of equal rates early and late within each customer, and how much higher the early rate is.

    The difference is a share of the sum of the rates. With d, E early and D, L late, d L - D E compares, over pairs of
    *different* waits of a customer, leaving early in one wait with waiting late in the other. Its mean is zero for any
    rate and any way in which waits end. Pairs of a wait with itself, D times the early seconds of a wait that was left
    late, are subtracted.
    """
    late_d = customers.disconnects - early.disconnects
    late_s = customers.waited_s - early.waited_s
    against = late_d * np.maximum(0.0, early.waited_s - EARLY_S)
    scale = 1.0 / customers.conversations
    score = scale * (early.disconnects * late_s - against)
    weight = scale * (early.disconnects * late_s + against)
    total = float(weight.sum())
    return _two_sided(score), float(score.sum()) / total if total > 0 else 0.0


def _dispersion(customers: Customers, even: Part) -> tuple[float, float]:
    """Return the p-value of a customer's rate being the same on even and on odd days, and the excess variance as a share.

    d E'^2 + d' E^2 estimates the variance of V = d E' - d' E without bias; a rate that changes adds to the variance.
    """
    odd_d = customers.disconnects - even.disconnects
    odd_s = customers.waited_s - even.waited_s
    total = np.where(customers.waited_s > 0, customers.waited_s, 1.0)
    difference = (even.disconnects * odd_s - odd_d * even.waited_s) / total
    expected = (even.disconnects * odd_s**2 + odd_d * even.waited_s**2) / total**2
    excess = difference**2 - expected
    scale = float(np.sqrt(np.dot(excess, excess)))
    p_value = float(ndtr(-excess.sum() / scale)) if scale > 0 else 1.0
    return p_value, float(excess.sum() / expected.sum()) if expected.sum() > 0 else 0.0


def _two_sided(score: Floats) -> float:
    scale = float(np.sqrt(np.dot(score, score)))
    return float(2 * ndtr(-abs(score.sum()) / scale)) if scale > 0 else 1.0
