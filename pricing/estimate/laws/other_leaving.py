"""Conversations left for another reason than impatience: their number, and their effect on apparent urgency.

Satisfied customers and broken connections end a wait anywhere in the answer. As some answers are short, this is more
frequent early in a wait than late, whereas a customer's impatience is constant; the difference identifies it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pricing.estimate.laws.choices import Intervals
from pricing.estimate.laws.length import Survival
from pricing.estimate.laws.pace import Pace
from pricing.estimate.laws.urgency import Mixing
from pricing.estimate.observations.conversations import EARLY_MS
from pricing.estimate.observations.statistics import Customers
from pricing.market.answers import Floats

EARLY_S = EARLY_MS / 1000

SHARE_MOST = 0.6
"""The largest share of conversations left for other reasons that is estimated here."""

ROUNDS = 4
"""Rounds of estimating the share; each uses the seconds waited that the share of the previous round implies."""

LEAST = 0.05
"""The least share of a customer's rate of leaving that is the customer's own urgency."""

POINTS = 400
"""The number of rates between which rates of leaving are interpolated."""


@dataclass(frozen=True, slots=True)
class Otherwise:
    """Leaving for other reasons than impatience.

    Attributes:
        share: the share of conversations that would be left for other reasons if nobody left earlier out of impatience.
        share_error: standard error of the share.
        urgency_per_s: rates at which customers discount, rising. 1/s, shape (k,).
        ended_per_s: the rate at which waiting customers would leave for other reasons if all conversations were left
            so. 1/s, shape (k,).
    """

    share: float
    share_error: float
    urgency_per_s: Floats
    ended_per_s: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share."""
        return max(0.0, self.share - 1.96 * self.share_error), min(1.0, self.share + 1.96 * self.share_error)

    @property
    def seeming_per_s(self) -> Floats:
        """Return the rates of leaving, for any reason, at each of ``urgency_per_s``. 1/s, rising, shape (k,)."""
        rising: Floats = np.maximum.accumulate(self.urgency_per_s + self.share * self.ended_per_s)
        return rising

    def seeming(self, urgency_per_s: Floats) -> Floats:
        """Return the rates at which customers leave, for any reason, from the rates at which they discount.

        1/s; 0 and infinity are returned unchanged.
        """
        inside = (urgency_per_s > 0) & np.isfinite(urgency_per_s)
        rates = np.clip(np.where(inside, urgency_per_s, 1.0), self.urgency_per_s[0], None)
        more = np.interp(np.log(rates), np.log(self.urgency_per_s), self.seeming_per_s - self.urgency_per_s)
        return np.where(inside, rates + more, urgency_per_s)

    def own(self, seeming_per_s: Floats) -> Floats:
        """Return the rates at which customers discount, from the rates at which they leave, in the same order.

        1/s; each is at least ``LEAST`` times the rate of leaving.
        """
        own = np.interp(np.log(seeming_per_s), np.log(self.seeming_per_s), np.log(self.urgency_per_s))
        beyond = seeming_per_s >= self.seeming_per_s[-1]
        last = self.seeming_per_s[-1] - self.urgency_per_s[-1]
        rates = np.where(beyond, seeming_per_s - last, np.exp(own))
        return np.maximum(rates, LEAST * seeming_per_s)

    def seeming_of(self, intervals: Intervals) -> Intervals:
        """Return intervals of urgency as intervals of the rates at which customers leave."""
        return Intervals(self.seeming(intervals.low), self.seeming(intervals.high))


def as_own(mixing: Mixing, otherwise: Otherwise, number: int, random: np.random.Generator) -> Mixing:
    """Return the distribution of customers' own urgency, from the distribution of the rates at which they leave.

    The share that leaves for other reasons is drawn ``number`` times from its uncertainty; with 0, the estimate is used.
    """
    own = otherwise.own(mixing.urgency_per_s)
    if number == 0:
        return replace(mixing, urgency_per_s=own)
    shares = np.clip(random.normal(otherwise.share, otherwise.share_error, number), 0.0, SHARE_MOST).tolist()
    places = [replace(otherwise, share=drawn_share).own(mixing.urgency_per_s) for drawn_share in shares]
    by_reading = np.stack([_moved(mixing.share, place, own) for place in places])
    draws = [_moved(drawn_share, places[row % number], own) for row, drawn_share in enumerate(mixing.draws)]
    return replace(
        mixing, urgency_per_s=own, share=by_reading.mean(axis=0), draws=np.stack(draws), by_reading=by_reading
    )


def _moved(share: Floats, from_per_s: Floats, to_per_s: Floats) -> Floats:
    """Return shares of some urgencies as shares of other urgencies; each share is split between its two neighbours."""
    at = np.interp(np.log(from_per_s), np.log(to_per_s), np.arange(len(to_per_s)))
    below = np.minimum(at.astype(np.int64), len(to_per_s) - 2)
    upper = share * (at - below)
    moved = np.bincount(below, share - upper, len(to_per_s)) + np.bincount(below + 1, upper, len(to_per_s))
    return moved.astype(np.float64)


def left_otherwise(customers: Customers, curve: Survival, pace: Pace) -> Otherwise | None:
    """Return the share of conversations left for other reasons than impatience, None where there is no sign of any.

    With d, E a customer's disconnects and seconds early in its waits and D, L late, d L - D E over different waits is
    zero on average at any constant rate. If a share b of the conversations ends anywhere in the answer, at the rate b h
    per second early and b h' late, that average is b (h - h') E L, which gives b.

    Identifying assumptions: such an ending is equally likely anywhere in its answer, for every customer and every
    length of answer. Not identified: endings that come at a constant rate, because they look like impatience.

    Args:
        customers: a row for each customer.
        curve: the length of answers.
        pace: the time that answers take.
    """
    early = customers.early
    if early is None:
        return None
    late_d, late_s = customers.disconnects - early.disconnects, customers.waited_s - early.waited_s
    other_early_s = np.maximum(0.0, early.waited_s - EARLY_S)
    scale = 1.0 / customers.conversations
    score = scale * (early.disconnects * late_s - late_d * other_early_s)
    mean_rate = float(customers.disconnects.sum()) / float(customers.waited_s.sum())
    rates = (customers.disconnects + 1.0) / (customers.waited_s + 1.0 / mean_rate)
    grid = np.geomspace(float(rates.min()) / 100, float(rates.max()) * 4, POINTS)
    times, chance = _times(curve, pace)
    share = 0.0
    for _ in range(ROUNDS):
        first, total = (_ended_and_waited(grid, times, chance, share, end) for end in (EARLY_S, np.inf))
        rest = total[0] - first[0], total[1] - first[1]
        apart = np.interp(np.log(rates), np.log(grid), first[0] / first[1] - rest[0] / np.maximum(rest[1], 1e-300))
        expected = float((scale * other_early_s * late_s * apart).sum())
        share = min(SHARE_MOST, float(score.sum()) / expected) if expected > 0 else 0.0
    if share <= 0:
        return None
    error = float(np.sqrt(np.dot(score, score))) / expected
    return Otherwise(share, error, grid, total[0] / total[1])


def _times(curve: Survival, pace: Pace) -> tuple[Floats, Floats]:
    """Return the times at which answers end, s, with their probabilities, as at most ``POINTS`` means if there are more.

    Unfinished answers count as ending at the last length.
    """
    chance: Floats = -np.diff(curve.survival, prepend=1.0)
    chance[-1] += curve.unfinished
    times: Floats = pace.first_token_s + np.maximum(curve.tokens, 1) / pace.tokens_per_s
    is_possible = chance > 0
    if is_possible.sum() > POINTS:
        places = np.minimum((np.cumsum(chance[is_possible]) * POINTS).astype(np.int64), POINTS - 1)
        weight: Floats = np.bincount(places, chance[is_possible], POINTS).astype(np.float64)
        middle = np.bincount(places, chance[is_possible] * times[is_possible], POINTS)
        has_weight = weight > 0
        return middle[has_weight] / weight[has_weight], weight[has_weight]
    return times[is_possible], chance[is_possible]


def _ended_and_waited(rates: Floats, times: Floats, chance: Floats, share: float, end: float) -> tuple[Floats, Floats]:
    """Return, for each rate, per conversation, other endings by the age ``end`` if all ended so, and the seconds waited.

    In an answer of t seconds the other ending is spread evenly: at the age a its density is e^(-r a)/t, and of the
    customers who have not lost patience the share 1 - b a/t, with b = ``share``, still waits.
    """
    until = np.minimum(times, end)
    far = np.multiply.outer(rates, until)
    left = np.exp(-far)
    ended: Floats = -np.expm1(-far) @ (chance / times) / rates
    waited: Floats = -np.expm1(-far) @ chance / rates
    missed: Floats = (1 - left * (1 + far)) @ (chance / times) / rates**2
    gone: Floats = share * missed
    return ended, waited - gone
