"""The cost of estimating a market from a million customers, and its growth: one command, one table.

python -m benchmarks.pricing.estimating
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

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
"""Customers whose lengths are read individually, as many as the gateway reads; also the customers drawn at once."""

VALUE = 1.4e9
OFFER = Offer((140, 1040, 4000), (60_000_000, 545_000_000, 625_000_000))
CAPS: Ints = np.array([140, 1040, 4000])
TAKES: Ints = np.array([3, 2, 1])
"""The best tier for each kind of customer at ``VALUE``."""


def statistics(customers: int, conversations: int, random: np.random.Generator) -> Statistics:
    """Return the sums of about ``conversations`` for each of ``customers``; every conversation is drawn.

    Volumes differ tenfold. Each customer takes its best tier, leaves at the rate at which it discounts, and has answers
    of its own length, cut by the cap. Lengths by customer are those of ``OWN`` customers.
    """
    parts, remaining = list[Drawn](), customers
    while remaining:
        parts.append(_drawn(min(OWN, remaining), conversations, random, with_own=not parts))
        remaining -= min(OWN, remaining)
    amounts, choices = np.concatenate([part.amounts for part in parts]), np.concatenate([part.tier for part in parts])
    counts = np.sum([part.lengths for part in parts], axis=0)
    ages = np.sum([part.ages for part in parts], axis=0)
    seconds, numbers = amounts[:, 1::2], amounts[:, ::2].astype(np.int64)
    tokens = np.arange(1, CAPS.max() + 1)
    return Statistics(
        own=parts[0].own,
        lengths=tuple(
            LengthCounts(f"t{place + 1}", cap, tokens[:cap], *(column[1 : cap + 1] for column in counts[place]))
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
    """Some customers: sums of leaving and waiting in turn, then conversations; tiers; counts by tier, end and length;
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
    complete_s, patience_s = FIRST_S + (served - 1) / SPEED, random.exponential(size=len(owner)) / URGENCY[kinds][owner]
    leaves, waited_s = patience_s < complete_s, np.minimum(patience_s, complete_s)
    tokens_received = np.where(leaves, np.clip(np.floor((waited_s - FIRST_S) * SPEED) + 1, 0, served), served).astype(
        np.int64
    )
    ended, window, even = (
        ~leaves & (lengths < cap),
        random.integers(WINDOWS, size=len(owner)),
        random.random(len(owner)) < 0.5,
    )
    masks = [
        np.ones(len(owner), dtype=bool),
        *(waited_s < limit_ms / 1000 for limit_ms in (EARLY_MS, UNTIMED_MS)),
        even,
    ]
    waits = [waited_s, *(np.minimum(waited_s, limit_ms / 1000) for limit_ms in (EARLY_MS, UNTIMED_MS)), waited_s * even]
    masks += [window == number for number in range(WINDOWS)]
    waits += [waited_s * (window == number) for number in range(WINDOWS)]
    columns = [
        np.bincount(owner, weights, customers)
        for mask, wait_s in zip(masks, waits, strict=True)
        for weights in (leaves & mask, wait_s)
    ]
    place = (tier[owner] - 1) * 2 + ~ended
    cells = np.bincount(place * (CAPS.max() + 1) + tokens_received, minlength=6 * (CAPS.max() + 1))
    return Drawn(
        amounts=np.column_stack((*columns, count)),
        tier=tier,
        lengths=cells.reshape(3, 2, -1),
        ages=_ages(leaves, waited_s),
        own=_own(owner, tier[owner] - 1, window, even, tokens_received, ended) if with_own else None,
    )


def _ages(leaves: Flags, waited_s: Floats) -> Floats:
    age = np.minimum(waited_s, AGES - 1).astype(np.int64)
    beyond = np.cumsum(np.bincount(age, minlength=AGES)[::-1])[::-1]
    return np.array(
        [np.bincount(age[leaves], minlength=AGES), np.append(beyond[1:], 0) + np.bincount(age, waited_s - age, AGES)]
    )


def _own(owner: Ints, tier: Ints, window: Ints, even: Flags, tokens: Ints, ended: Flags) -> OwnLengths:
    """Return the lengths by customer."""
    nonempty = tokens > 0
    columns = np.column_stack((owner, tier, window, even))[nonempty].astype(np.int64)
    keys, group = np.unique(np.column_stack((columns, bins_of(tokens[nonempty]))), axis=0, return_inverse=True)
    totals = np.bincount(group.ravel(), minlength=len(keys))
    observed = np.bincount(group.ravel(), ended[nonempty], len(keys)).astype(np.int64)
    customer, tiers, windows, days, places = keys.T
    return OwnLengths(customer, tiers, windows, days, places, observed, totals - observed)


def drawn_anew(customers: int, conversations: int) -> Statistics:
    """Return the same sums each time."""
    return statistics(customers, conversations, np.random.default_rng(1))


def estimate_and_price(observed: Statistics) -> tuple[float, float]:
    """Return the CPU seconds of a fit and its menu, and the peak memory of this process, MB."""
    began = time.process_time()
    estimate = fit(observed, Given(VALUE, 0.0), draws=60, random=np.random.default_rng(2))
    value = understated(read_market(estimate.market), [read_market(draw) for draw in estimate.averaged])
    full_menu(valuation_of(read_market(value.market)))
    spent = time.process_time() - began
    return spent, peak_mb()


def peak_mb() -> float:
    """Return the peak memory of this process alone; the usage that Linux reports of a child begins with its parent's."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    (peak,) = (line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def main() -> None:
    """Print the table; conversations are drawn in another process than the fit's, whose memory they would exceed."""
    print("| customers | conversations | fit and menu | peak memory |")
    print("| ---: | ---: | ---: | ---: |")
    for customers, conversations in ((10_000, 100), (100_000, 100), (1_000_000, 10), (1_000_000, 100)):
        with get_context("spawn").Pool(1) as pool:
            observed = pool.apply(drawn_anew, (customers, conversations))
        with get_context("spawn").Pool(1) as pool:
            spent, peak = pool.apply(estimate_and_price, (observed,))
        print(f"| {customers:,} | {customers * conversations:,} | {spent:.1f} CPU s | {peak:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
