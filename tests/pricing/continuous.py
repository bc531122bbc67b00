"""The full menu in continuous time, for answers with a constant hazard: no grid, only closed forms and roots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pricing.market.answers import Floats
from pricing.market.fields import NotAMarket
from pricing.mechanism.mechanism import iron

HALVINGS = 200
"""Enough halvings to reduce any interval of doubles to two neighbours."""


@dataclass(frozen=True, slots=True)
class ContinuousMenu:
    """Caps in seconds, prices in units of worth, by type from patient to urgent, and the profit per conversation."""

    caps_s: Floats
    prices: Floats
    profit: float


def continuous_menu(
    urgency_per_s: Floats, share: Floats, answers_per_s: float, cost_per_s: float = 0.0
) -> ContinuousMenu:
    """Return the full menu for an answer worth 1 whose length in seconds is exponential, with exponential delay.

    Without cost the caps are the slopes of the concave hull of ln G. With cost, which runs on when a customer leaves,
    each type's cap is where its virtual surplus turns: Q_i e^(-r_i T) - Q_(i-1) e^(-r_(i-1) T) = q_i c / a.

    Args:
        urgency_per_s: r_i, strictly increasing. Shape (n,).
        share: q_i, summing to 1. Shape (n,).
        answers_per_s: a, the rate at which answers end, 1/s.
        cost_per_s: c, in units of worth, below a.

    Raises:
        NotAMarket: types would have to be pooled although serving costs, which has no closed form.
    """
    cumulative = np.cumsum(share)
    if cost_per_s:
        caps = _turns(urgency_per_s, share, cumulative, cost_per_s / answers_per_s)
    else:
        caps = iron(np.log(cumulative), urgency_per_s)
    own = exponential_worth(urgency_per_s, caps, answers_per_s)
    rises = own - np.append(exponential_worth(urgency_per_s[:-1], caps[1:], answers_per_s), 0.0)
    prices = np.cumsum(rises[::-1])[::-1]
    costs = cost_per_s / answers_per_s * -np.expm1(-answers_per_s * caps)
    return ContinuousMenu(caps, prices, float(np.dot(share, prices - costs)))


def exponential_worth(urgency_per_s: Floats, caps_s: Floats, answers_per_s: float) -> Floats:
    """Return u(T) = a/(a + r) (1 - e^(-(a + r) T)) for answers that end at the rate a. Shapes (n,), (n,) -> (n,)."""
    leaves = answers_per_s + urgency_per_s
    worth: Floats = answers_per_s / leaves * -np.expm1(-leaves * caps_s)
    return worth


def _turns(urgency: Floats, share: Floats, cumulative: Floats, ratio: float) -> Floats:
    """Return the time when each type's marginal virtual surplus turns negative, 0 if it is negative from the start."""
    before = np.concatenate(([0.0], cumulative[:-1]))
    urgency_before = np.concatenate(([0.0], urgency[:-1]))

    def positive(seconds: Floats) -> npt.NDArray[np.bool_]:
        margin: Floats = cumulative * np.exp(-urgency * seconds) - before * np.exp(-urgency_before * seconds)
        return np.greater(margin, share * ratio)

    low, high = np.zeros(len(urgency)), np.full(len(urgency), 1.0)
    while positive(high).any():
        low, high = np.where(positive(high), high, low), np.where(positive(high), 2 * high, high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        rising = positive(middle)
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    if np.any(np.diff(low) > 0):
        raise NotAMarket("These types are pooled at a cost; give the market in steps.")
    return low
