"""What an answer is worth, as far as choices of tiers tell it, and whether that is what was said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import chdtrc, logsumexp

from pricing.estimate.laws.choices import Answers, Intervals
from pricing.estimate.laws.other_leaving import Otherwise
from pricing.estimate.laws.taking import STEP, Climbed, Takers, as_seen, chances_of, climb, of_intervals, takers_of
from pricing.estimate.observations.statistics import Customers, Offer
from pricing.market.answers import Floats

MULTIPLES: Floats = np.geomspace(1 / 4, 4, 36)
"""The values that are tried, as multiples of the one that was said: neighbours differ by 8 %."""

SOUGHT: Floats = np.geomspace(1 / 2, 64, 62)
"""The same where nobody said one, as multiples of the highest price: who pays it expects more than that for it."""

FINE, FAR = 33, 6.0
"""Then so many values, evenly in logarithms, over all whose log likelihood is below the best by no more than this ..."""

CUSTOMERS_MOST = 3_000.0
"""More customers tell the value no more surely than so many: what a climb is short of its top by grows with their number."""

LENGTHS, FEW_LENGTHS, MANY_CUSTOMERS = 8, 3, 30_000
"""... under so many draws of lengths and pace; under few where so many customers tell lengths surely."""

STEPS, MORE_STEPS = 120, 120
"""How far the distribution of urgency climbs at each value: from an even one, then from the average over likely values.
All begin alike, for none of the values that put the same customers into the same tiers is to be nearer its top."""

DROP_LEAST, DROP_MOST = 0.7, 1.92
"""Values whose log likelihood is lower by no more than chance makes it in 95 of 100 redrawn crowds are in the interval: by
no less than the one, and by no more than the other, which is half of the 95 % point of chi-squared."""

REDRAWN, REDRAWN_STEPS = 40, 60
"""So many crowds are redrawn, and the distribution of urgency climbs so far at each value in each of them."""

LIKELY = 0.5
"""Of values whose log likelihood is lower by no more than this the middle stands for all: peaks of a plateau are chance."""

CONTRADICTED = 6.0
"""The value that was said is contradicted where its log likelihood is lower by more, by chance once in two thousand ..."""

MOVES: Floats = np.geomspace(1 / 2, 2, 15)
"""By what factors a threshold is moved by itself."""

DISAGREES = 0.001
"""One value does not explain what was taken where chance would make thresholds of their own so much better this rarely."""

NEAR = 1.1
"""... and that of all values within this factor of it as well: thresholds next to many customers move by lengths, too."""

WIDE = 1.7
"""An interval whose ends are further apart, as a ratio, leaves the value open."""


@dataclass(frozen=True, slots=True)
class ValueTold:
    """The value of an answer that choices tell, by their likelihood given what leaving alone tells of urgency.

    Attributes:
        best_nanousd: the value that makes them most likely; of a range that does, its middle in logarithms.
        low_nanousd, high_nanousd: its 95 % interval; an end of the values tried stands for no end.
        is_bounded: whether both ends lie within the values tried.
        below_best: by how much the log likelihood of what was said, or of any value near it, lies below the best one's;
            0 where nobody said one.
        values_nanousd: the values between which the likelihood is known finely. Shape (values,).
        chance: how likely each of them is with each draw of lengths, all values being as likely beforehand in
            logarithms; adds up to 1. Shape (lengths, values).
        drop: by how much the log likelihood is lower at the ends of the interval than at the best value.
        agrees_p: that one value explains what was taken as well as a threshold of its own between any two tiers would,
            urgency being what leaving tells; None where there is but one threshold.
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
        """Return whether no value explains how customers leave and what they take."""
        return self.agrees_p is not None and self.agrees_p < DISAGREES

    def disagreement(self) -> str:
        """Return why nothing is estimated where leaving and choosing do not agree, and what may be behind it."""
        return (
            f"No value of an answer explains both how soon customers leave and which tiers they take (p = {self.agrees_p:.2g}): "
            "many leave for other reasons than impatience, satisfied or cut off, choose by answers of their own lengths, or value "
            "answers each in its own way. Prices made from the one would lose buyers by the other."
        )

    @property
    def contradicts(self) -> bool:
        """Return whether the choices rule out what was said."""
        return self.below_best > CONTRADICTED

    @property
    def is_open(self) -> bool:
        """Return whether values so far apart are about as likely that none of them can stand for all."""
        return self.high_nanousd > WIDE * self.low_nanousd

    @property
    def taken_nanousd(self) -> float:
        """Return the value that a market is written with: the likeliest, or where it is left open the least."""
        return self.low_nanousd if self.is_open else self.best_nanousd

    @property
    def between(self) -> str:
        """Return the interval in words."""
        return f"{self.low_nanousd:,.0f} to {self.high_nanousd:,.0f} nano-units"

    def contradiction(self, said_nanousd: float) -> str:
        """Return why nothing is estimated with the value that was said, and what may be said in its place."""
        return (
            f"Customers chose as if an answer were worth {self.best_nanousd:,.0f} ({self.between}), not "
            f"{said_nanousd:,.0f}: given how soon they leave, their tiers rule that out. Prices made for it would lose "
            "buyers or give answers away; say a value that their choices bear."
        )

    def open_end(self) -> str:
        """Return why a value cannot be taken from choices that leave one end of it open, and what would tell it."""
        where = f"at least {self.low_nanousd:,.0f}" if self.high_nanousd >= self.values_nanousd[-1] else "very little"
        return (
            f"Choices tell no more of what an answer is worth than {where} nano-units; say its value, or offer tiers at "
            "prices that some customers refuse."
        )

    def drawn(self, number: int, random: np.random.Generator) -> tuple[list[int], list[float]]:
        """Return draws of lengths, by their place, each with a value, as likely as choices make them together.

        Where the value is left open, values about the least that it may be are drawn: made for more than an answer
        is worth, a menu loses buyers; made for less, it loses no more than the difference.
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


def value_told(
    answers: Answers,
    draws: Sequence[Answers],
    offers: Sequence[Offer],
    customers: Customers,
    random: np.random.Generator,
    *,
    is_said: bool = True,
    otherwise: Otherwise | None = None,
) -> ValueTold | None:
    """Return what choices and leaving tell together of the value of an answer, None where nobody chose or waited.

    A value moves all thresholds between tiers. Of each value the likelihood of what customers did, leaving and taking,
    is that under the distribution of urgency that makes it highest: a profile likelihood, whose fall by as much as it
    falls by chance among redrawn customers bounds the 95 % interval, and which is level between values that put the same
    customers into the same tiers. It is averaged over draws of lengths and pace: first at values far apart, then at close
    ones where it is near its best.

    Identifying assumptions: customers leave at the rate at which they discount, and choose as in ``choices``, all but
    ``LAPSES`` of them. Not identified: which of two values that put the same customers into the same tiers.

    Args:
        answers: as estimated, with the value that was said; without one, with the highest price.
        draws: of answers.
        offers: menus, with what was taken of each for single conversations.
        customers: with the tier that each took for its account, by offer.
        random: where chance comes from.
        is_said: whether somebody said a value.
        otherwise: how many leave for other reasons than impatience.
    """
    takers = takers_of(offers, customers)
    if takers is None:
        return None
    about, at = answers.value_nanousd, partial(_climbed, takers := takers.of_at_most(CUSTOMERS_MOST), offers, otherwise)
    coarse = about * (MULTIPLES if is_said else SOUGHT)
    climbed = [at(value, answers, None, STEPS) for value in coarse.tolist()]
    best = max(climbed, key=lambda one: one.log_likelihood)
    found = np.array([one.log_likelihood - best.log_likelihood for one in climbed])
    near = np.flatnonzero(found >= -FAR)
    likely_share = np.mean([climbed[place].share for place in near], axis=0)
    values = np.geomspace(coarse[max(0, near[0] - 1)], coarse[min(len(coarse) - 1, near[-1] + 1)], FINE)
    logs = np.array([_along(at, values, one, likely_share) for one in draws[: _lengths_read(customers)]])
    fine = logsumexp(logs, axis=0) - logsumexp(logs, axis=0).max()
    row, column = np.divmod(int(logs.argmax()), len(values))
    at_likely = partial(_chances_at, takers, offers, otherwise, draws[row])
    drop = _drop(takers, at_likely, values, fine, likely_share, random)
    best_value, low, high = _interval(values, fine, drop)
    chance = np.exp(logs - logs.max())
    likely = replace(draws[row], value_nanousd=float(values[column]))
    return ValueTold(
        best_nanousd=best_value,
        low_nanousd=low,
        high_nanousd=high,
        is_bounded=bool(low > coarse[0] and high < coarse[-1]),
        below_best=_below_best(np.append(coarse, values), np.append(found, fine), about) if is_said else 0.0,
        values_nanousd=values,
        chance=chance / chance.sum(),
        drop=drop,
        agrees_p=_agreement(takers, as_seen(offers, likely, otherwise), best.share),
    )


def _chances_at(
    takers: Takers, offers: Sequence[Offer], otherwise: Otherwise | None, answers: Answers, value_nanousd: float
) -> list[Floats]:
    """Return of each offer who takes what at one value of an answer."""
    return chances_of(offers, replace(answers, value_nanousd=value_nanousd), takers, otherwise)


def _climbed(
    takers: Takers,
    offers: Sequence[Offer],
    otherwise: Otherwise | None,
    value_nanousd: float,
    answers: Answers,
    share: Floats | None,
    steps: int,
) -> Climbed:
    """Return the likeliest distribution of urgency at one value of an answer."""
    return climb(takers, _chances_at(takers, offers, otherwise, answers, value_nanousd), share, steps)


def _lengths_read(customers: Customers) -> int:
    """Return under how many draws of lengths and pace values are read."""
    return LENGTHS if len(customers.conversations) <= MANY_CUSTOMERS else FEW_LENGTHS


def _along(at: Callable[..., Climbed], values: Floats, answers: Answers, share: Floats) -> list[float]:
    """Return the log likelihood of each value."""
    return [at(value, answers, share, MORE_STEPS).log_likelihood for value in values.tolist()]


def _agreement(takers: Takers, intervals: Sequence[Intervals], share: Floats) -> float | None:
    """Return the chance that thresholds that each move by themselves are so much likelier than those of one value.

    Of each offer the thresholds between tiers are moved one after the other to where they make what customers did most
    likely: a likelihood ratio with one degree of freedom less than there are thresholds.
    """
    number = sum(len(_edges(one)) for one in intervals)
    if number < 2:
        return None

    def at(moved: Sequence[Intervals]) -> float:
        chances = [of_intervals(one, takers.urgency_per_s) for one in moved]
        return climb(takers, chances, share, MORE_STEPS).log_likelihood

    first = at(intervals)
    reached = first
    alone = climb(takers, [], None, STEPS + MORE_STEPS).share
    for start in (list(intervals), [_by_shares(takers, place, one, alone) for place, one in enumerate(intervals)]):
        free = start
        for offer, one in enumerate(start):
            for edge in _edges(one).tolist():
                tried = [[*free[:offer], _moved(free[offer], edge, to), *free[offer + 1 :]] for to in edge * MOVES]
                scores = [at(each) for each in tried]
                place = int(np.argmax(scores))
                if scores[place] > reached:
                    reached, free = scores[place], tried[place]
    return float(chdtrc(number - 1, 2 * (reached - first)))


def _edges(intervals: Intervals) -> Floats:
    """Return the thresholds between tiers. 1/s, rising."""
    return np.unique(intervals.high[(intervals.high > 0) & np.isfinite(intervals.high)])


def _by_shares(takers: Takers, offer: int, intervals: Intervals, share: Floats) -> Intervals:
    """Return the thresholds that put as many into each tier as took it, by what leaving alone tells of urgency."""
    options = np.arange(len(intervals.low))
    taken = np.array([takers.weight[takers.taken[:, offer] == option].sum() for option in options])
    if not taken.sum():
        return intervals
    beyond = np.append(0.0, np.cumsum(taken[::-1]) / taken.sum())
    ends = np.interp(beyond, np.cumsum(share), takers.urgency_per_s, left=0.0)
    ends[0], ends[-1] = 0.0, np.inf
    return Intervals(ends[:-1][::-1], ends[1:][::-1])


def _moved(intervals: Intervals, edge: float, to: float) -> Intervals:
    """Return intervals with one threshold elsewhere."""
    return Intervals(
        np.where(intervals.low == edge, to, intervals.low), np.where(intervals.high == edge, to, intervals.high)
    )


def _drop(
    takers: Takers,
    chances_at: Callable[[float], Sequence[Floats]],
    values: Floats,
    logs: Floats,
    share: Floats,
    random: np.random.Generator,
) -> float:
    """Return by how much the middle of the likeliest values is less likely than the best one in 95 of 100 redrawn crowds.

    The distribution of urgency follows what it is held against, so a profile likelihood falls by less than chi-squared
    has it: an interval made as if it were would have the true value in more than 99 of 100 markets. Where few kinds of
    customers leave the value open, though, levels differ by more than redrawn crowds know of, and the most stands.

    Args:
        takers: what customers did.
        chances_at: who takes what at a value. Shapes (offers, n, tiers + 1).
        values, logs: values, and of each the log likelihood, the best one's being 0. Shapes (values,).
        share: where the distribution of urgency begins. Shape (n,).
        random: where chance comes from.
    """
    _, low, high = _interval(values, logs, DROP_MOST)
    if high > WIDE * low:
        return DROP_MOST
    inside = np.flatnonzero(logs >= -DROP_MOST)
    chances, likeliest = (
        [chances_at(value) for value in values[inside].tolist()],
        np.flatnonzero(logs[inside] >= -LIKELY),
    )
    middle, falls = int(likeliest[0] + likeliest[-1]) // 2, []
    total = float(takers.weight.sum())
    for _ in range(REDRAWN):
        weight = random.poisson(takers.weight).astype(np.float64)
        redrawn = replace(takers, weight=weight * total / max(1.0, float(weight.sum())))
        found = [climb(redrawn, one, share, REDRAWN_STEPS).log_likelihood for one in chances]
        falls.append(max(found) - found[middle])
    return float(np.clip(np.quantile(falls, 0.95), DROP_LEAST, DROP_MOST))


def _interval(values: Floats, logs: Floats, drop: float) -> tuple[float, float, float]:
    """Return the likeliest value and the ends of the interval, no nearer than neighbours on the grid of urgencies.

    Kinds of customers lie between places of the grid, so a value at which one changes its tier is no surer than that.
    """
    inside, likeliest = np.flatnonzero(logs >= -drop), values[logs >= -LIKELY]
    low, high = (_crossing(values, logs, int(inside[at]), step, drop) for at, step in ((0, -1), (-1, 1)))
    best = float(np.sqrt(likeliest[0] * likeliest[-1]))
    return best, min(low, best / (1 + STEP)), max(high, best * (1 + STEP))


def _crossing(values: Floats, logs: Floats, last: int, step: int, drop: float) -> float:
    """Return where beyond the last value of the interval the log likelihood falls through its bound, on a straight line."""
    beyond = last + step
    if not 0 <= beyond < len(values):
        return float(values[last])
    part = (logs[last] + drop) / max(1e-12, logs[last] - logs[beyond])
    return float(values[last] * (values[beyond] / values[last]) ** part)


def _below_best(values: Floats, logs: Floats, said: float) -> float:
    """Return by how much the log likelihood of a value, or of any near it, lies below the best one's."""
    return -float(logs[np.abs(np.log(values / said)) <= np.log(NEAR)].max())
