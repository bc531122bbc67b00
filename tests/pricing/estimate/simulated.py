"""Customers of a known market, observed as the gateway would observe them: yields the sums that a fit reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from pricing.estimate.laws.choices import Answers
from pricing.estimate.laws.sampling import Sweeps
from pricing.estimate.observations.conversations import AGES, EARLY_MS, UNTIMED_MS
from pricing.estimate.observations.statistics import (
    AgeCounts,
    Customers,
    LengthCounts,
    Offer,
    Part,
    Statistics,
    Windows,
    pace_counts,
)
from pricing.market.answers import Floats, Ints

BRIEF = Sweeps(chains=2, burnt=40, kept=60, each_least=40, each_most=40)
"""The sampler's length for claims that do not depend on a precise distribution of urgency."""

EARLY_S, UNTIMED_S = EARLY_MS / 1000, UNTIMED_MS / 1000
SPEED, FIRST_S = 50.0, 0.4


@dataclass(frozen=True)
class Truth:
    """Types with their shares of *conversations* and their relative numbers of conversations; lognormal answers."""

    urgency_per_s: tuple[float, ...]
    share: tuple[float, ...]
    volume: tuple[float, ...] = ()
    median_tokens: float = 400
    sigma: float = 0.8
    value_nanousd: float = 1e9
    values_nanousd: tuple[float, ...] = ()
    """The value for each type, where values differ."""

    @property
    def values(self) -> tuple[float, ...]:
        """The value of an answer to each type."""
        return self.values_nanousd or (self.value_nanousd,) * len(self.share)

    def to_json(self, *, cap_tokens: int = 4000, step: int = 2) -> dict[str, Any]:
        tokens = np.arange(step, cap_tokens + 1, step)
        reached = lognormal_cdf(tokens / self.median_tokens, self.sigma)
        return {
            "types": [
                {"urgency_per_s": r, "share": q, **({"value_nanousd": v} if self.values_nanousd else {})}
                for r, q, v in zip(self.urgency_per_s, self.share, self.values, strict=True)
            ],
            **({} if self.values_nanousd else {"value_nanousd": self.value_nanousd}),
            "delay": {"family": "exponential"},
            "answer_length": {
                "family": "table",
                "tokens": tokens.tolist(),
                "probability": np.diff(reached, prepend=0.0).tolist(),
            },
            "tokens_per_s": SPEED,
            "first_token_s": FIRST_S - 1 / SPEED,
            "cost_nanousd_per_token": 0,
            "cap_tokens_max": cap_tokens,
            "currency": "USD",
        }


def answers_of(truth: Truth) -> Answers:
    """Return the law of answers that the customers of a market know."""
    table = truth.to_json(step=20)["answer_length"]
    tokens = np.array(table["tokens"])
    return Answers(tokens, np.array(table["probability"]), FIRST_S - 1 / SPEED + tokens / SPEED, truth.value_nanousd)


def lognormal_cdf(ratio: Floats, sigma: float) -> Floats:
    reached: Floats = ndtr(np.log(ratio) / sigma)
    return reached


def watch(
    truth: Truth,
    *,
    customers: int,
    conversations: int,
    random: np.random.Generator,
    cap_tokens: int = 4000,
    timeout_s: float | None = None,
    rate: Any = None,
    drift: tuple[float, ...] = (1.0,),
) -> Statistics:
    """Return the statistics of customers who leave when their patience ends, all with one cap.

    Args:
        truth: the market.
        customers: their number.
        conversations: the mean number for each customer; ``truth.volume`` gives some types more.
        cap_tokens: the cap of all.
        timeout_s: when every client gives up.
        rate: a function of (urgency, day, random) that returns each conversation's own rate; a customer has two days.
        drift: the factor of everyone's urgency in each window, numbered from 0.
    """
    share = np.array(truth.share)
    volume = np.array(truth.volume or [1.0] * len(share))
    kinds = random.choice(len(share), customers, p=share / volume / np.sum(share / volume))
    count = np.maximum(1, np.round(conversations * volume[kinds] * np.sum(share / volume))).astype(np.int64)
    owner = np.repeat(np.arange(customers), count)
    urgency = np.array(truth.urgency_per_s)[kinds][owner]
    even = random.random(len(owner)) < 0.5
    window = random.integers(len(drift), size=len(owner))
    rates = (urgency if rate is None else rate(urgency, 2 * owner + even, random)) * np.array(drift)[window]
    lengths = np.ceil(truth.median_tokens * np.exp(truth.sigma * random.standard_normal(len(owner)))).astype(np.int64)
    served = np.minimum(lengths, cap_tokens)
    whole_s = FIRST_S + (served - 1) / SPEED
    patience = random.exponential(size=len(owner)) / rates
    if timeout_s is not None:
        patience = np.minimum(patience, timeout_s + 0.2 * random.random(len(owner)))
    left = patience < whole_s
    waited = np.minimum(patience, whole_s)
    received = np.where(left, np.clip(np.floor((waited - FIRST_S) * SPEED) + 1, 0, served), served).astype(np.int64)
    ended = ~left & (lengths < cap_tokens)
    windows = windows_of(owner, window, left, waited, customers, len(drift)) if len(drift) > 1 else None
    return Statistics(
        lengths=(counted("only", cap_tokens, received, ended),),
        pace=pace_counts(
            np.full(200, int(FIRST_S * 1000)),
            np.round(whole_s[:200] * 1000).astype(np.int64),
            served[:200],
        ),
        customers=replace(_customers(owner, customers, left, waited, even), windows=windows),
        ages=ages_of(left, waited),
        offers=(),
        set_aside={},
    )


def windows_of(owner: Ints, window: Ints, left: Any, waited: Floats, customers: int, number: int) -> Windows:
    cell, shape = owner * number + window, (customers, number)
    disconnects = np.bincount(cell, left, customers * number).astype(np.int64).reshape(shape)
    return Windows(tuple(range(number)), disconnects, np.bincount(cell, waited, customers * number).reshape(shape))


def counted(tier: str, cap_tokens: int | None, tokens: Ints, ended: Any) -> LengthCounts:
    """Return the counts of conversations by length and ending."""
    counts = np.bincount(tokens)
    lengths = np.flatnonzero(counts)
    observed = np.bincount(tokens, ended).astype(np.int64)[lengths]
    return LengthCounts(tier, cap_tokens, lengths, observed, counts[lengths] - observed)


def choosing(truth: Truth, offer: Offer, customers: int, conversations: int, random: np.random.Generator) -> Ints:
    """Return the choices of customers drawn by the truth's shares, by comparing all tiers: places, 0 for none."""
    table = truth.to_json()["answer_length"]
    tokens, chance = np.array(table["tokens"]), np.array(table["probability"])
    time_s = FIRST_S - 1 / SPEED + tokens / SPEED
    gains = [np.zeros(len(truth.share))]
    for cap, price in zip(offer.caps_tokens, offer.prices_nanousd, strict=True):
        seen = chance * (tokens <= (np.inf if cap is None else cap))
        gains.append(truth.value_nanousd * np.exp(-np.outer(truth.urgency_per_s, time_s)) @ seen - price)
    choice = np.argmax(gains, axis=0)
    kinds = random.choice(len(truth.share), (customers, conversations), p=truth.share)
    return choice[kinds]


def _customers(owner: Ints, customers: int, left: Any, waited: Floats, even: Any) -> Customers:
    def total(values: Any) -> Floats:
        return np.bincount(owner, values, customers)

    return Customers(
        disconnects=total(left).astype(np.int64),
        waited_s=total(waited),
        conversations=np.bincount(owner, minlength=customers),
        early=Part(total(left & (waited < EARLY_S)).astype(np.int64), total(np.minimum(waited, EARLY_S))),
        even=Part(total(left & even).astype(np.int64), total(waited * even)),
        untimed=Part(total(left & (waited < UNTIMED_S)).astype(np.int64), total(np.minimum(waited, UNTIMED_S))),
    )


def ages_of(left: Any, waited: Floats) -> AgeCounts:
    age = np.minimum(waited, AGES - 1).astype(np.int64)
    beyond = np.cumsum(np.bincount(age, minlength=AGES)[::-1])[::-1]
    within = np.bincount(age, waited - age, AGES)
    return AgeCounts(
        disconnects=np.bincount(age[left], minlength=AGES),
        waited_s=np.append(beyond[1:], 0).astype(np.float64) + within,
    )
