"""Lengths that depend on urgency: how much sooner answers of urgent customers end, and the worth of complete answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.estimate.laws.length import Survival
from pricing.estimate.laws.pace import Pace
from pricing.estimate.observations.spread import OwnLengths, bins_in, risks_of
from pricing.estimate.observations.statistics import Customers
from pricing.market.answers import Floats, Ints

STEPS = 50
"""The most steps of Newton's method, which usually needs far fewer."""

RIDGE = 1e-3
"""A penalty that keeps the slope at 0 where all customers are equally urgent."""

SEEMING: Floats = np.geomspace(1e-7, 1e4, 4001)
"""The urgencies between which equivalent urgencies are interpolated by worth, neighbours 0.6 % apart. 1/s."""


@dataclass(frozen=True, slots=True)
class OwnLaws:
    """How much sooner answers of an urgency end than all answers: a polynomial in the logarithm of the urgency.

    Attributes:
        middle: the logarithm of the urgency about which the polynomial is expanded.
        low, high: the logarithms of the urgency between which the polynomial applies; it is constant beyond them.
        coefficients: coefficients of the logarithm of the multiple of the rate at which answers end. Shape (3,).
    """

    middle: float
    low: float
    high: float
    coefficients: Floats

    def times(self, urgency_per_s: Floats) -> Floats:
        """Return the multiple of the common rate at which answers of each urgency end, token for token. Shapes (n,)."""
        at = np.clip(np.log(urgency_per_s), self.low, self.high) - self.middle
        return np.exp(_powers(at) @ self.coefficients)

    def seeming(self, urgency_per_s: Floats, curve: Survival, pace: Pace, grid: Ints) -> Floats:
        """Return the urgencies to which complete answers of the common law are worth as much as own answers are to each.

        A menu of one tier without a cap depends on these worths alone. So a market of these urgencies with one law of
        lengths prices such a menu like a market whose types have laws of their own; with caps it would not. 1/s, shapes
        (n,).
        """
        time_s, survival = pace.first_token_s + grid / pace.tokens_per_s, curve.at(grid)
        common = np.exp(-np.outer(SEEMING, time_s)) @ -np.diff(survival, prepend=1.0)
        own = survival ** self.times(urgency_per_s)[:, None]
        worth = (np.exp(-np.outer(urgency_per_s, time_s)) * -np.diff(own, prepend=1.0, axis=1)).sum(axis=1)
        seeming: Floats = np.exp(np.interp(worth, common[::-1], np.log(SEEMING)[::-1]))
        return seeming


def own_laws(own: OwnLengths, customers: Customers, urgency_per_s: Floats, share: Floats) -> OwnLaws:
    """Return how much sooner answers end the more urgent a customer is, length for length and within its tier.

    The logarithm of each customer's urgency is its posterior mean given its leaving (regression calibration). The
    number of its answers that ended is Poisson: the number expected at the common rate, times the customer's multiple.

    Args:
        own: lengths by customer.
        customers: disconnects and seconds of each customer.
        urgency_per_s, share: the distribution of urgency. Shapes (n,).
    """
    tiers, bins = int(own.tier.max(initial=0)) + 1, bins_in(own)
    pooled = risks_of(own, own.tier, tiers, bins)
    hazard = pooled.ended / np.maximum(pooled.at_risk, 1e-300)
    group, group_of = np.unique(own.customer * tiers + own.tier, return_inverse=True)
    risks = risks_of(own, group_of, len(group), bins)
    customer, tier = np.divmod(group, tiers)
    expected, ended = (hazard[tier] * risks.at_risk).sum(axis=1), risks.ended.sum(axis=1)
    logs = np.multiply.outer(customers.disconnects[customer].astype(np.float64), np.log(urgency_per_s))
    logs -= np.multiply.outer(customers.waited_s[customer], urgency_per_s)
    chance = np.exp(logs - logs.max(axis=1, keepdims=True)) * share
    urgency = (chance @ np.log(urgency_per_s)) / chance.sum(axis=1)
    middle = float(np.average(urgency, weights=np.maximum(expected, 1e-12)))
    powers = _powers(urgency - middle)
    coefficients = np.zeros(powers.shape[1])
    for _ in range(STEPS):
        mean = expected * np.exp(np.clip(powers @ coefficients, -20, 20))
        slope = powers.T @ (ended - mean) - RIDGE * coefficients
        step = np.linalg.solve((powers.T * mean) @ powers + RIDGE * np.eye(len(coefficients)), slope)
        coefficients = coefficients + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    low, high = np.quantile(urgency, (0.02, 0.98)).tolist()
    return OwnLaws(middle, low, high, coefficients)


def _powers(at: Floats) -> Floats:
    return np.column_stack((np.ones_like(at), at, at**2))
