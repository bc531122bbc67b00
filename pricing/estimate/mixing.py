"""Who is how urgent: the mixing distribution behind what each customer was seen to do, by maximum likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pricing.answers import Floats, Ints
from pricing.estimate.choices import Intervals
from pricing.estimate.conversations import CannotEstimate
from pricing.estimate.statistics import Customers

BIN = 0.03
"""Customers of the same disconnects whose seconds differ by less than this share are taken together."""

DISCONNECTS_EXACT = 40
"""Above so many disconnects their number is binned as well."""

COARSE, FINE = 80, 240
"""Points of the first grid, and of the second, which is dense where the first found mass."""

STEPS_COARSE, STEPS_FINE = 60, 300
"""Steps of expectation-maximisation on each. Stopping there is part of the smoothing: the limit is a few atoms."""

STRATUM_LEAST = 100
"""Customers that a stratum of volume holds at least; smaller ones are joined with the next."""

LEAST = 1e-300

ANYBODY = -1
"""The stratum of conversations whose customer is not known."""

IN_INTERVAL = 6
"""Grid points that each interval between thresholds holds at least."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What was seen, in rows of likelihood r^d e^(-r E) for low < r <= high, 0 elsewhere. Shapes (rows,).

    Attributes:
        disconnects, waited_s: d and E, averages within a row.
        low, high: what the choices leave of r. 1/s.
        stratum: customers of about as many conversations, numbered from 0; -1 for choices of any of them.
        weight: conversations.
        squares: sum of the customers' squared conversations: how few customers the weight is made of.
    """

    disconnects: Floats
    waited_s: Floats
    low: Floats
    high: Floats
    stratum: Ints
    weight: Floats
    squares: Floats

    def log_likelihood(self, urgency_per_s: Floats) -> Floats:
        """Return the log-likelihood of each row at each urgency, largest 0. Shape (rows, n)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(self.disconnects[:, None] > 0, self.disconnects[:, None] * np.log(urgency_per_s), 0.0)
        logs -= self.waited_s[:, None] * urgency_per_s
        outside = (urgency_per_s <= self.low[:, None]) | (urgency_per_s > self.high[:, None])
        logs[outside] = -np.inf
        logs -= logs.max(axis=1, keepdims=True)
        return logs


def rows_of_customers(customers: Customers, offers: list[Intervals], *, leaving: bool) -> tuple[Rows, int]:
    """Return the rows of customers, similar ones taken together, and how many customers contradict themselves.

    Args:
        customers: one row each.
        offers: the intervals of each offer, in the order of ``customers.choices``.
        leaving: whether disconnects count; otherwise only choices do, and who made none is left out.
    """
    low, high = np.zeros(len(customers.conversations)), np.full(len(customers.conversations), np.inf)
    chose = np.zeros(len(customers.conversations), dtype=bool)
    if customers.choices is not None:
        for place, offer in enumerate(offers):
            choice = customers.choices[:, place]
            offered = choice >= 0
            low[offered] = np.maximum(low[offered], offer.low[choice[offered]])
            high[offered] = np.minimum(high[offered], offer.high[choice[offered]])
            chose |= offered
    sound = low < high
    kept = np.flatnonzero(sound if leaving else sound & chose)
    contradicting = int((~sound).sum())
    disconnects = customers.disconnects[kept].astype(np.float64) if leaving else np.zeros(len(kept))
    waited = customers.waited_s[kept] if leaving else np.zeros(len(kept))
    weight = customers.conversations[kept].astype(np.float64)
    stratum = _strata(customers.conversations[kept])
    cell = _cells(
        _binned(disconnects), np.round(np.log(np.maximum(waited, 1e-3)) / BIN), low[kept], high[kept], stratum
    )
    count = int(cell.max(initial=-1)) + 1
    customers_in = np.maximum(np.bincount(cell, minlength=count), 1)
    first = np.zeros(count, dtype=np.int64)
    first[cell] = np.arange(len(kept))
    return Rows(
        disconnects=np.bincount(cell, disconnects, count) / customers_in,
        waited_s=np.bincount(cell, waited, count) / customers_in,
        low=low[kept][first],
        high=high[kept][first],
        stratum=stratum[first],
        weight=np.bincount(cell, weight, count).astype(np.float64),
        squares=np.bincount(cell, weight**2, count).astype(np.float64),
    ), contradicting


def rows_of_choices(offer: Intervals, taken: tuple[int, ...]) -> Rows:
    """Return the rows of choices made for single conversations: place 0 counts those who took nothing.

    Choices of an interval that nobody should be in are left out.
    """
    counts = np.array(taken, dtype=np.float64)
    kept = (counts > 0) & (offer.low < offer.high)
    nothing = np.zeros(int(kept.sum()))
    anybody = np.full(len(nothing), ANYBODY, dtype=np.int64)
    return Rows(nothing, nothing, offer.low[kept], offer.high[kept], anybody, counts[kept], counts[kept])


def joined(parts: list[Rows]) -> Rows:
    """Return the rows of all sources: their likelihoods multiply."""
    return Rows(
        np.concatenate([part.disconnects for part in parts]),
        np.concatenate([part.waited_s for part in parts]),
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.stratum for part in parts]),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.squares for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Mixing:
    """The distribution of urgency over conversations.

    Attributes:
        urgency_per_s: grid, rising. 1/s, shape (n,).
        share: the average of the draws: smooth, and what a menu is to be made for. Shape (n,).
        draws: bootstrap draws. Shape (draws, n).
        rows: how many rows the likelihood had.
    """

    urgency_per_s: Floats
    share: Floats
    draws: Floats
    rows: int


def estimate_mixing(rows: Rows, *, draws: int, random: np.random.Generator) -> Mixing:
    """Return the distribution of urgency, weighted by conversations, with bootstrap draws.

    Each draw weights every customer by an exponential variable times its conversations and climbs the likelihood by
    expectation-maximisation on a grid. Profit is linear in the distribution, so the menu that is best on average over
    the draws is the best menu of their average; a single maximum is a few atoms, and an urgent one a hair too patient
    prices out all it stands for.

    Identifying assumptions: leaving, customers leave at the rate r at which they discount; choosing, see ``choices``.
    Not identified: urgencies far below one over a customer's seconds, or above one over its shortest waits, which are
    told from each other only as a whole; how mass is spread within an interval where only choices were seen.

    Raises:
        CannotEstimate: there are no rows.
    """
    if len(rows.weight) == 0:
        raise CannotEstimate("Nobody was seen to leave, wait or choose.")
    weights = drawn_weights(rows, draws, random)
    coarse = _grid(rows, COARSE)
    rough = climb(rows, coarse, rows.weight[:, None], STEPS_COARSE)[:, 0]
    fine = _refined(rows, coarse, rough)
    shares = climb(rows, fine, weights, STEPS_FINE).T
    return Mixing(fine, shares.mean(axis=0), shares, len(rows.weight))


def climb(rows: Rows, urgency_per_s: Floats, weights: Floats, steps: int) -> Floats:
    """Return shares after so many steps of expectation-maximisation from equal ones; many steps are the maximum.

    Customers who talk more may be more patient, so how much they talk tells of their urgency too. Each stratum of
    volume has a distribution of its own, and the market's is their sum. (One for all, its likelihood weighted by
    conversations, was tried: with patient customers talking ten times as much it put half of the urgent with them.)

    Args:
        rows: what was seen.
        urgency_per_s: grid. Shape (n,).
        weights: weights of the rows, a column a draw. Shape (rows, draws).
        steps: how many.

    Returns:
        Shape (n, draws); columns sum to 1.
    """
    likelihood = np.exp(rows.log_likelihood(urgency_per_s))
    weights = weights / weights.sum(axis=0)
    strata = [np.flatnonzero(rows.stratum == one) for one in np.unique(rows.stratum[rows.stratum != ANYBODY])]
    anybody = np.flatnonzero(rows.stratum == ANYBODY)
    own = [(likelihood[members], weights[members]) for members in strata] or [(likelihood[:0], weights[:0])]
    loose, loose_weights = likelihood[anybody], weights[anybody]
    shares = np.full((len(own), len(urgency_per_s), weights.shape[1]), 1.0 / (len(own) * len(urgency_per_s)))
    for _ in range(steps):
        pulled = loose.T @ (loose_weights / np.maximum(loose @ shares.sum(axis=0), LEAST))
        for share, (chances, weight) in zip(shares, own, strict=True):
            share *= pulled + chances.T @ (weight / np.maximum(chances @ share, LEAST))
    climbed: Floats = shares.sum(axis=0)
    climbed /= climbed.sum(axis=0)
    return climbed


def drawn_weights(rows: Rows, draws: int, random: np.random.Generator) -> Floats:
    """Return bootstrap weights, a column a draw: gamma variables of each row's mean and of its customers' variance."""
    shape = rows.weight**2 / rows.squares
    weights: Floats = random.standard_gamma(shape[:, None], (len(shape), draws)) * (rows.squares / rows.weight)[:, None]
    return weights


def _binned(disconnects: Floats) -> Floats:
    """Return a bin for each number of disconnects: itself if small."""
    above = np.maximum(disconnects, DISCONNECTS_EXACT) / DISCONNECTS_EXACT
    return np.minimum(disconnects, DISCONNECTS_EXACT) + np.round(np.log(above) / BIN)


def _strata(conversations: Ints) -> Ints:
    """Return for each customer the stratum of its volume: within one, conversations differ by about a factor of two."""
    levels = np.round(np.log2(np.maximum(conversations, 1))).astype(np.int64)
    counts = np.bincount(levels, minlength=1)
    number, held, stratum = 0, 0, np.zeros(len(counts), dtype=np.int64)
    for level, count in enumerate(counts.tolist()):
        if held >= STRATUM_LEAST and counts[level:].sum() >= STRATUM_LEAST:
            number, held = number + 1, 0
        stratum[level] = number
        held += count
    placed: Ints = stratum[levels]
    return placed


def _cells(*columns: Floats | Ints) -> Ints:
    """Return the same number for rows that agree in every column."""
    cell = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        _, cell = np.unique(cell * len(values) + place, return_inverse=True)
    return cell


def _thresholds(rows: Rows) -> Floats:
    edges = np.unique(np.concatenate((rows.low, rows.high)))
    return edges[(edges > 0) & np.isfinite(edges)]


def _grid(rows: Rows, points: int) -> Floats:
    """Return rates, evenly in their logarithm, over all that the rows can tell apart, and the thresholds."""
    seen = rows.waited_s > 0
    edges = _thresholds(rows)
    rates = (rows.disconnects[seen] + 0.5) / rows.waited_s[seen]
    lows = [float(np.min(0.1 / rows.waited_s[seen])) if seen.any() else np.inf, *(edges / 10)]
    highs = [float(rates.max()) * 3 if seen.any() else 0.0, *(edges * 4)]
    low, high = min(lows), max(highs)
    if not 0 < low < high < np.inf:
        raise CannotEstimate("Nothing that was seen tells one urgency from another.")
    return _with_intervals(np.geomspace(low, high, points), edges)


def _refined(rows: Rows, grid: Floats, share: Floats) -> Floats:
    """Return a grid with half of its points spread evenly and half where the mass is."""
    density = 0.5 * share + 0.5 / len(grid)
    reached = np.concatenate(([0.0], np.cumsum(density)))
    logs = np.log(grid)
    ends = np.concatenate(([logs[0]], (logs[:-1] + logs[1:]) / 2, [logs[-1]]))
    return _with_intervals(np.exp(np.interp(np.linspace(0, reached[-1], FINE), reached, ends)), _thresholds(rows))


def _with_intervals(grid: Floats, edges: Floats) -> Floats:
    """Return a grid that has each threshold, and ``IN_INTERVAL`` points between any two."""
    if len(edges) == 0:
        return np.unique(grid)
    ends = np.concatenate(([min(grid[0], edges[0] / 10)], edges, [max(grid[-1], edges[-1] * 4)]))
    within = [np.geomspace(a, b, IN_INTERVAL + 1) for a, b in pairwise(ends)]
    # Ends are put back as they are: a threshold that moved by a last digit would lie on its wrong side.
    return np.unique(np.concatenate((grid, edges, *(piece[1:-1] for piece in within), ends[[0, -1]])))
