"""The likelihood of customers' leaving and choices of tiers at each value of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pricing.estimate.laws.choices import Answers, Intervals, intervals_at
from pricing.estimate.laws.other_leaving import Otherwise
from pricing.estimate.observations.statistics import BOUGHT, Customers, Offer
from pricing.market.answers import Floats, Ints

LAPSES = 0.01
"""The share of choices made for reasons outside the model, so that a few odd choices do not rule out a value."""

STEP = 0.05
"""Neighbours on the grid of urgencies differ by this share."""

BIN = 0.06
"""Customers with the same disconnects and choices whose seconds differ by less than this share are grouped."""

UNKNOWN = -1
"""The choice of a customer that was not offered a menu, or whose choice is unknown."""


@dataclass(frozen=True, slots=True)
class Takers:
    """Customers' behaviour: leaving, waiting and choices, with similar customers in a row.

    Attributes:
        urgency_per_s: grid, rising, even in its logarithm. 1/s, shape (n,).
        likelihood: r^d e^(-r E) of each row at each urgency, the largest of a row being 1. Shape (rows, n).
        taken: the tier that each row took of each offer, 0 for none, ``UNKNOWN``, or ``BOUGHT``. Shape (rows, offers).
        weight: customers of each row; the choice of a single conversation counts customers / conversations. Shape
            (rows,).
    """

    urgency_per_s: Floats
    likelihood: Floats
    taken: Ints
    weight: Floats

    def of_at_most(self, customers: float) -> Takers:
        """Return the takers with their weights scaled down to at most ``customers`` in total."""
        return replace(self, weight=self.weight * min(1.0, customers / float(self.weight.sum())))


def takers_of(offers: Sequence[Offer], customers: Customers) -> Takers | None:
    """Return the customers' behaviour, None where no choice or no wait was observed.

    Choices of single conversations, whose customer is unknown, are rows without waits. They count once for each
    customer, not once for each conversation, because a customer's choices are alike.
    """
    disconnects, waited = _now(customers)
    count, has_waited = len(waited), waited > 0
    taken = np.full((count, len(offers)), UNKNOWN) if customers.choices is None else customers.choices
    each, rows = count / max(1, int(customers.conversations.sum())), []
    for place, offer in enumerate(offers):
        for option, number in enumerate((offer.refused or 0, *offer.taken) if offer.taken is not None else ()):
            if number:
                rows.append((place, option, number * each))
    chose = bool(np.any(taken >= 0)) or bool(rows)
    if not chose or not has_waited.any():
        return None
    behaviour = np.column_stack((disconnects, np.round(np.log(np.maximum(waited, 1e-3)) / BIN), taken)).astype(np.int64)
    _, first, place_of = np.unique(behaviour, axis=0, return_index=True, return_inverse=True)
    weight = np.bincount(place_of.ravel()).astype(np.float64)
    seconds = np.bincount(place_of.ravel(), waited) / weight
    left, taken = disconnects[first].astype(np.float64), taken[first]
    if rows:
        options = np.full((len(rows), len(offers)), UNKNOWN)
        for row, (place, option, _) in enumerate(rows):
            options[row, place] = option
        taken, weight = np.vstack((taken, options)), np.append(weight, [number for *_, number in rows])
        left, seconds = np.append(left, np.zeros(len(rows))), np.append(seconds, np.zeros(len(rows)))
    rates = (disconnects[has_waited] + 0.5) / waited[has_waited]
    ends = float(np.min(0.3 / waited[has_waited])), float(rates.max()) * 4
    grid = np.geomspace(*ends, max(2, int(np.ceil(np.log(ends[1] / ends[0]) / STEP))))
    logs = np.multiply.outer(left, np.log(grid)) - np.multiply.outer(seconds, grid)
    return Takers(grid, np.exp(logs - logs.max(axis=1, keepdims=True)), taken.astype(np.int64), weight)


@dataclass(frozen=True, slots=True)
class Climbed:
    """The distribution of urgency that makes customers' behaviour most likely at each value, and its log likelihood.

    Attributes:
        share: the distributions. Shape (values, n).
        log_likelihood: log likelihood of the customers' behaviour. Shape (values,).
    """

    share: Floats
    log_likelihood: Floats


class Slopes:
    """The likelihood of customers' behaviour at several values of an answer, maximised at all values at once.

    Between values, the likelihoods of rows that took the same tiers differ by one factor for each urgency. So the
    likelihood of leaving is stored once, and a step at all values is one matrix product for each combination of tiers
    taken.
    """

    def __init__(self, takers: Takers, chances: Sequence[Sequence[Floats]]) -> None:
        """Store the behaviour, grouped by the tiers taken, with the chances of these tiers at each value.

        Args:
            takers: the customers' behaviour.
            chances: for each value and offer, the chance that each urgency takes each option; the first option of an
                offer is no tier. Shapes (values, offers, n, tiers + 1).
        """
        self.weight, self._values = takers.weight, len(chances)
        options, group = np.unique(takers.taken, axis=0, return_inverse=True)
        self._groups = [np.flatnonzero(group.ravel() == place) for place in range(len(options))]
        self._likelihood = [takers.likelihood[rows] for rows in self._groups]
        self._factor = [np.stack([_chance_of(taken, offers) for offers in chances], axis=1) for taken in options]

    def climb(self, share: Floats | None, steps: int, weight: Floats | None = None) -> Climbed:
        """Return the distributions that some steps of expectation-maximisation reach.

        Args:
            share: the start at every value; None starts from an even distribution. Shape (n,).
            steps: the number of steps.
            weight: customers of each row; None takes the weights of the takers. Shape (rows,).
        """
        weight = self.weight if weight is None else weight
        weights, total = [weight[rows][:, None] for rows in self._groups], float(weight.sum())
        points = self._likelihood[0].shape[1]
        start = np.full(points, 1 / points) if share is None else share
        shares: Floats = np.repeat(start[:, None], self._values, axis=1)
        for _ in range(steps):
            more = np.zeros_like(shares)
            for likelihood, factor, rows_weight in zip(self._likelihood, self._factor, weights, strict=True):
                behaved = likelihood @ (factor * shares)
                more += factor * (likelihood.T @ (rows_weight / np.maximum(behaved, 1e-300)))
            shares *= more / total
        logs = np.zeros(self._values)
        for likelihood, factor, rows_weight in zip(self._likelihood, self._factor, weights, strict=True):
            logs += (rows_weight * np.log(np.maximum(likelihood @ (factor * shares), 1e-300))).sum(axis=0)
        return Climbed(shares.T, logs)


def _chance_of(taken: Ints, chances: Sequence[Floats]) -> Floats:
    """Return the chance that each urgency takes the options ``taken``, one of each offer, at one value. Shape (n,)."""
    chance: Floats = np.ones(1)
    for option, offer in zip(taken.tolist(), chances, strict=False):
        if option != UNKNOWN:
            chance = chance * (offer[:, 1:].sum(axis=1) if option == BOUGHT else offer[:, option])
    return chance


def chances_of(
    offers: Sequence[Offer],
    answers: Answers,
    values_nanousd: Floats,
    takers: Takers,
    otherwise: Otherwise | None = None,
) -> list[list[Floats]]:
    """Return for each value and offer the chance that each rate of leaving takes each option. Shapes (n, tiers + 1)."""
    at_values = as_seen(offers, answers, values_nanousd, otherwise)
    return [[of_intervals(ends, takers.urgency_per_s) for ends in intervals] for intervals in at_values]


def as_seen(
    offers: Sequence[Offer], answers: Answers, values_nanousd: Floats, otherwise: Otherwise | None
) -> list[list[Intervals]]:
    """Return, for each value and offer, the rates of leaving for any reason at which customers take each option.

    Args:
        offers, answers: the menus, and the law of lengths under which their tiers are taken.
        values_nanousd: values of an answer; ``answers.value_nanousd`` is not used. Shape (values,).
        otherwise: leaving for other reasons than impatience.
    """
    by_offer = [intervals_at(offer, answers, values_nanousd) for offer in offers]
    if otherwise is not None:
        by_offer = [[otherwise.seeming_of(ends) for ends in intervals] for intervals in by_offer]
    return [list(intervals) for intervals in zip(*by_offer, strict=True)]


def of_intervals(intervals: Intervals, urgency_per_s: Floats) -> Floats:
    """Return the share of each grid point's cell that lies in each interval, with ``LAPSES`` spread over all intervals.

    The cell of a point reaches halfway to its neighbours in logarithms. Shape (n, tiers + 1).
    """
    middle = np.log(urgency_per_s)
    half = (middle[1] - middle[0]) / 2
    with np.errstate(divide="ignore"):
        low, high = np.log(intervals.low), np.log(intervals.high)
    inside = np.minimum(middle[:, None] + half, high) - np.maximum(middle[:, None] - half, low)
    shares = np.clip(inside / (2 * half), 0.0, 1.0)
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    chances: Floats = (1 - LAPSES) * shares + LAPSES / shares.shape[1]
    return chances


def _now(customers: Customers) -> tuple[Ints, Floats]:
    """Return the disconnects and seconds since customers last changed."""
    if customers.windows is None:
        return customers.disconnects, customers.waited_s
    return customers.windows.disconnects[:, -1], customers.windows.waited_s[:, -1]
