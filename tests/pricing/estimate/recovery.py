"""The profit of menus made from customers' behaviour, as a share of the maximum, in markets whose truth is known.

``make recovery`` prints the table in pricing/estimate/README.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from pricing.estimate.as_market import discounts_of, priced
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.laws.choices import intervals_of
from pricing.estimate.laws.length import estimate_length
from pricing.estimate.laws.pace import estimate_pace
from pricing.estimate.laws.readings import answers_of as answers_as
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.laws.value import ValueEstimate, value_by_choices
from pricing.estimate.observations.gathering import with_refusals
from pricing.estimate.observations.statistics import Offer, Statistics, cleaned
from pricing.market.answers import Floats, Ints
from pricing.market.market import read_market
from pricing.market.worth import Valuation, valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from pricing.mechanism.uncertainty import Understated, profit_of, understated
from tests.pricing.estimate.crowds import crowd_of, watched
from tests.pricing.estimate.simulated import Truth, answers_of, choosing, watch

SIZES = ((3000, 50), (300, 20))
DRAWS = 60
WORTH = 1e9

Watching = Callable[[Truth, int, int, np.random.Generator], Statistics]


@dataclass(frozen=True)
class Case:
    """A market with known truth and the way it is observed; ``prior`` is the market believed beforehand."""

    truth: Truth
    watch: Watching
    prior: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Earned:
    """Profits in the true market of menus made from one estimate, as shares of the maximum there."""

    menu: float
    single: float

    @property
    def against_single(self) -> float:
        return self.menu / self.single


def plainly(truth: Truth, customers: int, conversations: int, random: np.random.Generator, **more: Any) -> Statistics:
    return watch(truth, customers=customers, conversations=conversations, random=random, **more)


def lognormal_urgency(points: int = 40, median: float = 0.05, sigma: float = 0.8) -> Truth:
    quantiles = (np.arange(points) + 0.5) / points
    rates = median * np.exp(sigma * ndtri(quantiles))
    return Truth(tuple(rates.tolist()), (1 / points,) * points)


def with_choices(offer: Offer, **more: Any) -> Watching:
    """Observe customers who name a tier with each conversation; those without a tier worth its price are counted."""

    def watching(truth: Truth, customers: int, conversations: int, random: np.random.Generator) -> Statistics:
        seen = plainly(truth, customers, conversations, random, **more)
        taken = np.bincount(
            choosing(truth, offer, customers * conversations, 1, random).ravel(), minlength=len(offer.caps_tokens) + 1
        )
        return replace(seen, offers=(replace(offer, taken=tuple(taken[1:].tolist()), refused=int(taken[0])),))

    return watching


def excluding(offer: Offer) -> Watching:
    """Observe a market through a menu that does not serve all: a customer who takes nothing counts as a refusal."""

    def watching(truth: Truth, customers: int, conversations: int, random: np.random.Generator) -> Statistics:
        kinds = np.arange(len(truth.share))
        served = _served(truth, offer)
        weights = np.array(truth.share)
        buying = replace(
            truth,
            urgency_per_s=tuple(np.array(truth.urgency_per_s)[kinds[served]].tolist()),
            share=tuple((weights[served] / weights[served].sum()).tolist()),
        )
        buyers = int(random.binomial(customers, weights[served].sum()))
        seen = plainly(buying, buyers, conversations, random)
        return _and_refusals(seen, offer, customers - buyers)

    return watching


def drifting(truth: Truth, customers: int, conversations: int, random: np.random.Generator) -> Statistics:
    """Observe four windows in which everyone grows more patient; the truth is that of the last window."""
    return plainly(truth, customers, conversations, random, drift=(1.3, 1.2, 1.1, 1.0))


THREE = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3))
SLOW = Truth((0.002, 0.01, 0.05), (0.4, 0.3, 0.3), median_tokens=1500)
OFFER = Offer((300, 700, 1200), (12_000_000, 122_000_000, 319_000_000))
CHOOSING = Offer((140, 1040, 4000), (60_000_000, 545_000_000, 625_000_000))
NARROW = Offer((1000, 4000), (500_000_000, 640_000_000))

CASES: dict[str, Case] = {
    "three types": Case(THREE, plainly),
    "lognormal urgency": Case(lognormal_urgency(), plainly),
    "heavy-tailed answers": Case(replace(THREE, median_tokens=300, sigma=1.5), plainly),
    "70 % of answers at the cap": Case(THREE, lambda *given: plainly(*given, cap_tokens=263)),
    "one type": Case(Truth((0.05,), (1.0,)), plainly),
    "the patient talk ten times as much": Case(
        Truth((0.01, 0.05, 0.15), (0.6, 0.25, 0.15), volume=(10, 3, 1)), plainly
    ),
    "time-outs after 30 s": Case(SLOW, with_choices(OFFER, timeout_s=30, cap_tokens=9000)),
    "a menu that excluded a type": Case(THREE, excluding(NARROW)),
    "drift": Case(THREE, drifting),
}


def recover(
    case: Case, customers: int, conversations: int, seed: int, *, draws: int = DRAWS, sweeps: Sweeps = FULL
) -> Earned:
    """Estimate a market from one draw of customers, and return its menus' profits in the true market."""
    random = np.random.default_rng(seed)
    seen = case.watch(case.truth, customers, conversations, random)
    prior = None if case.prior is None else read_market(case.prior)
    estimate = fit(seen, Given(WORTH, 0.0, prior=prior), draws=draws, random=random, sweeps=sweeps)
    return earned(estimate, case)


def with_and_without_choices(
    customers: int, conversations: int, seeds: range, draws: int = DRAWS, sweeps: Sweeps = FULL
) -> tuple[Floats, Floats]:
    """Return the profits of menus made from the same customers, with their choices of a tier and without them."""
    case = Case(THREE, with_choices(CHOOSING))
    both, alone = [], []
    for seed in seeds:
        seen = case.watch(case.truth, customers, conversations, np.random.default_rng(seed))
        for statistics, into in ((seen, both), (replace(seen, offers=()), alone)):
            random = np.random.default_rng(seed)
            estimate = fit(statistics, Given(WORTH, 0.0), draws=draws, random=random, sweeps=sweeps)
            into.append(earned(estimate, case).menu)
    return np.array(both), np.array(alone)


def earned(estimate: Estimate, case: Case) -> Earned:
    """Return the profits of an estimate's menus; the true market is cut at the longest observed length."""
    there = truth_of(case, estimate.length.identified_to_tokens)
    market, draws = read_market(estimate.market), [read_market(one) for one in estimate.averaged]
    most = profit_in(there, there, full_menu(there).caps)
    several, one = priced(estimate), understated(market, draws, tiers=(1,), discounts=discounts_of(estimate))
    return Earned(menu=_profit(there, several) / most, single=_profit(there, one) / most)


def _profit(there: Valuation, chosen: Understated) -> float:
    here = valuation_of(read_market(chosen.market))
    menu = full_menu(here) if chosen.tiers is None else best_tiers(here, chosen.tiers)[-1]
    return profit_in(there, here, menu.caps)


def truth_of(case: Case, cap_tokens: int) -> Valuation:
    return valuation_of(read_market(case.truth.to_json(cap_tokens=cap_tokens, step=1)))


def profit_in(there: Valuation, here: Valuation, caps: Ints) -> float:
    """Return the profit in ``there`` of caps at their best prices in ``here``."""
    published = publish(here, caps)
    limits = [here.steps.cap_tokens(cap) for cap in published.caps.tolist()]
    tokens = np.array([10**9 if limit is None else limit for limit in limits], dtype=np.int64)
    return profit_of(there, tokens, published.prices.astype(np.float64))


def _served(truth: Truth, offer: Offer) -> Any:
    """Return which types have a tier worth its price."""
    return np.array(
        [
            int(choosing(replace(truth, urgency_per_s=(r,), share=(1.0,)), offer, 1, 1, np.random.default_rng(0))[0, 0])
            > 0
            for r in truth.urgency_per_s
        ]
    )


def _and_refusals(seen: Statistics, offer: Offer, refusing: int) -> Statistics:
    """Return the statistics with the buyers of the smallest tier, the only tier in demand, and the refusals."""
    bought = np.ones((len(seen.customers.conversations), 1), dtype=np.int64)
    buyers = replace(seen.customers, choices=bought)
    return replace(seen, offers=(offer,), customers=with_refusals(buyers, 0, refusing, 1))


def attainable(excluded_to_per_s: float = 10.0) -> float:
    """Return a menu's share of the maximum where a type was excluded and everything but its urgency is known.

    A customer who refuses is more urgent than the threshold of the smallest tier, by an unknown amount: the logarithm
    of its urgency is taken as uniform up to ``excluded_to_per_s``.
    """
    threshold = float(intervals_of(NARROW, answers_of(THREE)).low[0])
    beyond = np.geomspace(threshold, excluded_to_per_s, 401)[1:]
    served = [(r, q) for r, q in zip(THREE.urgency_per_s, THREE.share, strict=True) if r <= threshold]
    rest = (1 - sum(q for _, q in served)) / len(beyond)
    believed = replace(
        THREE,
        urgency_per_s=(*(r for r, _ in served), *beyond.tolist()),
        share=(*(q for _, q in served), *([rest] * len(beyond))),
    )
    there, here = (truth_of(Case(one, plainly), 4000) for one in (THREE, believed))
    return profit_in(there, here, full_menu(here).caps) / full_menu(there).profit


def value_found(seed: int, customers: int, conversations: int) -> ValueEstimate:
    """Return the value estimated from tiers taken for accounts in a market of lognormal urgency, none being stated."""
    truth, random = lognormal_urgency(), np.random.default_rng(seed)
    seen = cleaned(watched(crowd_of(truth, customers, conversations, random), truth, CHOOSING, random))
    length, pace = estimate_length(seen.lengths, seen.own, may_differ=True), estimate_pace(seen.pace)
    assert length.pooled is not None
    highest = float(max(CHOOSING.prices_nanousd))
    curves = [length.pooled, *(length.redrawn(random) for _ in range(8))]
    grid = np.unique(np.concatenate((np.arange(10, 4001, 10), CHOOSING.caps_tokens)))
    answers = [answers_as(curve, grid, pace, highest) for curve in curves]
    estimate = value_by_choices(answers[0], answers[1:], seen.offers, seen.customers, random, is_said=False)
    assert estimate is not None
    return estimate


def of_value(seeds: int) -> None:
    """Print how close an estimated value is, how often its interval covers the truth, and the menus' profits."""
    for customers, conversations, number in ((600, 30, seeds), (3000, 50, min(20, seeds))):
        found = [value_found(seed, customers, conversations) for seed in range(number)]
        best = np.array([one.best_nanousd for one in found]) / WORTH
        near = np.abs(np.log(best)) <= np.log(1.1)
        has = [one.low_nanousd <= WORTH <= one.high_nanousd for one in found]
        print(
            f"{customers:,} × {conversations}: {near.mean():.1%} within a tenth ({near[:20].sum()} of the first 20), "
            f"mean {best.mean():.3f}, standard deviation {best.std():.3f}; {np.mean(has):.1%} of intervals have it.",
            flush=True,
        )
    case, earns = Case(lognormal_urgency(), plainly), []
    for seed in range(min(20, seeds)):
        random = np.random.default_rng(seed)
        seen = watched(crowd_of(case.truth, 600, 30, random), case.truth, CHOOSING, random)
        earns.append(earned(fit(seen, Given(None, 0.0), draws=DRAWS, random=random), case).menu)
    print(f"600 × 30, {len(earns)} seeds: menus earn {np.mean(earns):.3f} on average, {min(earns):.3f} at worst.")
    random, began = np.random.default_rng(0), time.process_time()
    seen = watched(crowd_of(case.truth, 3000, 50, random), case.truth, CHOOSING, random)
    earned(fit(seen, Given(None, 0.0), draws=DRAWS, random=random), case)
    print(f"3,000 × 50, value not said: {time.process_time() - began:.0f} CPU s for a fit and its menus.")


def of_markets(seeds: int, only: str) -> None:
    """Print the table of the markets whose name contains ``only``, and the lines below it."""
    print("| market | size | mean | worst | against the single plan, mean | worst | CPU s a fit |")
    print("|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        if only not in name:
            continue
        for customers, conversations in SIZES:
            began = time.process_time()
            found = [recover(case, customers, conversations, seed) for seed in range(seeds)]
            spent = (time.process_time() - began) / seeds
            menus, against = [one.menu for one in found], [one.against_single for one in found]
            print(
                f"| {name} | {customers:,} × {conversations} | {np.mean(menus):.3f} | {min(menus):.3f} "
                f"| {np.mean(against):.3f} | {min(against):.3f} | {spent:.1f} |"
            )
            sys.stdout.flush()
    if only in "choices":
        for conversations in (3, 10):
            both, alone = with_and_without_choices(300, conversations, range(seeds))
            from scipy import stats  # only here: it takes longer to load than all the rest

            p_value = stats.ttest_rel(both, alone, alternative="greater").pvalue
            print(
                f"300 × {conversations}: with choices of tiers {both.mean():.3f} (worst {both.min():.3f}), "
                f"by disconnects alone {alone.mean():.3f}; paired p = {p_value:.2g}."
            )
            sys.stdout.flush()
    if only in "value":
        of_value(seeds)
    if only in "excluded":
        print(f"Attainable where nobody knows how urgent the excluded are: {attainable():.3f}.")
