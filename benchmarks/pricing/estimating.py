"""What it takes to learn a market from a million customers, and how that grows: one command, one table.

python -m benchmarks.pricing.estimating
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from pricing.estimate.fit import fit
from pricing.estimate.given import Given
from pricing.estimate.observations.conversations import AGES, EARLY_MS, UNTIMED_MS
from pricing.estimate.observations.spread import OwnLengths, bins_of
from pricing.estimate.observations.statistics import (
    AgeCounts,
    Customers,
    LengthCounts,
    Offer,
    PaceCounts,
    Part,
    Statistics,
    Windows,
)
from pricing.market.answers import Floats, Ints
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.uncertainty import understated

Flags = NDArray[np.bool_]

SPEED, FIRST_S = 50.0, 0.4
URGENCY: Floats = np.array([0.01, 0.05, 0.15])
SHARE = (0.3, 0.4, 0.3)
MEDIAN, SIGMA_OF_ONE, SIGMA_BETWEEN = 400, 0.7, 0.4
"""Lengths: lognormal for each customer, its median lognormal between customers."""

WINDOWS = 4
OWN = 10_000
"""Customers whose lengths are read one by one, as many as the gateway reads; and who are drawn at once."""

VALUE = 1.4e9
OFFER = Offer((140, 1040, 4000), (60_000_000, 545_000_000, 625_000_000))
CAPS: Ints = np.array([140, 1040, 4000])
TAKES: Ints = np.array([3, 2, 1])
"""The tier that is best for each kind at that value."""


def statistics(customers: int, conversations: int, random: np.random.Generator) -> Statistics:
    """Return the sums of about ``conversations`` each of ``customers``, every one of them drawn.

    Volumes differ tenfold. Everybody takes the tier that is best for it, leaves at the rate at which it discounts, and has
    answers of its own length, cut by the cap. Lengths by customer are those of ``OWN`` of them.
    """
    parts, left = list[Drawn](), customers
    while left:
        parts.append(_drawn(min(OWN, left), conversations, random, with_own=not parts))
        left -= min(OWN, left)
    amounts, choices = np.concatenate([part.amounts for part in parts]), np.concatenate([part.tier for part in parts])
    counts = np.sum([part.lengths for part in parts], axis=0)
    ages = np.sum([part.ages for part in parts], axis=0)
    seconds, numbers = amounts[:, 1::2], amounts[:, ::2].astype(np.int64)
    tokens = np.arange(1, CAPS.max() + 1)
    return Statistics(
        own=parts[0].own,
        lengths=tuple(
            LengthCounts(f"t{place + 1}", cap, tokens[:cap], *(each[1 : cap + 1] for each in counts[place]))
            for place, cap in enumerate(CAPS.tolist())
        ),
        pace=PaceCounts(10**6, 4e5, 1.7e5, 4e8, 2.4e11, 8e6, 9.6e7, 4.8e9, 0),
        customers=Customers(
            disconnects=numbers[:, 0],
            waited_s=seconds[:, 0],
            conversations=numbers[:, -1],
            early=Part(numbers[:, 1], seconds[:, 1]),
            untimed=Part(numbers[:, 2], seconds[:, 2]),
            even=Part(numbers[:, 3], seconds[:, 3]),
            choices=choices[:, None],
            windows=Windows(tuple(range(WINDOWS)), numbers[:, 4:-1], seconds[:, 4:]),
        ),
        ages=AgeCounts(ages[0].astype(np.int64), ages[1]),
        offers=(OFFER,),
        set_aside={},
    )


@dataclass(frozen=True)
class Drawn:
    """Some customers: their sums of leaving and waiting in turn, conversations last; tiers; counts by tier, end and length;
    leaving and waiting by age; lengths by customer."""

    amounts: Floats
    tier: Ints
    lengths: Ints
    ages: Floats
    own: OwnLengths | None


def _drawn(customers: int, conversations: int, random: np.random.Generator, *, with_own: bool) -> Drawn:
    kinds = random.choice(len(SHARE), customers, p=SHARE)
    count = np.maximum(1, random.lognormal(np.log(conversations), 0.7, customers)).astype(np.int64)
    medians = MEDIAN * np.exp(SIGMA_BETWEEN * random.standard_normal(customers))
    owner = np.repeat(np.arange(customers), count)
    tier, cap = TAKES[kinds], CAPS[TAKES[kinds] - 1][owner]
    lengths = np.ceil(medians[owner] * np.exp(SIGMA_OF_ONE * random.standard_normal(len(owner)))).astype(np.int64)
    served = np.minimum(lengths, cap)
    whole_s, patience_s = FIRST_S + (served - 1) / SPEED, random.exponential(size=len(owner)) / URGENCY[kinds][owner]
    left, waited = patience_s < whole_s, np.minimum(patience_s, whole_s)
    came = np.where(left, np.clip(np.floor((waited - FIRST_S) * SPEED) + 1, 0, served), served).astype(np.int64)
    ended, window, even = (
        ~left & (lengths < cap),
        random.integers(WINDOWS, size=len(owner)),
        random.random(len(owner)) < 0.5,
    )
    within = [np.ones(len(owner), dtype=bool), *(waited < end / 1000 for end in (EARLY_MS, UNTIMED_MS)), even]
    counted = [waited, *(np.minimum(waited, end / 1000) for end in (EARLY_MS, UNTIMED_MS)), waited * even]
    within += [window == each for each in range(WINDOWS)]
    counted += [waited * (window == each) for each in range(WINDOWS)]
    columns = [
        np.bincount(owner, weights, customers)
        for leaving, waiting in zip(within, counted, strict=True)
        for weights in (left & leaving, waiting)
    ]
    place = (tier[owner] - 1) * 2 + ~ended
    cells = np.bincount(place * (CAPS.max() + 1) + came, minlength=6 * (CAPS.max() + 1))
    return Drawn(
        amounts=np.column_stack((*columns, count)),
        tier=tier,
        lengths=cells.reshape(3, 2, -1),
        ages=_ages(left, waited),
        own=_own(owner, tier[owner] - 1, window, even, came, ended) if with_own else None,
    )


def _ages(left: Flags, waited: Floats) -> Floats:
    age = np.minimum(waited, AGES - 1).astype(np.int64)
    beyond = np.cumsum(np.bincount(age, minlength=AGES)[::-1])[::-1]
    return np.array(
        [np.bincount(age[left], minlength=AGES), np.append(beyond[1:], 0) + np.bincount(age, waited - age, AGES)]
    )


def _own(owner: Ints, tier: Ints, window: Ints, even: Flags, tokens: Ints, ended: Flags) -> OwnLengths:
    """Return the lengths by customer."""
    seen = tokens > 0
    columns = np.column_stack((owner, tier, window, even))[seen].astype(np.int64)
    keys, where = np.unique(np.column_stack((columns, bins_of(tokens[seen]))), axis=0, return_inverse=True)
    whole = np.bincount(where.ravel(), minlength=len(keys))
    observed = np.bincount(where.ravel(), ended[seen], len(keys)).astype(np.int64)
    customer, tiers, windows, days, places = keys.T
    return OwnLengths(customer, tiers, windows, days, places, observed, whole - observed)


def estimate_and_price(customers: int, conversations: int) -> tuple[float, float]:
    """Return the CPU seconds of a fit and its menu, and the peak memory of this process, MB."""
    random = np.random.default_rng(1)
    seen = statistics(customers, conversations, random)
    began = time.process_time()
    estimate = fit(seen, Given(VALUE, 0.0), draws=60, random=random)
    value = understated(read_market(estimate.market), [read_market(one) for one in estimate.averaged])
    full_menu(valuation_of(read_market(value.market)))
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return spent, peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def main() -> None:
    print("| customers | conversations | fit and menu | peak memory |")
    print("| ---: | ---: | ---: | ---: |")
    for customers, each in ((10_000, 100), (100_000, 100), (1_000_000, 10), (1_000_000, 100)):
        with get_context("spawn").Pool(1) as pool:
            spent, peak = pool.apply(estimate_and_price, (customers, each))
        print(f"| {customers:,} | {customers * each:,} | {spent:.1f} CPU s | {peak:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
