"""Simulated customers, each with its own urgency, value and lengths, who choose a tier and talk under its cap.

Each departure from a fit's assumptions is a field of ``Habits``; by default there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pricing.estimate.observations.conversations import EARLY_MS, UNTIMED_MS
from pricing.estimate.observations.gathering import with_refusals
from pricing.estimate.observations.spread import OwnLengths, bins_of
from pricing.estimate.observations.statistics import Customers, Offer, Part, Statistics, pace_counts
from pricing.market.answers import Floats, Ints
from tests.pricing.estimate.simulated import FIRST_S, SPEED, Truth, ages_of, counted, lognormal_cdf, windows_of

UNCAPPED = 4_000
"""The cap in tokens that stands for no cap."""

POOLED = 400
"""The most conversations of one customer whose lengths and waits are pooled with those of others: four weeks."""

Flags = Any


@dataclass(frozen=True)
class Crowd:
    """Customers. Shapes (n,).

    Attributes:
        urgency_per_s, value_nanousd: urgency and value of each customer.
        median_tokens: the median length of each customer's answers.
        conversations: the number of each customer's conversations.
        sigma: the standard deviation of the logarithm of the lengths of each customer's answers.
    """

    urgency_per_s: Floats
    value_nanousd: Floats
    median_tokens: Floats
    conversations: Ints
    sigma: Floats


@dataclass(frozen=True)
class Habits:
    """Behaviour of customers and answers that a fit does not assume.

    Attributes:
        satisfied: share of conversations that a satisfied customer leaves, at a uniform place in the answer.
        late: share of conversations that a satisfied customer leaves in the second half of the answer.
        broken: share of conversations whose connection breaks, at a uniform place in the answer.
        mobile: share of customers whose connections can break.
        lengths: factor of the lengths of answers in each window of weeks.
        leaves: ratio of customers' rate of leaving to their discount rate.
        moods: standard deviation of the logarithm of a customer's urgency from conversation to conversation.
    """

    satisfied: float = 0.0
    late: float = 0.0
    broken: float = 0.0
    mobile: float = 1.0
    lengths: tuple[float, ...] = (1.0,)
    leaves: float = 1.0
    moods: float = 0.0


USUAL = Habits()


def crowd_of(truth: Truth, customers: int, conversations: int, random: np.random.Generator) -> Crowd:
    """Return customers drawn from a truth, all with the same number of conversations."""
    kinds = random.choice(len(truth.share), customers, p=truth.share)
    return Crowd(
        np.array(truth.urgency_per_s)[kinds],
        np.array(truth.values)[kinds],
        np.full(customers, truth.median_tokens),
        np.full(customers, conversations),
        np.full(customers, truth.sigma),
    )


def tiers_taken(crowd: Crowd, truth: Truth, offer: Offer) -> Ints:
    """Return the best tier for each customer, 0 for none, by the truth's law of lengths. Shape (n,)."""
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


def watched(
    crowd: Crowd,
    truth: Truth,
    offer: Offer | None,
    random: np.random.Generator,
    habits: Habits = USUAL,
    taken: Ints | None = None,
) -> Statistics:
    """Return the statistics of customers who chose a tier for their account, or were only observed.

    A customer without a tier worth its price has no conversation and counts as a refusal. ``taken`` assigns tiers to
    customers instead of their own choices.
    """
    if taken is None:
        taken = np.ones(len(crowd.conversations), dtype=np.int64) if offer is None else tiers_taken(crowd, truth, offer)
    caps = np.array([UNCAPPED if cap is None else cap for cap in (offer.caps_tokens if offer else (None,))])
    talking = np.flatnonzero(taken > 0)
    owner = np.repeat(np.arange(len(talking)), crowd.conversations[talking])
    cap = caps[taken[talking] - 1][owner]
    shift = random.standard_normal(len(owner))
    window = random.integers(len(habits.lengths), size=len(owner))
    medians = crowd.median_tokens[talking][owner] * np.array(habits.lengths)[window]
    lengths = np.ceil(medians * np.exp(crowd.sigma[talking][owner] * shift)).astype(np.int64)
    served = np.minimum(lengths, cap)
    whole_s = FIRST_S + (served - 1) / SPEED
    patience = _patience(crowd.urgency_per_s[talking][owner], lengths, owner, habits, random)
    left, waited = patience < whole_s, np.minimum(patience, whole_s)
    received = np.where(left, np.clip(np.floor((waited - FIRST_S) * SPEED) + 1, 0, served), served).astype(np.int64)
    ended = ~left & (lengths < cap)
    even = random.random(len(owner)) < 0.5
    customers = _customers(owner, len(talking), left, waited, even)
    if len(habits.lengths) > 1:
        customers = replace(
            customers, windows=windows_of(owner, window, left, waited, len(talking), len(habits.lengths))
        )
    if offer is not None:
        customers = replace(customers, choices=taken[talking][:, None])
        customers = with_refusals(customers, 0, len(taken) - len(talking), 1)
    kept = (received > 0) & (np.arange(len(owner)) - np.searchsorted(owner, owner) < POOLED)
    own = own_of(*(one[kept] for one in (owner, taken[talking][owner] - 1, received, ended, even, window)))
    return Statistics(
        own=own,
        lengths=tuple(
            counted(f"t{place}", int(one), received[members], ended[members])
            for place, one in enumerate(caps, 1)
            if (members := kept & (taken[talking][owner] == place)).any()
        ),
        pace=pace_counts(
            np.full(len(whole_s), int(FIRST_S * 1000))[:200],
            np.round(whole_s[:200] * 1000).astype(np.int64),
            served[:200],
        ),
        customers=customers,
        ages=ages_of(left[kept], waited[kept]),
        offers=() if offer is None else (offer,),
        set_aside={},
    )


def _patience(urgency_per_s: Floats, lengths: Ints, owner: Ints, habits: Habits, random: np.random.Generator) -> Floats:
    """Return the seconds after which the customer leaves each conversation, if the answer has not ended by then."""
    rates = habits.leaves * urgency_per_s * np.exp(habits.moods * random.standard_normal(len(lengths)))
    patience: Floats = random.exponential(size=len(lengths)) / rates
    late = ((habits.late, 0.5),) if habits.late else ()
    breaks = habits.broken * (owner % 100 < 100 * habits.mobile)
    for share, begins in ((habits.satisfied, 0.0), (breaks, 0.0), *late):
        goes = random.random(len(lengths)) < share
        somewhere = FIRST_S + (begins + (1 - begins) * random.random(len(lengths))) * (lengths - 1) / SPEED
        patience = np.where(goes, np.minimum(patience, somewhere), patience)
    return patience


def own_of(owner: Ints, tier: Ints, tokens: Ints, ended: Flags, even: Flags, window: Ints | None = None) -> OwnLengths:
    """Return the counts of lengths by customer, tier, window, parity and bin."""
    window = np.zeros(len(owner), dtype=np.int64) if window is None else window
    columns = owner, np.unique(tier, return_inverse=True)[1], window, even.astype(np.int64), bins_of(tokens)
    sizes = tuple(int(column.max(initial=0)) + 1 for column in columns)
    cell = np.ravel_multi_index(columns, sizes)
    counts = np.bincount(cell, minlength=int(np.prod(sizes)))
    cells = np.flatnonzero(counts)
    observed = np.bincount(cell, ended, len(counts)).astype(np.int64)[cells]
    customer, tier_place, weeks, parity, bins = np.unravel_index(cells, sizes)
    return OwnLengths(customer, tier_place, weeks, parity, bins, observed, counts[cells] - observed)


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
