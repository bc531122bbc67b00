"""Choices of tiers as they read under draws of lengths and pace, which set the thresholds between tiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricing.estimate.laws.choices import Answers, Intervals, taken_by
from pricing.estimate.laws.grouped_customers import Chosen, Rows, chosen_of, joined, rows_of_customers
from pricing.estimate.laws.leaving import LeavingTests
from pricing.estimate.laws.length import Survival
from pricing.estimate.laws.pace import Pace
from pricing.estimate.laws.urgency import Mixing, estimate_mixing
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Customers, Statistics
from pricing.market.answers import Ints

CONTRADICTING, UNEXPLAINED = "customers_contradicting", "choices_unexplained"
"""Reasons for which customers and choices are left out."""

READ_ANEW_MOST = 30_000
"""Customers up to whom choices are read anew. Of so many, with ten conversations each, the least sure threshold between
three tiers has a standard error of 2 %; of 300 it has one of 16 %."""

READINGS = 20
"""Draws of lengths and pace under each of which choices are read, where there are any: as many, or as many as draws of
the market are asked for ..."""

CANDIDATES = 200
"""... taken from so many by how likely each makes the choices ..."""

LEAVING_DRAWS = 400
"""... averaged over so many draws of what leaving alone tells ..."""

MASS_LEAST = 1e-6
"""... of which each tier has at least this share: an urgency that no draw has is not impossible."""


def read_anew(
    drawn: list[tuple[Survival, Pace]],
    seen: Statistics,
    grid: Ints,
    leaving: LeavingTests,
    before: Mixing | None,
    value_nanousd: float,
    random: np.random.Generator,
    readings: int = READINGS,
) -> tuple[list[tuple[Survival, Pace]], list[tuple[Rows, Chosen]]]:
    """Return draws of lengths and pace, drawn again by how likely they make the choices of conversations, and customers
    and choices as each of them reads them.

    How likely they are is averaged over ``before``, what leaving alone says of urgency; without it, all are alike.
    """
    possible = [answers_of(curve, grid, speed, value_nanousd) for curve, speed in drawn]
    read = [[seeming(taken_by(offer, answers), leaving) for offer in seen.offers] for answers in possible]
    logs = np.zeros(len(drawn))
    if before is not None:
        reached = np.hstack((np.zeros((LEAVING_DRAWS, 1)), np.cumsum(before.draws, axis=1)))
        for place, intervals in enumerate(read):
            likely = np.zeros(LEAVING_DRAWS)
            for offer, ends in zip(seen.offers, intervals, strict=True):
                if offer.taken is not None:
                    low, high = (
                        np.searchsorted(before.urgency_per_s, bound, side="right") for bound in (ends.low, ends.high)
                    )
                    mass = np.maximum(reached[:, high] - reached[:, low], MASS_LEAST)
                    likely += np.log(mass) @ np.array([offer.refused or 0, *offer.taken])
            logs[place] = np.logaddexp.reduce(likely)
    chance = np.cumsum(np.exp(logs - logs.max()))
    even = (np.arange(readings) + random.random()) / readings
    resampled = np.searchsorted(chance / chance[-1], even).tolist()
    return [drawn[place] for place in resampled], [as_read(seen, read[place], leaving)[:2] for place in resampled]


def seeming(intervals: Intervals, leaving: LeavingTests) -> Intervals:
    """Return the intervals of the rates at which those leave who choose so, whatever they leave for."""
    return intervals if leaving.otherwise is None else leaving.otherwise.seeming_of(intervals)


def are_chosen(seen: Statistics) -> bool:
    """Return whether anybody was seen to choose a tier, for a conversation or for an account."""
    by_account = seen.customers.choices is not None and bool(np.any(seen.customers.choices >= 0))
    return by_account or any(offer.taken is not None for offer in seen.offers)


def leaving_alone(seen: Statistics, leaving: LeavingTests, random: np.random.Generator) -> Mixing:
    """Return what leaving tells of urgency, whatever was chosen; chance is drawn apart where no conversation chose."""
    random = random if any(offer.taken is not None for offer in seen.offers) else random.spawn(1)[0]
    customers = as_timed(seen.customers, leaving)
    rows, _ = rows_of_customers(replace(customers, choices=None), [], leaving=True)
    return estimate_mixing(rows, joined([]), draws=LEAVING_DRAWS, random=random)


def as_read(
    seen: Statistics, offers: list[Intervals], leaving: LeavingTests
) -> tuple[Rows, Chosen, tuple[str, ...], dict[str, int]]:
    """Return the rows of all sources that may be used, their names, and what no urgency explains, with its count.

    Intervals are of the rates at which customers leave, ``seeming``.
    """
    sources, unexplained = [], 0
    customers = as_timed(seen.customers, leaving)
    rows, contradicting = rows_of_customers(customers, offers, leaving=leaving.refused is None)
    if len(rows.customers):
        if leaving.refused is None:
            sources.append("disconnects_before_time_outs" if leaving.untimed_only else "disconnects")
        if seen.customers.choices is not None and np.any(seen.customers.choices >= 0):
            sources.append("customer_choices")
    chosen = []
    for offer, intervals in zip(seen.offers, offers, strict=True):
        if offer.taken is not None and not intervals.tells_nothing:
            chosen.append(chosen_of(intervals, offer.refused, offer.taken))
            unexplained += sum(offer.taken) + (offer.refused or 0) - int(chosen[-1].conversations.sum())
            sources.append("conversation_choices")
    if not len(rows.customers) and not chosen:
        raise CannotEstimate(leaving.refused or "Nobody was seen to leave, wait or choose.")
    counts = {CONTRADICTING: contradicting, UNEXPLAINED: unexplained}
    left_out = {name: count for name, count in counts.items() if count}
    return rows, joined(chosen), tuple(dict.fromkeys(sources)), left_out


def answers_of(curve: Survival, grid: Ints, pace: Pace, value_nanousd: float) -> Answers:
    """Return a law of length as the steps of a market.

    Args:
        curve: how likely an answer is still going on after each number of tokens.
        grid: the steps, in tokens, increasing. Shape (m,).
        pace: when tokens arrive.
        value_nanousd: what an answer is worth; the steps do not depend on it.
    """
    return Answers(
        tokens=grid,
        probability=-np.diff(curve.at(grid), prepend=1.0),
        time_s=pace.first_token_s + grid / pace.tokens_per_s,
        value_nanousd=value_nanousd,
    )


def paced(pace: Pace, random: np.random.Generator) -> Pace:
    """Return a draw of the speed and of the first-token delay, normal about the estimate."""
    return Pace(
        max(pace.tokens_per_s * 0.1, random.normal(pace.tokens_per_s, pace.tokens_per_s_error)),
        pace.tokens_per_s_error,
        max(0.0, random.normal(pace.first_token_s, pace.first_token_s_error)),
        pace.first_token_s_error,
        pace.calls,
    )


def as_timed(customers: Customers, leaving: LeavingTests) -> Customers:
    """Return customers with the waits that may be read: where clients give up by themselves, what came before that."""
    if not leaving.untimed_only:
        return customers
    assert customers.untimed is not None
    return replace(customers, disconnects=customers.untimed.disconnects, waited_s=customers.untimed.waited_s)
