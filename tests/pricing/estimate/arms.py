"""Customers who chose from different menus: their joint sums, with each menu as a separate offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache

import numpy as np

from pricing.estimate.comparison import Sold
from pricing.estimate.experiment import Experiment, Limits, experiment_of
from pricing.estimate.laws.value import ValueEstimate, value_by_choices
from pricing.estimate.observations.spread import OwnLengths
from pricing.estimate.observations.statistics import (
    AgeCounts,
    Customers,
    LengthCounts,
    Offer,
    PaceCounts,
    Part,
    Statistics,
)
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from tests.pricing.estimate.crowds import Crowd, crowd_of, watched
from tests.pricing.estimate.recovery import CHOOSING, THREE
from tests.pricing.estimate.simulated import Truth, answers_of

OLD, NEW, EACH = 600, 120, 30
"""Customers under the menu in force, customers in each arm, and conversations of each customer."""

FACTOR, ARMS = 2.0, 5
"""The largest factor of a price change, and the most arms."""

SOLD = Sold(
    ("t1", "t2", "t3"),
    np.array(CHOOSING.caps_tokens, dtype=np.int64),
    np.array(CHOOSING.prices_nanousd, dtype=np.float64),
)
MARKETS = {
    "one kind": Truth((0.05,), (1.0,)),
    "two kinds": Truth((0.02, 0.1), (0.5, 0.5)),
    "three kinds": THREE,
    "five kinds": Truth((0.005, 0.02, 0.06, 0.12, 0.3), (0.2,) * 5),
}
TIMES = (1.05, 1.4, 1.85)
"""Values of an answer, in billions of nano-units."""


def in_arms(arms: Sequence[tuple[Crowd, Offer]], truth: Truth, random: np.random.Generator) -> Statistics:
    """Return the joint statistics of customers who were offered different menus."""
    seen = [watched(crowd, truth, offer, random) for crowd, offer in arms]
    lengths, places = _lengths(seen)
    return Statistics(
        lengths=lengths,
        pace=PaceCounts(*(sum(getattr(one.pace, field.name) for one in seen) for field in fields(PaceCounts))),
        customers=_customers(seen),
        ages=AgeCounts(
            sum((one.ages.disconnects for one in seen if one.ages), np.zeros(1, dtype=np.int64)),
            sum((one.ages.waited_s for one in seen if one.ages), np.zeros(1)),
        ),
        offers=tuple(offer for _, offer in arms),
        set_aside={},
        own=_own(seen, places),
    )


def _lengths(seen: Sequence[Statistics]) -> tuple[tuple[LengthCounts, ...], list[list[int]]]:
    """Return the lengths by cap, and for each arm the indices of its caps among them."""
    caps = sorted({one.cap_tokens or 0 for each in seen for one in each.lengths})
    joined = []
    for cap in caps:
        parts = [one for each in seen for one in each.lengths if one.cap_tokens == cap]
        tokens, where = np.unique(np.concatenate([one.tokens for one in parts]), return_inverse=True)
        counts = (
            np.bincount(where, np.concatenate([getattr(one, name) for one in parts]), len(tokens)).astype(np.int64)
            for name in ("observed", "censored")
        )
        joined.append(LengthCounts(f"cap {cap}", cap, tokens, *counts))
    return tuple(joined), [[caps.index(one.cap_tokens or 0) for one in each.lengths] for each in seen]


def _customers(seen: Sequence[Statistics]) -> Customers:
    them = [one.customers for one in seen]
    choices = np.full((sum(len(one.conversations) for one in them), len(them)), -1)
    first = 0
    for place, one in enumerate(them):
        assert one.choices is not None
        choices[first : first + len(one.conversations), place] = one.choices[:, 0]
        first += len(one.conversations)

    def part(name: str) -> Part:
        parts = [getattr(one, name) for one in them]
        return Part(*(np.concatenate([getattr(one, what) for one in parts]) for what in ("disconnects", "waited_s")))

    whole = (
        np.concatenate([getattr(one, name) for one in them]) for name in ("disconnects", "waited_s", "conversations")
    )
    return Customers(*whole, early=part("early"), even=part("even"), choices=choices, untimed=part("untimed"))


def _own(seen: Sequence[Statistics], places: list[list[int]]) -> OwnLengths:
    parts, first = [], 0
    for each, where in zip(seen, places, strict=True):
        assert each.own is not None
        parts.append(replace(each.own, customer=each.own.customer + first, tier=np.array(where)[each.own.tier]))
        first += len(each.customers.conversations)
    return OwnLengths(*(np.concatenate([getattr(one, field.name) for one in parts]) for field in fields(OwnLengths)))


def market_of(truth: Truth) -> Valuation:
    return valuation_of(read_market(truth.to_json(cap_tokens=4000, step=10)))


def offer_of(arm: Sold) -> Offer:
    return Offer(tuple(arm.caps_tokens.tolist()), tuple(int(price) for price in arm.prices.tolist()))


def estimate_in(truth: Truth, arms: Experiment | None, seed: int) -> ValueEstimate:
    """Return the value estimated from choices under the menu in force, and under its arms, if any."""
    random = np.random.default_rng(seed)
    old = crowd_of(truth, OLD, EACH, random), CHOOSING
    offers = [] if arms is None else [offer_of(arm) for arm in arms.arms]
    seen = in_arms([old, *((crowd_of(truth, NEW, EACH, random), offer) for offer in offers)], truth, random)
    answers = replace(answers_of(truth), value_nanousd=float(max(CHOOSING.prices_nanousd)))
    estimate = value_by_choices(answers, [answers], seen.offers, seen.customers, random, is_said=False)
    assert estimate is not None
    return estimate


@cache
def with_and_without_arms(truth: Truth, seed: int) -> tuple[ValueEstimate, ValueEstimate]:
    """Return the value estimated without arms, and with the arms that an experiment proposes from that estimate."""
    before = estimate_in(truth, None, seed)
    between = before.low_nanousd, min(before.high_nanousd, 4 * before.low_nanousd)
    arms = experiment_of(market_of(truth), between, SOLD, Limits(ARMS, FACTOR, 1.0, NEW))
    return before, estimate_in(truth, arms, seed)


def of_arms(seeds: int) -> None:
    """Print how close the estimated value is with arms and without them."""
    print("| market | value | left open without arms, mean ratio | furthest with arms | intervals that have it |")
    print("|---|---|---|---|---|")
    for name, market in MARKETS.items():
        for times in TIMES:
            truth = replace(market, value_nanousd=times * 1e9)
            found = [with_and_without_arms(truth, seed) for seed in range(seeds)]
            open_by = np.mean([one.high_nanousd / one.low_nanousd for one, _ in found])
            off = max(abs(one.best_nanousd / truth.value_nanousd - 1) for _, one in found)
            has = sum(one.low_nanousd <= truth.value_nanousd <= one.high_nanousd for _, one in found)
            print(f"| {name} | {times} | {open_by:.2f} | {off:.1%} | {has} of {seeds} |", flush=True)
