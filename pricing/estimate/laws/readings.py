"""Reads choices of tiers under draws of lengths and pace, which set the thresholds between tiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricing.estimate.laws.choices import Answers, Intervals, taken_by
from pricing.estimate.laws.grouped_customers import Chosen, Rows, chosen_of, joined, rows_of_customers
from pricing.estimate.laws.leaving import LeavingTests
from pricing.estimate.laws.length import Survival
from pricing.estimate.laws.pace import Pace
from pricing.estimate.laws.sampling import FULL, Sweeps
from pricing.estimate.laws.urgency import Mixing, estimate_mixing
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.estimate.observations.statistics import Customers, Statistics
from pricing.market.answers import Ints

CONTRADICTING, UNEXPLAINED = "customers_contradicting", "choices_unexplained"
"""Reasons for which customers and choices are left out."""

READ_ANEW_MOST = 30_000
"""The most customers for whom choices are read again under each draw. With this many customers of ten conversations
each, the least precise threshold between three tiers has a standard error of 2 %; with 300 customers, of 16 %."""

READINGS = 20
"""The number of draws of lengths and pace under which choices are read, or the number of requested draws of the market
if that is smaller ..."""

CANDIDATES = 200
"""... resampled from this many draws, weighted by the likelihood of the choices ..."""

LEAVING_DRAWS = 400
"""... averaged over this many draws of urgency by leaving alone ..."""

MASS_LEAST = 1e-6
"""... in which each tier has at least this share: an urgency absent from all draws is not impossible."""


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
    """Return draws of lengths and pace, and the customers and choices as read under each draw.

    The draws are resampled by the likelihood of the conversations' choices, averaged over ``before``, urgency by leaving
    alone. Without ``before``, all draws are equally likely, as they are where tiers were taken only for accounts.
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
    """Return intervals of urgency as intervals of rates of leaving, for any reason."""
    return intervals if leaving.otherwise is None else leaving.otherwise.seeming_of(intervals)


def are_chosen(seen: Statistics) -> bool:
    """Return whether any choice of a tier was observed, for a conversation or for an account."""
    by_account = seen.customers.choices is not None and bool(np.any(seen.customers.choices >= 0))
    return by_account or are_named(seen)


def are_named(seen: Statistics) -> bool:
    """Return whether tiers were named for single conversations; such choices make some lengths likelier than others."""
    return any(offer.taken is not None for offer in seen.offers)


def leaving_alone(
    seen: Statistics, leaving: LeavingTests, random: np.random.Generator, sweeps: Sweeps = FULL
) -> Mixing:
    """Return urgency by leaving, ignoring choices."""
    customers = as_timed(seen.customers, leaving)
    rows, _ = rows_of_customers(replace(customers, choices=None), [], leaving=True)
    return estimate_mixing(rows, joined([]), draws=LEAVING_DRAWS, random=random, sweeps=sweeps)


def as_read(
    seen: Statistics, offers: list[Intervals], leaving: LeavingTests
) -> tuple[Rows, Chosen, tuple[str, ...], dict[str, int]]:
    """Return the data of all usable sources, the names of the sources, and counts of unexplained choices, by reason.

    ``offers`` are intervals of rates of leaving, see ``seeming``.

    Raises:
        CannotEstimate: no source is usable.
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
    """Return a law of lengths as the steps of a market.

    Args:
        curve: the probability that an answer is longer than each number of tokens.
        grid: the steps, in tokens, increasing. Shape (m,).
        pace: when tokens arrive.
        value_nanousd: the value of an answer; the steps do not depend on it.
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
    """Return customers with the waits that may be read: where clients time out, only the first ``UNTIMED_MS`` of each."""
    if not leaving.untimed_only:
        return customers
    assert customers.untimed is not None
    return replace(customers, disconnects=customers.untimed.disconnects, waited_s=customers.untimed.waited_s)
