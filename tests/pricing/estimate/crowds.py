"""Customers one by one, each with an urgency, a value and lengths of its own, who choose a tier and talk under its cap.

What departs from the market that a fit assumes is a field of ``Habits``; by default nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pricing.answers import Floats, Ints
from pricing.estimate.conversations import EARLY_MS, UNTIMED_MS
from pricing.estimate.gathering import with_refusals
from pricing.estimate.statistics import Customers, Offer, Part, Statistics, pace_counts
from tests.pricing.estimate.simulated import FIRST_S, SPEED, Truth, ages_of, counted, lognormal_cdf

UNCAPPED = 4_000
"""What stands for no cap, tokens."""

Flags = Any


@dataclass(frozen=True)
class Crowd:
    """Customers. Shapes (n,).

    Attributes:
        urgency_per_s, value_nanousd: of each.
        median_tokens: of its own answers.
        conversations: how many it has.
    """

    urgency_per_s: Floats
    value_nanousd: Floats
    median_tokens: Floats
    conversations: Ints


def crowd_of(truth: Truth, customers: int, conversations: int, random: np.random.Generator) -> Crowd:
    """Return customers drawn from a truth, all with as many conversations."""
    kinds = random.choice(len(truth.share), customers, p=truth.share)
    return Crowd(
        np.array(truth.urgency_per_s)[kinds],
        np.full(customers, truth.value_nanousd),
        np.full(customers, truth.median_tokens),
        np.full(customers, conversations),
    )


def tiers_taken(crowd: Crowd, truth: Truth, offer: Offer) -> Ints:
    """Return the tier that each customer likes best, 0 for none, by the lengths of the truth. Shape (n,)."""
    tokens = np.arange(2, UNCAPPED + 1, 2)
    chance = np.diff(lognormal_cdf(tokens / truth.median_tokens, truth.sigma), prepend=0.0)
    rates, kinds = np.unique(crowd.urgency_per_s, return_inverse=True)
    reached = np.cumsum(np.exp(-np.outer(rates, FIRST_S + (tokens - 1) / SPEED)) * chance, axis=1)
    gains = [np.zeros(len(kinds))]
    for cap, price in zip(offer.caps_tokens, offer.prices_nanousd, strict=True):
        last = len(tokens) if cap is None else int(np.searchsorted(tokens, cap, side="right"))
        gains.append(crowd.value_nanousd * reached[kinds, last - 1] - price)
    best: Ints = np.argmax(gains, axis=0)
    return best


def watched(crowd: Crowd, truth: Truth, offer: Offer | None, random: np.random.Generator) -> Statistics:
    """Return the statistics of customers who took a tier of their own for their account, or were only observed.

    Who finds no tier worth its price has no conversation and counts as one who refused.
    """
    taken = np.ones(len(crowd.conversations), dtype=np.int64) if offer is None else tiers_taken(crowd, truth, offer)
    caps = np.array([UNCAPPED if cap is None else cap for cap in (offer.caps_tokens if offer else (None,))])
    talking = np.flatnonzero(taken > 0)
    owner = np.repeat(np.arange(len(talking)), crowd.conversations[talking])
    cap = caps[taken[talking] - 1][owner]
    shift = random.standard_normal(len(owner))
    lengths = np.ceil(crowd.median_tokens[talking][owner] * np.exp(truth.sigma * shift)).astype(np.int64)
    served = np.minimum(lengths, cap)
    whole_s = FIRST_S + (served - 1) / SPEED
    patience = random.exponential(size=len(owner)) / crowd.urgency_per_s[talking][owner]
    left, waited = patience < whole_s, np.minimum(patience, whole_s)
    received = np.where(left, np.clip(np.floor((waited - FIRST_S) * SPEED) + 1, 0, served), served).astype(np.int64)
    ended = ~left & (lengths < cap)
    customers = _customers(owner, len(talking), left, waited, random.random(len(owner)) < 0.5)
    if offer is not None:
        customers = replace(customers, choices=taken[talking][:, None])
        customers = with_refusals(customers, 0, len(taken) - len(talking), 1)
    return Statistics(
        lengths=tuple(
            counted(f"t{place}", int(one), received[mine], ended[mine])
            for place, one in enumerate(caps, 1)
            if (mine := taken[talking][owner] == place).any()
        ),
        pace=pace_counts(
            np.full(200, int(FIRST_S * 1000)), np.round(whole_s[:200] * 1000).astype(np.int64), served[:200]
        ),
        customers=customers,
        ages=ages_of(left, waited),
        offers=() if offer is None else (offer,),
        set_aside={},
    )


def _customers(owner: Ints, customers: int, left: Flags, waited: Floats, even: Flags) -> Customers:
    def total(values: Any) -> Floats:
        return np.bincount(owner, values, customers)

    early_s, untimed_s = EARLY_MS / 1000, UNTIMED_MS / 1000
    return Customers(
        disconnects=total(left).astype(np.int64),
        waited_s=total(waited),
        conversations=np.bincount(owner, minlength=customers),
        early=Part(total(left & (waited < early_s)).astype(np.int64), total(np.minimum(waited, early_s))),
        even=Part(total(left & even).astype(np.int64), total(waited * even)),
        untimed=Part(total(left & (waited < untimed_s)).astype(np.int64), total(np.minimum(waited, untimed_s))),
    )
