"""Estimates the value of an answer from choices of tiers, and tests a stated value against these choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import chdtrc, logsumexp

from pricing.estimate.laws.choices import Answers, Intervals
from pricing.estimate.laws.other_leaving import Otherwise
from pricing.estimate.laws.taking import STEP, Slopes, Takers, as_seen, chances_of, of_intervals, takers_of
from pricing.estimate.observations.statistics import Customers, Offer
from pricing.market.answers import Floats

MULTIPLES: Floats = np.geomspace(1 / 4, 4, 36)
"""The values of the coarse grid, as multiples of the stated value: neighbours differ by 8 %."""

SOUGHT: Floats = np.geomspace(1 / 2, 64, 62)
"""The coarse grid where no value is stated, as multiples of the highest price: answers are worth more to its buyers."""

FINE, FAR = 33, 6.0
"""The number of values of the fine grid, evenly in logarithms, across the values of the coarse grid whose log likelihood
is below the best by at most ``FAR`` ..."""

CUSTOMERS_MOST = 3_000.0
"""More customers count as this many: the distance of a climb from its maximum grows with the number of customers."""

LENGTHS, FEW_LENGTHS, MANY_CUSTOMERS = 8, 3, 30_000
"""... under ``LENGTHS`` draws of lengths and pace, or under ``FEW_LENGTHS`` with more than ``MANY_CUSTOMERS`` customers,
who identify lengths precisely."""

STEPS, MORE_STEPS = 120, 120
"""Steps of expectation-maximisation for the distribution of urgency at each value: from an even distribution on the
coarse grid, from the average over likely values on the fine grid. All values of a grid start alike, so that of values
that put the same customers into the same tiers none is nearer its maximum."""

DROP_LEAST, DROP_MOST = 0.7, 1.92
"""The interval contains the values whose log likelihood is lower by at most the drop that chance makes in 95 of 100
redrawn crowds. That drop is bounded by these two; the upper bound is half of the 95 % point of chi-squared."""

REDRAWN, REDRAWN_STEPS = 40, 60
"""The number of redrawn crowds, and the steps of expectation-maximisation at each value in each of them."""

LIKELY = 0.5
"""The best value is the middle of the values whose log likelihood is lower by at most this: peaks of a plateau are
chance."""

CONTRADICTED = 6.0
"""The stated value is contradicted where its log likelihood is lower than the best by more than this, which happens by
chance once in two thousand times, and where that is so for all values within ``NEAR``."""

MOVES: Floats = np.geomspace(1 / 2, 2, 15)
"""The factors by which a single threshold is moved."""

DISAGREES = 0.001
"""No single value explains the choices where chance makes separate thresholds so much likelier less often than this."""

NEAR = 1.1
"""The factor within which values count as near the stated value: thresholds next to many customers depend on lengths,
too."""

WIDE = 1.7
"""An interval whose ends are further apart, as a ratio, leaves the value open."""


@dataclass(frozen=True, slots=True)
class ValueEstimate:
    """The value of an answer, by the likelihood of customers' leaving and choices of tiers.

    Attributes:
        best_nanousd: the most likely value; where a range is about as likely, the middle of the range in logarithms.
        low_nanousd, high_nanousd: the 95 % interval; an end that is an end of the coarse grid is open.
        is_bounded: whether both ends lie inside the coarse grid.
        below_best: by how much the log likelihood of the stated value, or of any value near it, lies below the best;
            0 where no value is stated.
        values_nanousd: the fine grid of values. Shape (values,).
        chance: the joint probability of each value and each draw of lengths, under a uniform prior in logarithms; the
            probabilities add up to 1. Shape (lengths, values).
        drop: by how much the log likelihood is lower at the ends of the interval than at the best value.
        agrees_p: p-value of the hypothesis that a single value explains the choices as well as separate thresholds
            between the tiers do, with urgency read from leaving; None with fewer than two thresholds.
    """

    best_nanousd: float
    low_nanousd: float
    high_nanousd: float
    is_bounded: bool
    below_best: float
    values_nanousd: Floats
    chance: Floats
    drop: float = DROP_MOST
    agrees_p: float | None = None

    @property
    def disagrees(self) -> bool:
        """Return whether no value explains both how customers leave and which tiers they take."""
        return self.agrees_p is not None and self.agrees_p < DISAGREES

    def disagreement(self) -> str:
        """Return why nothing is estimated where leaving and choices disagree, and possible causes."""
        return (
            f"No value of an answer explains both how soon customers leave and which tiers they take (p = {self.agrees_p:.2g}): "
            "many leave for other reasons than impatience, satisfied or cut off, choose by the lengths of their own answers, or "
            "value answers differently from each other. Prices that fit leaving would lose buyers if choices are right, and the "
            "other way round."
        )

    @property
    def contradicts(self) -> bool:
        """Return whether the choices rule out the stated value."""
        return self.below_best > CONTRADICTED

    @property
    def is_open(self) -> bool:
        """Return whether the interval is too wide to be represented by a single value."""
        return self.high_nanousd > WIDE * self.low_nanousd

    @property
    def taken_nanousd(self) -> float:
        """Return the value in the estimated market: the likeliest, or the least where choices leave it open."""
        return self.low_nanousd if self.is_open else self.best_nanousd

    @property
    def between(self) -> str:
        """Return the interval in words."""
        return f"{self.low_nanousd:,.0f} to {self.high_nanousd:,.0f} nano-units"

    def contradiction(self, said_nanousd: float) -> str:
        """Return why nothing is estimated with the stated value, and what to state instead."""
        return (
            f"Customers chose as if an answer were worth {self.best_nanousd:,.0f} ({self.between}), not "
            f"{said_nanousd:,.0f}: given how soon they leave, their tiers rule that value out. Prices made for it would lose "
            "buyers or give answers away; state a value that their choices support."
        )

    def open_end(self) -> str:
        """Return why choices that leave an end of the interval open give no value, and what would identify the value."""
        where = f"at least {self.low_nanousd:,.0f}" if self.high_nanousd >= self.values_nanousd[-1] else "very little"
        return (
            f"Choices tell no more of what an answer is worth than {where} nano-units; state its value, or offer tiers at "
            "prices that some customers refuse."
        )

    def drawn(self, number: int, random: np.random.Generator) -> tuple[list[int], list[float]]:
        """Return joint draws of lengths, by index, and of the value, with the probabilities ``chance``.

        Where choices leave the value open, values around the low end of the interval are drawn: a menu made for more
        than an answer is worth loses buyers; a menu made for less loses no more than the difference.
        """
        near = self.values_nanousd <= NEAR * self.low_nanousd if self.is_open else np.ones(len(self.values_nanousd))
        reached = np.cumsum(self.chance * near)
        even = (np.arange(number) + random.random()) / number * reached[-1]
        places, columns = np.divmod(np.searchsorted(reached, even), len(self.values_nanousd))
        order = random.permutation(number)
        values = self.values_nanousd[columns[order]]
        if self.is_open:
            values = self.low_nanousd * np.exp(random.uniform(-np.log(NEAR), np.log(NEAR) / 2, number))
        return places[order].tolist(), values.tolist()


def value_by_choices(
    answers: Answers,
    draws: Sequence[Answers],
    offers: Sequence[Offer],
    customers: Customers,
    random: np.random.Generator,
    *,
    is_said: bool = True,
    otherwise: Otherwise | None = None,
) -> ValueEstimate | None:
    """Return the value of an answer by choices and leaving together, None where nobody chose or waited.

    A value moves all thresholds between tiers. The likelihood of a value is the likelihood of customers' leaving and
    choices under the distribution of urgency that makes it highest: a profile likelihood. It is flat between values
    that put the same customers into the same tiers; its drop by chance among redrawn customers bounds the 95 %
    interval. It is computed under the estimated lengths and pace on a coarse grid of values, then averaged over their
    draws on a fine grid around the best values.

    Identifying assumptions: customers leave at the rate at which they discount, and choose as in ``choices``, all but
    the share ``LAPSES``. Not identified: which of two values that put the same customers into the same tiers is true.

    Args:
        answers: the estimated lengths and times, with the stated value; where none is stated, with the highest price.
        draws: draws of ``answers``.
        offers: menus, with the tiers taken of each for single conversations.
        customers: customers, with the tier that each took for its account, by offer.
        random: the source of randomness.
        is_said: whether a value is stated.
        otherwise: leaving for other reasons than impatience.
    """
    takers = takers_of(offers, customers)
    if takers is None:
        return None
    start, at = answers.value_nanousd, partial(_slopes, takers := takers.of_at_most(CUSTOMERS_MOST), offers, otherwise)
    coarse = start * (MULTIPLES if is_said else SOUGHT)
    climbed = at(answers, coarse).climb(None, STEPS)
    rough = climbed.log_likelihood - climbed.log_likelihood.max()
    near_best = np.flatnonzero(rough >= -FAR)
    likely_share = climbed.share[near_best].mean(axis=0)
    values = np.geomspace(coarse[max(0, near_best[0] - 1)], coarse[min(len(coarse) - 1, near_best[-1] + 1)], FINE)
    read = draws[: _lengths_read(customers)]
    logs = np.array([at(entry, values).climb(likely_share, MORE_STEPS).log_likelihood for entry in read])
    fine = logsumexp(logs, axis=0) - logsumexp(logs, axis=0).max()
    row, column = np.divmod(int(logs.argmax()), len(values))
    drop = _drop(takers.weight, partial(at, draws[row]), values, fine, likely_share, random)
    best_value, low, high = _interval(values, fine, drop)
    chance = np.exp(logs - logs.max())
    likely = as_seen(offers, draws[row], values[column : column + 1], otherwise)[0]
    return ValueEstimate(
        best_nanousd=best_value,
        low_nanousd=low,
        high_nanousd=high,
        is_bounded=bool(low > coarse[0] and high < coarse[-1]),
        below_best=_below_best(np.append(coarse, values), np.append(rough, fine), start) if is_said else 0.0,
        values_nanousd=values,
        chance=chance / chance.sum(),
        drop=drop,
        agrees_p=_agreement(takers, likely, climbed.share[rough.argmax()]),
    )


def _slopes(
    takers: Takers, offers: Sequence[Offer], otherwise: Otherwise | None, answers: Answers, values_nanousd: Floats
) -> Slopes:
    """Return the likelihood of customers' behaviour at each value of an answer, under one law of lengths."""
    return Slopes(takers, chances_of(offers, answers, values_nanousd, takers, otherwise))


def _lengths_read(customers: Customers) -> int:
    """Return the number of draws of lengths and pace under which values are read."""
    return LENGTHS if len(customers.conversations) <= MANY_CUSTOMERS else FEW_LENGTHS


def _agreement(takers: Takers, intervals: Sequence[Intervals], share: Floats) -> float | None:
    """Return the p-value of separate thresholds being so much likelier than those of a single value.

    The thresholds of each offer are moved in turn to where they make customers' behaviour most likely: a likelihood
    ratio with one degree of freedom less than there are thresholds. None with fewer than two thresholds.
    """
    thresholds = sum(len(_edges(ends)) for ends in intervals)
    if thresholds < 2:
        return None

    def at(candidates: Sequence[Sequence[Intervals]]) -> Floats:
        chances = [[of_intervals(ends, takers.urgency_per_s) for ends in moved] for moved in candidates]
        return Slopes(takers, chances).climb(share, MORE_STEPS).log_likelihood

    common = highest = float(at([intervals])[0])
    by_leaving = Slopes(takers, [[]]).climb(None, STEPS + MORE_STEPS).share[0]
    for start in (
        list(intervals),
        [_by_shares(takers, index, ends, by_leaving) for index, ends in enumerate(intervals)],
    ):
        best = start
        for offer, ends in enumerate(start):
            for edge in _edges(ends).tolist():
                candidates = [[*best[:offer], _moved(best[offer], edge, to), *best[offer + 1 :]] for to in edge * MOVES]
                scores = at(candidates)
                index = int(scores.argmax())
                if scores[index] > highest:
                    highest, best = float(scores[index]), candidates[index]
    return float(chdtrc(thresholds - 1, 2 * (highest - common)))


def _edges(intervals: Intervals) -> Floats:
    """Return the thresholds between tiers. 1/s, rising."""
    return np.unique(intervals.high[(intervals.high > 0) & np.isfinite(intervals.high)])


def _by_shares(takers: Takers, offer: int, intervals: Intervals, share: Floats) -> Intervals:
    """Return the thresholds that put as many customers into each tier as took the tier, with urgency by leaving alone."""
    options = np.arange(len(intervals.low))
    taken = np.array([takers.weight[takers.taken[:, offer] == option].sum() for option in options])
    if not taken.sum():
        return intervals
    beyond = np.append(0.0, np.cumsum(taken[::-1]) / taken.sum())
    ends = np.interp(beyond, np.cumsum(share), takers.urgency_per_s, left=0.0)
    ends[0], ends[-1] = 0.0, np.inf
    return Intervals(ends[:-1][::-1], ends[1:][::-1])


def _moved(intervals: Intervals, edge: float, new_edge: float) -> Intervals:
    """Return intervals with one threshold moved."""
    return Intervals(
        np.where(intervals.low == edge, new_edge, intervals.low),
        np.where(intervals.high == edge, new_edge, intervals.high),
    )


def _drop(
    weight: Floats,
    at: Callable[[Floats], Slopes],
    values: Floats,
    logs: Floats,
    share: Floats,
    random: np.random.Generator,
) -> float:
    """Return the drop of the log likelihood, from the best value to the middle of the likeliest, in redrawn crowds.

    The drop is the 95th percentile over the crowds, within ``DROP_LEAST`` and ``DROP_MOST``. The distribution of
    urgency adapts to each value, so a profile likelihood drops by less than chi-squared: an interval by chi-squared
    would contain the true value in more than 99 of 100 markets. Where few kinds of customers leave the value open,
    levels differ by more than redrawn crowds show, and the upper bound applies.

    Args:
        weight: customers of each row. Shape (rows,).
        at: returns the likelihood of their behaviour at some values.
        values, logs: values and their log likelihoods, 0 for the best value. Shapes (values,).
        share: the distribution of urgency from which each maximisation starts. Shape (n,).
        random: the source of randomness.
    """
    _, low, high = _interval(values, logs, DROP_MOST)
    if high > WIDE * low:
        return DROP_MOST
    inside = np.flatnonzero(logs >= -DROP_MOST)
    slopes, likeliest = at(values[inside]), np.flatnonzero(logs[inside] >= -LIKELY)
    middle, drops = int(likeliest[0] + likeliest[-1]) // 2, []
    total = float(weight.sum())
    for _ in range(REDRAWN):
        redrawn = random.poisson(weight).astype(np.float64)
        redrawn *= total / max(1.0, float(redrawn.sum()))
        likelihoods = slopes.climb(share, REDRAWN_STEPS, redrawn).log_likelihood
        drops.append(float(likelihoods.max() - likelihoods[middle]))
    return float(np.clip(np.quantile(drops, 0.95), DROP_LEAST, DROP_MOST))


def _interval(values: Floats, logs: Floats, drop: float) -> tuple[float, float, float]:
    """Return the likeliest value and the ends of the interval, which are at least ``STEP`` away from it, as a share.

    Kinds of customers lie between points of the grid of urgencies, so the value at which a kind changes its tier is no
    more precise than that.
    """
    inside, likeliest = np.flatnonzero(logs >= -drop), values[logs >= -LIKELY]
    low, high = (_crossing(values, logs, int(inside[at]), step, drop) for at, step in ((0, -1), (-1, 1)))
    best = float(np.sqrt(likeliest[0] * likeliest[-1]))
    return best, min(low, best / (1 + STEP)), max(high, best * (1 + STEP))


def _crossing(values: Floats, logs: Floats, last: int, step: int, drop: float) -> float:
    """Return where the log likelihood crosses its bound beyond the last value inside, by linear interpolation."""
    beyond = last + step
    if not 0 <= beyond < len(values):
        return float(values[last])
    part = (logs[last] + drop) / max(1e-12, logs[last] - logs[beyond])
    return float(values[last] * (values[beyond] / values[last]) ** part)


def _below_best(values: Floats, logs: Floats, stated_nanousd: float) -> float:
    """Return by how much the log likelihood of a value, or of any value near it, lies below the best."""
    return -float(logs[np.abs(np.log(values / stated_nanousd)) <= np.log(NEAR)].max())
