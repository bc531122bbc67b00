"""What it takes to learn a market from a million customers, and how that grows: one command, one table.

python -m benchmarks.pricing.estimating
"""

from __future__ import annotations

import resource
import sys
import time
from multiprocessing import get_context

import numpy as np

from pricing.answers import Floats, Ints
from pricing.estimate.conversations import AGES, EARLY_MS, UNTIMED_MS
from pricing.estimate.fit import Given, fit
from pricing.estimate.spread import OwnLengths, bins_of
from pricing.estimate.statistics import AgeCounts, Customers, LengthCounts, Offer, PaceCounts, Part, Statistics, Windows
from pricing.market import read_market
from pricing.mechanism import full_menu
from pricing.uncertainty import understated
from pricing.worth import valuation_of

SPEED, FIRST_S = 50.0, 0.4
URGENCY = (0.01, 0.05, 0.15)
SHARE = (0.3, 0.4, 0.3)
WINDOWS = 4
OWN = 10_000
"""Customers whose lengths are read one by one, as many as the gateway reads."""

OFFER = Offer((140, 1040, 4000), (60_000_000, 545_000_000, 625_000_000))


def statistics(customers: int, conversations: int, random: np.random.Generator) -> Statistics:
    """Return the sums of ``conversations`` each of ``customers``, drawn as sums: no call is ever made.

    Volumes differ tenfold, answers are lognormal and cut at 4,000 tokens, everybody has chosen a tier; lengths by customer are
    those of ``OWN`` of them.
    """
    kinds = random.choice(len(SHARE), customers, p=SHARE)
    count = np.maximum(1, random.lognormal(np.log(conversations), 0.7, customers)).astype(np.int64)
    windows = random.multinomial(count, [1 / WINDOWS] * WINDOWS)
    waited = random.gamma(np.maximum(windows, 1e-9), 6.0)
    disconnects = np.minimum(random.poisson(np.array(URGENCY)[kinds][:, None] * waited), windows)
    left, seconds = disconnects.sum(axis=1), waited.sum(axis=1)
    lengths = np.arange(1, 4001)
    chance = np.exp(-0.5 * (np.log(lengths / 400) / 0.8) ** 2) / lengths
    ended = np.round(count.sum() * 0.7 * chance / chance.sum()).astype(np.int64)
    age = np.arange(AGES)
    still = np.exp(-age / 8.0) * count.sum()
    return Statistics(
        own=_own(count[:OWN], random),
        lengths=(LengthCounts("only", 4000, lengths, ended, np.round(ended * 0.4).astype(np.int64)),),
        pace=PaceCounts(10**6, 4e5, 1.7e5, 4e8, 2.4e11, 8e6, 9.6e7, 4.8e9, 0),
        customers=Customers(
            disconnects=left,
            waited_s=seconds,
            conversations=count,
            early=_part(left, seconds, EARLY_MS, random),
            even=Part(random.binomial(left, 0.5), seconds * 0.5),
            choices=np.array([3, 2, 1])[kinds][:, None],
            untimed=_part(left, seconds, UNTIMED_MS, random),
            windows=Windows(tuple(range(WINDOWS)), disconnects, waited),
        ),
        ages=AgeCounts(np.round(still * 0.05).astype(np.int64), still),
        offers=(OFFER,),
        set_aside={},
    )


def _own(count: Ints, random: np.random.Generator) -> OwnLengths:
    """Return the lengths of some customers, medians differing between them, cut at 4,000 tokens."""
    owner = np.repeat(np.arange(len(count)), count)
    tokens = 400 * np.exp(0.4 * random.standard_normal(len(count))[owner] + 0.7 * random.standard_normal(len(owner)))
    columns = (owner, random.integers(WINDOWS, size=len(owner)), random.integers(2, size=len(owner)))
    places = bins_of(np.clip(np.ceil(tokens), 1, 4000).astype(np.int64))
    keys, where = np.unique(np.column_stack((*columns, places)), axis=0, return_inverse=True)
    ended = np.bincount(where.ravel(), tokens < 4000, len(keys)).astype(np.int64)
    whole = np.bincount(where.ravel(), minlength=len(keys))
    customer, window, even, place = keys.T
    return OwnLengths(customer, np.zeros(len(keys), dtype=np.int64), window, even, place, ended, whole - ended)


def _part(left: Ints, seconds: Floats, end_ms: int, random: np.random.Generator) -> Part:
    share = 1 - np.exp(-end_ms / 8000)
    return Part(random.binomial(left, share), seconds * share)


def estimate_and_price(customers: int, conversations: int) -> tuple[float, float]:
    """Return the CPU seconds of a fit and its menu, and the peak memory of this process, MB."""
    random = np.random.default_rng(1)
    seen = statistics(customers, conversations, random)
    began = time.process_time()
    estimate = fit(seen, Given(1e9, 0.0), draws=60, random=random)
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
