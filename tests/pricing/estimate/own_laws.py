"""A market whose kinds of customers have different lengths of answers: the profit of caps and prices, and its maximum.

No solver of the library covers such a market: where the urgent have short answers, a longer cap is at first worth more
to them than to the patient, so caps need not fall with urgency. The search tries all menus of a cap for each kind.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, product

import numpy as np

from pricing.market.answers import Floats, Ints
from tests.pricing.estimate.simulated import FIRST_S, SPEED, Truth, lognormal_cdf

LONGEST = 4_000
CAPS = (*range(20, 400, 20), *range(400, LONGEST + 1, 100))
"""Caps that a menu may have, tokens."""


def worth_of(truth: Truth, medians: tuple[float, ...]) -> Floats:
    """Return the worth of every cap from one token on to each kind. Shape (kinds, ``LONGEST``)."""
    tokens = np.arange(1, LONGEST + 1)
    rates, medians_of = np.array(truth.urgency_per_s)[:, None], np.array(medians)[:, None]
    reached = lognormal_cdf(tokens / medians_of, truth.sigma)
    discount = np.exp(-rates * (FIRST_S + (tokens - 1) / SPEED))
    worth: Floats = truth.value_nanousd * np.cumsum(discount * np.diff(reached, prepend=0.0, axis=1), axis=1)
    return worth


def earned_by(caps: Ints, prices: Floats, truth: Truth, medians: tuple[float, ...]) -> float:
    """Return the profit of a menu where each kind takes its best tier."""
    gains = worth_of(truth, medians)[:, np.minimum(caps, LONGEST) - 1] - prices
    best = gains.argmax(axis=1)
    buys = gains[np.arange(len(best)), best] >= 0
    return float(np.array(truth.share)[buys] @ prices[best[buys]])


@lru_cache(maxsize=8)
def most(truth: Truth, medians: tuple[float, ...]) -> float:
    """Return the highest profit of a menu with a cap for each served kind.

    Prices are the highest at which each kind takes the cap meant for it: each price falls until no other cap is better.
    """
    worth = worth_of(truth, medians)[:, np.array(CAPS) - 1]
    found = 0.0
    for number in range(1, len(medians) + 1):
        for served in combinations(range(len(medians)), number):
            places = np.array(list(product(range(len(CAPS)), repeat=number)))
            own = np.stack([[worth[kind][places[:, tier]] for tier in range(number)] for kind in served])
            prices = own[range(number), range(number)].copy()
            for _, kind, other in product(range(number), repeat=3):
                prices[kind] = np.minimum(prices[kind], prices[other] + own[kind, kind] - own[kind, other])
            earns = np.array(truth.share)[list(served)] @ prices
            found = max(found, float(earns[prices.min(axis=0) >= 0].max()))
    return found
