"""A fit's warnings and its menu's profit where customers violate its assumptions, as in pricing/estimate/README.md.

``make recovery ARGS="--only violations --seeds 20"`` prints it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

import numpy as np

from pricing.estimate.as_market import priced
from pricing.estimate.fit import Estimate, fit
from pricing.estimate.given import Given
from pricing.estimate.laws.length import estimate_length
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Offer, Statistics
from pricing.market.answers import Floats
from pricing.market.market import read_market
from pricing.market.worth import valuation_of
from pricing.mechanism.mechanism import full_menu
from pricing.mechanism.rounding import publish
from pricing.mechanism.tiers import best_tiers
from tests.pricing.estimate.crowds import USUAL, Crowd, Habits, crowd_of, watched
from tests.pricing.estimate.own_laws import LONGEST, earned_by, most
from tests.pricing.estimate.recovery import (
    CHOOSING,
    DRAWS,
    THREE,
    WORTH,
    Case,
    lognormal_urgency,
    plainly,
    profit_in,
    truth_of,
)
from tests.pricing.estimate.simulated import Truth

CUSTOMERS, EACH = 600, 30
SMALL = (300, 20), (200, 20)
SMOOTH = lognormal_urgency()
FALLING = replace(
    SMOOTH,
    values_nanousd=tuple(WORTH * (1.0 if r < np.median(SMOOTH.urgency_per_s) else 0.7) for r in SMOOTH.urgency_per_s),
)
"""A market whose answers are worth less to the urgent."""

SHORT, LONG = (800.0, 400.0, 150.0), (300.0, 300.0, 700.0)
"""Median lengths of three kinds, from the patient to the urgent, where the kinds differ."""

Change = Callable[[Crowd, np.random.Generator], Crowd]

USUAL_NOTES = (
    "Nobody's choice",
    "Choices tell that",
    "Not identified above",
    "What an answer is worth is estimated from choices:",
    "Refusals were not counted",
    "Leaving is read as impatience alone",
)
"""Beginnings of notes that do not point to a violation."""


@dataclass(frozen=True)
class Violation:
    """A way in which customers differ from the assumptions.

    Attributes:
        truth: the market without it.
        change: the difference in customers.
        habits: the difference in their behaviour.
        offer: the tiers that they take; None if they are only observed.
        stated: the stated value, as a multiple of the true value; None to have it estimated.
        may_differ: whether the operator states that lengths may differ.
        without: whether customers who hold most conversations are set aside.
        spread: standard deviation of the logarithm of customers' medians.
        medians: the median length of each kind, if the kinds differ.
        last: factor of the lengths in the market that the menu will serve, relative to ``truth``.
    """

    truth: Truth = THREE
    change: Change = lambda crowd, _: crowd
    habits: Habits = USUAL
    offer: Offer | None = None
    stated: float | None = 1.0
    may_differ: bool = False
    without: bool = False
    last: float = 1.0
    spread: float = 0.0
    medians: tuple[float, ...] = ()


def linked(medians: tuple[float, ...]) -> Change:
    """Give each of the three kinds its own median length, from the patient to the urgent."""
    return lambda crowd, _: replace(
        crowd, median_tokens=np.array(medians)[np.searchsorted(THREE.urgency_per_s, crowd.urgency_per_s)]
    )


def lengths_apart(sigma: float) -> Change:
    return lambda crowd, random: replace(
        crowd, median_tokens=crowd.median_tokens * np.exp(sigma * random.standard_normal(len(crowd.median_tokens)))
    )


def values_apart(sigma: float) -> Change:
    return lambda crowd, random: replace(
        crowd, value_nanousd=crowd.value_nanousd * np.exp(sigma * random.standard_normal(len(crowd.value_nanousd)))
    )


def with_bots(tokens: float, number: int = 3, conversations: int = 15_000, sigma: float = 0.0) -> Change:
    """Add programs that request about the same number of tokens every time, and never leave."""
    bots = Crowd(
        np.full(number, 1e-6),
        np.full(number, WORTH),
        np.full(number, tokens),
        np.full(number, conversations),
        np.full(number, sigma),
    )

    def change(crowd: Crowd, _: np.random.Generator) -> Crowd:
        return Crowd(*(np.concatenate(pair) for pair in zip(astuple(crowd), astuple(bots), strict=True)))

    return change


def heavy(*, urgent: bool = False, number: int = 10, each: int = 3_000) -> Change:
    """Make a few of the patient or of the urgent customers send batches."""

    def change(crowd: Crowd, _: np.random.Generator) -> Crowd:
        whose = crowd.urgency_per_s.max() if urgent else crowd.urgency_per_s.min()
        conversations = crowd.conversations.copy()
        conversations[np.flatnonzero(crowd.urgency_per_s == whose)[:number]] = each
        return replace(crowd, conversations=conversations)

    return change


VIOLATIONS: dict[str, Violation] = {
    "none: observed": Violation(),
    "none: tiers taken": Violation(SMOOTH, offer=CHOOSING),
    "1: value said 0.7 of it": Violation(SMOOTH, offer=CHOOSING, stated=0.7),
    "1: 1.3": Violation(SMOOTH, offer=CHOOSING, stated=1.3),
    "1: 2": Violation(SMOOTH, offer=CHOOSING, stated=2.0),
    "1: not said": Violation(SMOOTH, offer=CHOOSING, stated=None),
    "1, own: three kinds, not said": Violation(offer=CHOOSING, stated=None),
    "2: urgent, short answers": Violation(change=linked(SHORT), medians=SHORT),
    "2: the same, and they may": Violation(change=linked(SHORT), may_differ=True, medians=SHORT),
    "2, own: answers fall by a third in the last window": Violation(
        habits=Habits(lengths=(1, 1, 1, 2 / 3)), last=2 / 3
    ),
    "3: 20 % leave satisfied": Violation(habits=Habits(satisfied=0.2)),
    "3: 10 % of connections break": Violation(habits=Habits(broken=0.1)),
    "3: 20 % leave satisfied, tiers taken, value not said": Violation(
        SMOOTH, habits=Habits(satisfied=0.2), offer=CHOOSING, stated=None
    ),
    "3, own: leave twice as soon as they discount": Violation(
        SMOOTH, habits=Habits(leaves=2.0), offer=CHOOSING, stated=None
    ),
    "4: health checks": Violation(change=with_bots(0.01)),
    "3: 10 % of connections break, tiers taken": Violation(SMOOTH, habits=Habits(broken=0.1), offer=CHOOSING),
    "3, own: 20 % leave satisfied in the second half": Violation(habits=Habits(late=0.2)),
    "4: ten batch customers": Violation(change=heavy()),
    "4: the same, without them": Violation(change=heavy(), without=True),
    "4, own: ten urgent ones": Violation(change=heavy(urgent=True)),
    "1, own: the urgent half value it at 0.7, not said": Violation(FALLING, offer=CHOOSING, stated=None),
    "1, own: the same, said": Violation(FALLING, offer=CHOOSING),
    "2, own: the urgent have long answers": Violation(change=linked(LONG), medians=LONG),
    "2, own: the same, and they may": Violation(change=linked(LONG), may_differ=True, medians=LONG),
    "3: 50 % leave satisfied": Violation(habits=Habits(satisfied=0.5)),
    "3: 50 % leave satisfied, tiers taken": Violation(SMOOTH, habits=Habits(satisfied=0.5), offer=CHOOSING),
    "3: 20 % leave satisfied, tiers taken": Violation(SMOOTH, habits=Habits(satisfied=0.2), offer=CHOOSING),
    "3, own: 20 % of connections break, of half of the customers": Violation(habits=Habits(broken=0.2, mobile=0.5)),
    "4, own: programs of regular long answers": Violation(change=with_bots(1000)),
    "4, own: programs whose answers differ a little": Violation(change=with_bots(300, sigma=0.1)),
    "4, own: one customer with 80 %": Violation(change=heavy(number=1, each=72_000)),
    "4, own: the same, without": Violation(change=heavy(number=1, each=72_000), without=True),
    "4, own: one customer with 40 %": Violation(change=heavy(number=1, each=12_000)),
    "5, own: apart by 1": Violation(change=lengths_apart(1.0), spread=1.0),
    "5: lengths apart by 0.6": Violation(change=lengths_apart(0.6), spread=0.6),
    "5: the same, tiers taken": Violation(SMOOTH, change=lengths_apart(0.6), offer=CHOOSING, spread=0.6),
    "7: values apart by 0.1": Violation(SMOOTH, change=values_apart(0.1), offer=CHOOSING, stated=None),
    "7, own: by 0.3": Violation(SMOOTH, change=values_apart(0.3), offer=CHOOSING, stated=None),
    "10, own: moods of 0.5": Violation(SMOOTH, habits=Habits(moods=0.5)),
}


def seen_in(
    violation: Violation, random: np.random.Generator, customers: int = CUSTOMERS, each: int = EACH
) -> Statistics:
    """Return the statistics of a draw of customers."""
    crowd = violation.change(crowd_of(violation.truth, customers, each, random), random)
    return watched(crowd, violation.truth, violation.offer, random, violation.habits)


def fitted(violation: Violation, seed: int, *, draws: int = DRAWS, sweeps: Sweeps = FULL) -> Estimate:
    """Return the estimate of one draw of customers.

    Raises:
        CannotEstimate: the fit is refused.
    """
    random = np.random.default_rng(seed)
    stated = None if violation.stated is None else violation.stated * WORTH
    given = Given(stated, 0.0, lengths_may_differ=violation.may_differ, without_holders=violation.without)
    return fit(seen_in(violation, random), given, draws=draws, random=random, sweeps=sweeps)


def earned(estimate: Estimate, violation: Violation) -> float:
    """Return the menu's profit in the true market as a share of the maximum there."""
    truth = violation.truth
    sigma = float(np.hypot(truth.sigma, violation.spread))
    truth = replace(truth, median_tokens=truth.median_tokens * violation.last, sigma=sigma)
    chosen = priced(estimate)
    here = valuation_of(read_market(chosen.market))
    menu = full_menu(here) if chosen.tiers is None else best_tiers(here, chosen.tiers)[-1]
    if violation.medians:
        published = publish(here, menu.caps)
        caps = np.array([here.steps.cap_tokens(cap) or LONGEST for cap in published.caps.tolist()])
        return earned_by(caps, published.prices.astype(np.float64), truth, violation.medians) / most(
            truth, violation.medians
        )
    there = truth_of(Case(truth, plainly), estimate.length.identified_to_tokens)
    return profit_in(there, here, menu.caps) / profit_in(there, there, full_menu(there).caps)


def warnings_of(estimate: Estimate) -> tuple[str, ...]:
    """Return the beginnings of an estimate's unusual notes, and its reasons to set data aside."""
    notes = [note[:60] for note in estimate.notes if not note.startswith(USUAL_NOTES)]
    return (*notes, *(f"set aside: {reason}" for reason in estimate.set_aside))


def of_violations(seeds: int, only: str = "") -> None:
    """Print the table, and how many markets without a violation are refused, ten for each seed."""
    honest = only in ("", "violations", "honest")
    if honest:
        for customers, each in ((CUSTOMERS, EACH), *(SMALL if only == "honest" else ())):
            found = refused_of_honest(10 * seeds, customers, each)
            print(f"Of {10 * seeds} honest markets of {customers} × {each} {found}.", flush=True)
    print("| violation | refused | said | earned, mean | worst |\n|---|---|---|---|---|")
    for name, violation in VIOLATIONS.items():
        if only not in ("", "violations") and only not in name:
            continue
        refused, warned, earns = Counter[str](), Counter[str](), list[float]()
        for seed in range(seeds):
            try:
                estimate = fitted(violation, seed)
            except CannotEstimate as error:
                refused[str(error)[:40]] += 1
                continue
            warned.update(warnings_of(estimate))
            earns.append(earned(estimate, violation))
        earning: Floats = np.array(earns)
        cells = [
            "; ".join(f"{count}: {text}" for text, count in counter.most_common(3)) or "–"
            for counter in (refused, warned)
        ]
        figures = (f"{earning.mean():.3f}", f"{earning.min():.3f}") if len(earning) else ("–", "–")
        print(f"| {name} | {' | '.join(cells)} | {' | '.join(figures)} |")
        sys.stdout.flush()


def refused_of_honest(number: int, customers: int, each: int) -> str:
    """Return how many of ``number`` markets without a violation are refused or warned of; half have tiers taken."""
    refused, warned = 0, Counter[str]()
    for seed in range(number):
        violation = VIOLATIONS["none: tiers taken" if seed % 2 else "none: observed"]
        seen = seen_in(violation, np.random.default_rng(1000 + seed), customers, each)
        random = np.random.default_rng(seed)
        try:
            warned.update(warnings_of(fit(seen, Given(WORTH, 0.0), draws=2, random=random)))
        except CannotEstimate as error:
            print(seed, error)
            refused += 1
    return (
        f"{refused} were refused, {warned.total()} warned of{''.join(f'; {n}: {text}' for text, n in warned.items())}"
    )


def of_tiers(seeds: int) -> None:
    """Print how many markets with tiers assigned at random are refused for their lengths, five for each seed."""
    for sigma in (0.4, 0.6):
        refused = 0
        for seed in range(5 * seeds):
            random = np.random.default_rng(seed)
            them = lengths_apart(sigma)(crowd_of(THREE, CUSTOMERS, EACH, random), random)
            seen = watched(them, THREE, CHOOSING, random, taken=random.integers(1, 4, CUSTOMERS))
            refused += estimate_length(seen.lengths, seen.own).differs
        print(f"σ = {sigma}: {refused} of {5 * seeds} with tiers at random are refused.", flush=True)
